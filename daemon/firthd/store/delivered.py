"""The only place that knows which files a channel has been given: naming a digest that others have opens nothing."""

from collections.abc import Collection, Iterable

from msgspec import Struct

from firthd.store.database import Database, Reader, Tx

_OPEN_TO_ALL_READERS = (
    "o.deleted_at IS NULL AND (o.privacy = 'public' OR (o.privacy = 'authenticated' AND c.privacy <> 'public'))"
)
"""Whoever may read channel c may read channel o: anyone reads a public one, and any valid token, such as one that names
a private channel, opens the authenticated ones. Two private channels have tokens of their own."""


async def deliver(tx: Tx, given: Iterable[tuple[int, str]]) -> None:
    """Note (channel id, sha256) of files that have come and are verified."""
    await tx.many(
        "INSERT OR IGNORE INTO delivered(channel_id, sha256) VALUES (?, ?)",
        [(channel_id, bytes.fromhex(sha256)) for channel_id, sha256 in given],
    )


async def among(r: Reader, channel_id: int, digests: Collection[str]) -> set[str]:
    """Return those of the sha256 digests, at most a few hundred, that the channel has been given."""
    rows = await r.rows(
        f"SELECT sha256 FROM delivered WHERE channel_id = ? AND sha256 IN ({', '.join('?' * len(digests))})",
        (channel_id, *map(bytes.fromhex, digests)),
    )
    return {row[0].hex() for row in rows}


async def _open_elsewhere(r: Reader, channel_id: int, digests: Collection[str]) -> set[str]:
    rows = await r.rows(
        "SELECT d.sha256 FROM channel c CROSS JOIN delivered d JOIN channel o ON o.id = d.channel_id"
        f" WHERE c.id = ? AND d.sha256 IN ({', '.join('?' * len(digests))}) AND {_OPEN_TO_ALL_READERS}",
        (channel_id, *map(bytes.fromhex, digests)),
    )
    return {row[0].hex() for row in rows}


class Present(Struct, frozen=True):
    """Digests that a channel has been given before, and those that it has taken over just now."""

    before: set[str]
    taken: set[str]

    @property
    def all(self) -> set[str]:
        return self.before | self.taken


async def present(db: Database, channel_id: int, digests: Collection[str]) -> Present:
    """Return those of the digests, at most a few hundred, that the channel has, some of them from now on.

    What lies in a channel that all of its readers may read is taken over, once: it stays whatever becomes of that
    channel. A digest that only other channels have costs the same look as one that nobody has.
    """

    async def look(r: Reader) -> tuple[set[str], set[str]]:
        return await among(r, channel_id, digests), await _open_elsewhere(r, channel_id, digests)

    before, elsewhere = await db.read(look)
    missing = elsewhere - before
    if not missing:
        return Present(before, set())

    async def take_over(tx: Tx) -> set[str]:
        still = await _open_elsewhere(tx, channel_id, missing)  # a privacy may have changed since
        await deliver(tx, [(channel_id, sha256) for sha256 in still])
        return still

    return Present(before, await db.write(take_over))


async def take_back(tx: Tx, channel_id: int, sha256: str) -> bool:
    """Let a channel have a file no more, until it comes again; return whether another channel has it."""
    raw = bytes.fromhex(sha256)
    await tx.execute("DELETE FROM delivered WHERE channel_id = ? AND sha256 = ?", (channel_id, raw))
    return bool(await tx.value("SELECT EXISTS (SELECT 1 FROM delivered WHERE sha256 = ?)", (raw,)))
