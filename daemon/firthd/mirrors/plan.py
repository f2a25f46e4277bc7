"""Decides, purely: what a run is about to change, whether the source shrank too far, whether the space suffices."""

from collections.abc import Sequence

from msgspec import Struct

SHRINK_PERCENT = 20
SHRINK_COUNT = 100
GIB = 1 << 30


class PartChange(Struct, frozen=True, kw_only=True):
    """What one part of the source  changed; `stopped`: artifacts the source no longer lists."""

    part: str
    before: int
    kept: int
    added: int
    replaced: int
    removed: int
    stopped: int


class Space(Struct, frozen=True, kw_only=True):
    """Bytes of the store's file system."""

    free: int
    floor: int
    reserved: int  # by other runs

    @property
    def usable(self) -> int:
        return max(0, self.free - self.floor - self.reserved)


def floor_bytes(total: int, percent: float) -> int:
    """Return the bytes that downloads never touch: `percent` of the file system, at least 1 GiB."""
    return max(GIB, int(total * percent / 100))


def list_reason(lists: Sequence[tuple[int, int]]) -> str | None:
    """Return why a list of parts cannot be believed: it names nothing any more. (names before, names now)"""
    for before, now in lists:
        if before and not now:
            return f"the source's list is empty or gone; {before:,} names were there"
    return None


def shrink_reason(parts: Sequence[PartChange], whole: int = 0, *, singly: bool = False) -> str | None:
    """Return why the source shrank too far to go on unseen, None when it did not.

    Too far: a part or the whole that had content and has none now; or more than 20 % and more than 100 artifacts of
    the mirror or of one part are no longer listed. `whole`: the mirror's artifacts, when only some parts were read.
    `singly`: parts are many, and one that goes is none of these.
    """
    read = sum(part.before for part in parts)
    before = max(read, whole)
    stopped = sum(part.stopped for part in parts)
    if before == read and before and stopped and not any(part.kept for part in parts):
        return f"the source lists nothing any more; {before:,} artifacts were there"
    for part in () if singly else parts:
        if part.before and not part.kept and part.stopped:
            return f"{part.part} is empty or gone at the source; {part.before:,} artifacts were there"
        if _too_many(part.stopped, part.before):
            return f"the source stopped listing {part.stopped:,} of {part.before:,} artifacts of {part.part}"
    if _too_many(stopped, before):
        return f"the source stopped listing {stopped:,} of {before:,} artifacts"
    return None


def shrink_notes(parts: Sequence[PartChange], whole: int = 0, *, singly: bool = False) -> list[str]:
    """Return what people should know of losses that are large for what there was, but too small to stop a run.

    `singly`: parts are many, and what one of them loses is not noted.
    """
    notes = [
        f"the source stopped listing {part.stopped:,} of {part.before:,} artifacts of {part.part}"
        for part in (() if singly else parts)
        if _many(part.stopped, part.before)
    ]
    stopped, before = sum(part.stopped for part in parts), max(sum(part.before for part in parts), whole)
    if not notes and _many(stopped, before):
        notes.append(f"the source stopped listing {stopped:,} of {before:,} artifacts")
    return notes


def _many(stopped: int, before: int) -> bool:
    return stopped * 100 > before * SHRINK_PERCENT


def _too_many(stopped: int, before: int) -> bool:
    return stopped > SHRINK_COUNT and _many(stopped, before)


def space_reason(needed: int, space: Space) -> str | None:
    """Return why `needed` bytes do not fit, with the exact figures, None when they do."""
    if needed <= space.usable:
        return None
    return (
        f"{needed:,} bytes are to be downloaded, {space.usable:,} may be used:"
        f" {space.free:,} are free, {space.floor:,} stay free, {space.reserved:,} are reserved by other runs"
    )
