"""The only place with the SQL of when a channel was last asked for a file, and of files that nobody asks for."""

from collections.abc import Collection, Iterable

from msgspec import Struct

from firthd.store import delivered, quarantine, roots
from firthd.store.database import Reader, Tx

PAGE = 500


class Drops(Struct, frozen=True):
    """A mirror that drops what nobody has asked for in so many days."""

    mirror_id: int
    channel_id: int
    days: int


async def dropping(r: Reader) -> list[Drops]:
    """Return the mirrors that drop files."""
    rows = await r.rows(
        "SELECT id, channel_id, drop_unused_days FROM mirror"
        " WHERE drop_unused_days IS NOT NULL AND mode = 'passive' AND deleted_at IS NULL"
    )
    return [Drops(*row) for row in rows]


async def note(tx: Tx, asked: Iterable[tuple[int, str]], day: int) -> None:
    """Note (channel, sha256) of files that were asked for on a day."""
    await tx.many(
        "INSERT INTO asked(channel_id, sha256, day) VALUES (?, ?, ?)"
        " ON CONFLICT(channel_id, sha256) DO UPDATE SET day = max(day, excluded.day)",
        [(channel_id, bytes.fromhex(sha256), day) for channel_id, sha256 in asked],
    )


async def forget_others(tx: Tx, channels: Collection[int]) -> None:
    """Forget what was asked of channels other than these."""
    await tx.execute(f"DELETE FROM asked WHERE channel_id NOT IN ({', '.join('?' * len(channels))})", tuple(channels))


class Stored(Struct, frozen=True):
    """A stored file of a mirror, and the day on which it was last asked for; None: nobody has looked since."""

    artifact_id: int
    sha256: str
    day: int | None


async def page(r: Reader, drops: Drops, after: int) -> list[Stored]:
    """Return the next stored files that a mirror lists, by the ids of their rows."""
    rows = await r.rows(
        "SELECT a.id, a.sha256, k.day FROM artifact a NOT INDEXED"
        " JOIN delivered d ON d.channel_id = a.channel_id AND d.sha256 = a.sha256"
        " LEFT JOIN asked k ON k.channel_id = a.channel_id AND k.sha256 = a.sha256"
        " WHERE a.id > ? AND a.channel_id = ? AND a.mirror_id = ? AND a.closed_set IS NULL ORDER BY a.id LIMIT ?",
        (after, drops.channel_id, drops.mirror_id, PAGE),
    )
    return [Stored(row[0], row[1].hex(), row[2]) for row in rows]


async def let_go(tx: Tx, drops: Drops, digests: Collection[str], before: int) -> tuple[int, list[str]]:
    """Let a channel have no more of the files what nobody has asked for since a day.

    What another mirror of the channel lists, or the channel holds itself, stays. Return how many it has no more, and
    those of them that no channel has: their files are to be taken away.
    """
    gone, nobodys = 0, []
    for sha256 in digests:
        raw = bytes.fromhex(sha256)
        unused = await tx.value(
            f"{roots.BUCKETS} SELECT EXISTS (SELECT 1 FROM asked WHERE channel_id = ?1 AND sha256 = ?2 AND day < ?3)"
            f" AND NOT EXISTS (SELECT 1 FROM bucket CROSS JOIN {roots.OF_DIGEST} = ?2 LEFT JOIN mirror m"
            " ON m.id = a.mirror_id WHERE a.channel_id = ?1 AND a.closed_set IS NULL AND m.drop_unused_days IS NULL)",
            (drops.channel_id, raw, before),
        )
        if not unused:
            continue
        gone += 1
        await tx.execute("DELETE FROM asked WHERE channel_id = ? AND sha256 = ?", (drops.channel_id, raw))
        if not await delivered.take_back(tx, drops.channel_id, sha256):
            await quarantine.forget_blob(tx, sha256)
            nobodys.append(sha256)
    return gone, nobodys
