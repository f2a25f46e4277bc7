"""The only place that knows which files were found lost or damaged, and which of them are right again."""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from firthd.store.database import Reader, Tx

KEPT_MS = 30 * 86_400_000
"""How long what is left of a file stays in quarantine once the right one has come: it may tell what the disk did."""


class Room(StrEnum):
    BLOBS = "blobs"  # files of packages
    RENDERED = "rendered"  # files of indexes


class Damaged(Struct, frozen=True, kw_only=True):
    """A file that was not what its name says; `size` is of what lies in quarantine, 0 when there was nothing."""

    room: Room
    sha256: str
    size: int
    reason: str


class Tally(Struct, frozen=True, kw_only=True):
    """What the state knows of such files: how many, of how many bytes, and how many still wait for the right one."""

    files: int = 0
    bytes: int = 0
    waiting: int = 0
    oldest_at: int = 0
    newest_at: int = 0
    newest_reason: str = ""


async def note(tx: Tx, found: Damaged, now_ms: int) -> None:
    """Write down a file that was lost or damaged."""
    await tx.execute(
        "INSERT OR REPLACE INTO quarantine(store, sha256, size, reason, found_at) VALUES (?, ?, ?, ?, ?)",
        (found.room, bytes.fromhex(found.sha256), found.size, found.reason, now_ms),
    )


async def forget_blob(tx: Tx, sha256: str) -> None:
    """Take away the row of a blob whose file is gone, and with it who had been given it."""
    await tx.execute("DELETE FROM blob WHERE sha256 = ?", (bytes.fromhex(sha256),))


async def blobs_after(r: Reader, after: bytes, limit: int) -> list[bytes]:
    """Return the next digests of stored files."""
    rows = await r.rows("SELECT sha256 FROM blob WHERE sha256 > ? ORDER BY sha256 LIMIT ?", (after, limit))
    return [row[0] for row in rows]


async def tally(r: Reader) -> Tally:
    row = await r.row(
        "SELECT count(*), coalesce(sum(size), 0), count(*) FILTER (WHERE mended_at IS NULL), min(found_at),"
        " max(found_at) FROM quarantine"
    )
    newest = await r.row("SELECT reason FROM quarantine ORDER BY found_at DESC LIMIT 1")
    if row is None or newest is None:
        return Tally()
    return Tally(
        files=row[0], bytes=row[1], waiting=row[2], oldest_at=row[3], newest_at=row[4], newest_reason=newest[0]
    )


async def waiting(r: Reader, limit: int) -> list[tuple[Room, str]]:
    """Return files that have not come again yet."""
    rows = await r.rows("SELECT store, sha256 FROM quarantine WHERE mended_at IS NULL LIMIT ?", (limit,))
    return [(Room(row[0]), row[1].hex()) for row in rows]


async def is_waiting(r: Reader, room: Room, sha256: str) -> bool:
    """Tell whether a file is known to be lost and has not come again."""
    return bool(
        await r.value(
            "SELECT EXISTS (SELECT 1 FROM quarantine WHERE store = ? AND sha256 = ? AND mended_at IS NULL)",
            (room, bytes.fromhex(sha256)),
        )
    )


async def mended(tx: Tx, files: Sequence[tuple[Room, str]], now_ms: int) -> None:
    """Say of files that they are right again."""
    await tx.many(
        "UPDATE quarantine SET mended_at = ? WHERE store = ? AND sha256 = ?",
        [(now_ms, room, bytes.fromhex(sha256)) for room, sha256 in files],
    )


async def outlived(r: Reader, before_ms: int, limit: int) -> list[tuple[Room, str]]:
    """Return files that have been right again since before a moment."""
    rows = await r.rows("SELECT store, sha256 FROM quarantine WHERE mended_at < ? LIMIT ?", (before_ms, limit))
    return [(Room(row[0]), row[1].hex()) for row in rows]


async def forget(tx: Tx, files: Sequence[tuple[Room, str]]) -> None:
    await tx.many(
        "DELETE FROM quarantine WHERE store = ? AND sha256 = ?",
        [(room, bytes.fromhex(sha256)) for room, sha256 in files],
    )
