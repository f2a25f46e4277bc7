"""The only place that judges by blocks: what a spec takes out of a channel, and which file is refused to everybody."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from msgspec import Struct

from firth_protocol.errors import Forbidden, NotFound
from firth_protocol.types import Block, Family
from firthd.clock import rfc3339
from firthd.families.base import FamilyRules, Requirement
from firthd.store import blocks
from firthd.store.artifacts import FileRow, raw_record
from firthd.store.blocks import BlockRow, Judged
from firthd.store.database import Database, Reader
from firthd.store.run_reads import Wanted


class _Judge(Struct, frozen=True):
    row: BlockRow
    requirement: Requirement
    rules: FamilyRules

    def takes(self, part: str, raw: bytes) -> bool:
        try:
            return self.requirement.matches(self.rules.facts(part, raw))
        except ValueError:
            return False  # no record that a spec could mean


class Blocks:
    """The blocks of every channel, in memory."""

    def __init__(self, db: Database, families: Mapping[Family, FamilyRules]) -> None:
        self._db = db
        self._families = families
        self._by_channel: dict[int, list[_Judge]] = {}
        self._refused_mirrors: set[int] = set()
        self._refused_parts: dict[tuple[int, str], str] = {}  # (mirror, part) -> why its source takes its files back

    async def load(self) -> None:
        """Read them again; called at start and after each change to them."""
        found: dict[int, list[_Judge]] = {}
        for row in await self._db.read(blocks.every):
            found.setdefault(row.channel_id, []).append(self.judge(row))
        self._refused_mirrors = await self._db.read(blocks.refused_mirrors)
        self._refused_parts = await self._db.read(blocks.refused_parts)
        self._by_channel = found

    async def heed_refused(self, mirror_id: int, part: str, reason: str | None) -> None:
        """Refuse a part's files, or do so no more, as its source says."""
        if self._refused_parts.get((mirror_id, part)) != reason:
            self._refused_parts = await self._db.read(blocks.refused_parts)

    def judge(self, row: BlockRow) -> _Judge:
        """Return what judges by a block; raise Invalid for a spec that is none, NotFound for a family not served."""
        rules = self._families.get(Family(row.family))
        if rules is None:
            raise NotFound(f"packages of family {row.family} are not served by this version")
        return _Judge(row, rules.requirement(row.spec), rules)

    async def refuse(self, channel: str, file: FileRow) -> None:
        """Raise Forbidden, which names the block, for a file that nobody may have."""
        if file.mirror_id in self._refused_mirrors and not await self._db.read(
            lambda r: blocks.offered(r, file.channel_id, file.family, file.part, file.filename)
        ):
            raise Forbidden(f"{file.filename} was removed from {channel} together with its mirror")
        if (reason := self._refused_parts.get((file.mirror_id, file.part))) is not None:
            raise Forbidden(f"{file.filename} is refused in {channel}: {reason}")
        named = [
            judge
            for judge in self._by_channel.get(file.channel_id, ())
            if judge.row.family == file.family and judge.requirement.name in {None, file.name}
        ]
        if not named:
            return
        raw = await self._db.read(lambda r: raw_record(r, file.id))
        for judge in named:
            if raw is not None and judge.takes(file.part, raw):
                note = f": {judge.row.note}" if judge.row.note else ""
                raise Forbidden(f"{file.filename} is blocked in {channel} by `{judge.row.spec}`{note}")

    async def taken_out(self, channel_id: int, of: Sequence[BlockRow] | None = None) -> list[Judged]:
        """Return the live rows that blocks (those of the channel, unless others are given) take out."""
        judges = self._by_channel.get(channel_id, []) if of is None else [self.judge(row) for row in of]
        found: dict[int, Judged] = {}
        for judge in judges:
            after = 0
            family, name = judge.row.family, judge.requirement.name
            while page := await self._db.read(
                partial(blocks.live, channel_id=channel_id, family=family, name=name, after=after)
            ):
                after = page[-1].id
                found |= {one.id: one for one in await asyncio.to_thread(_matching, [judge], page)}
        return list(found.values())

    async def out_of_part(self, channel_id: int, mirror_id: int, family: Family, part: str) -> frozenset[str]:
        """Return the names of a part's files that blocks take out of its page."""
        if not self.any(channel_id, family):
            return frozenset()
        judges = [judge for judge in self._by_channel.get(channel_id, ()) if judge.row.family == family]
        rows = await self._db.read(lambda r: blocks.of_part(r, channel_id, mirror_id, family, part))

        def out() -> frozenset[str]:
            return frozenset(name for name, raw in rows if any(judge.takes(part, raw) for judge in judges))

        return await asyncio.to_thread(out)

    def any(self, channel_id: int, family: Family) -> bool:
        """Tell whether a channel has blocks of a family."""
        return any(judge.row.family == family for judge in self._by_channel.get(channel_id, ()))

    async def among(self, channel_id: int, family: Family, page: Sequence[Wanted]) -> list[int]:
        """Return the ordinals of those of a run's files that blocks take out."""
        judges = [judge for judge in self._by_channel.get(channel_id, ()) if judge.row.family == family]
        names = {judge.requirement.name for judge in judges}
        asked = [one for one in page if None in names or one.name in names]

        def taken() -> list[int]:
            return [one.ordinal for one in asked if any(judge.takes(one.part, one.raw) for judge in judges)]

        return await asyncio.to_thread(taken) if asked else []

    def against(self, channel_id: int, one: Judged) -> str | None:
        """Return the spec of a block that takes an artifact out; None: none does."""
        for judge in self._by_channel.get(channel_id, ()):
            if judge.row.family == one.family and judge.takes(one.part, one.raw):
                return judge.row.spec
        return None

    async def let_in_again(self, channel_id: int) -> list[Judged]:
        """Return the rows that blocks have taken out and none of those in force does."""
        judges = self._by_channel.get(channel_id, [])
        found, after = [], 0
        while page := await self._db.read(partial(blocks.closed_by_blocks, channel_id=channel_id, after=after)):
            after = page[-1].id
            still = {one.id for one in await asyncio.to_thread(_matching, judges, page)}
            found += [one for one in page if one.id not in still]
        return found


def _matching(judges: Sequence[_Judge], page: Sequence[Judged]) -> list[Judged]:
    return [
        one
        for one in page
        if any(judge.row.family == one.family and judge.takes(one.part, one.raw) for judge in judges)
    ]


async def told(r: Reader, channel_id: int) -> list[Block]:
    """Return a channel's blocks as clients see them."""
    return [
        Block(family=Family(row.family), spec=row.spec, by=row.by, at=rfc3339(row.at), note=row.note)
        for row in await blocks.every(r, channel_id)
    ]
