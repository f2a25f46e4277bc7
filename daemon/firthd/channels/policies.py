"""The only place that knows which policy is in force for which mirror, and refuses files by it at once."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec import Struct

from firth_protocol.errors import Conflict, Forbidden, NotFound
from firth_protocol.types import Family, Filters, MirrorMode, PolicyInForce, RunKind, Verdicts
from firthd.channels.blocks import Blocks
from firthd.clock import Clock, utc_day
from firthd.families import load_policing
from firthd.families.base import Entry, Facts, FamilyRules, InvalidRecordError
from firthd.families.policing import ToldApart
from firthd.policies.advisories import Flaws, decode_advisory
from firthd.policies.judge import Judge, Verdict
from firthd.runs.queue import RunQueue
from firthd.store import advisories, blocks, catalog, journal, policies, runs
from firthd.store.artifacts import FileRow, raw_record
from firthd.store.blocks import POLICY, Judged
from firthd.store.catalog import ChannelRow, MirrorRow
from firthd.store.database import Database, Reader, Tx
from firthd.store.excluded import JudgementFiles
from firthd.store.policies import PolicyRow

MIRROR, CHANNEL = "mirror", "channel"
VERDICTS_REMEMBERED = 20_000
ADVISORIES = "advisories"
"""The setting that rises when advisories change."""
SWEEPS = "sweeps"
"""Of a run that judges: it only takes out, and so may work beside a run of the mirror."""
SEEN_BY_RUNS = frozenset({"signed_only", "min_age", "cve"})
"""Rules that need more than a record: what a run has found counts for them."""
PACKAGES = "packages"
NAMED = "+"
"""Ends the stamp of a policy that says which packages runs read: what was judged by it was read so."""
NO_POLICY_JUDGES = "no policy judges it"


class InForce(Struct, frozen=True):
    """The policy that judges what a mirror lists, ready to judge."""

    policy: PolicyRow
    of: str
    judge: Judge | None  # None: it leaves the family alone
    policing: str = ""

    def told(self) -> PolicyInForce:
        """Return it as clients see it."""
        return PolicyInForce(
            name=self.policy.name, of=self.of, judges=self.judge is not None, report_lacks=self.report_lacks
        )

    @property
    def report_lacks(self) -> str:
        """Return what it lacks to give a dependency report; empty: nothing."""
        if self.judge is None:
            return NO_POLICY_JUDGES
        if self.judge.allow is None:
            return f"policy {self.policy.name} names no packages"
        return "" if self.judge.closes else f"policy {self.policy.name} does not include dependencies"


def named_by(rules: FamilyRules, judge: Judge | None, filters: Filters) -> Filters:
    """Return a mirror's filters; where these name no packages, those that its policy keeps with all that they need."""
    if rules.named is None or judge is None or judge.allow is None or not judge.closes:
        return filters
    names = {*judge.allow.names, *judge.exceptions.names}
    return rules.named(filters, sorted(names)) if names else filters


Key = tuple[int, int, str, str]
"""A policy's id and revision, what it is the policy of, and the family that it judges."""


class Policies:
    """The policies in force, in memory."""

    def __init__(
        self, db: Database, clock: Clock, families: Mapping[Family, FamilyRules], folder: Path, blocks: Blocks
    ) -> None:
        self._db = db
        self._clock = clock
        self._families = families
        self._blocks = blocks
        self.files = JudgementFiles(folder)
        self._made: dict[Key, InForce] = {}
        self._of_mirror: dict[int, InForce] = {}
        self._of_channel: dict[tuple[int, str], InForce] = {}
        self._living: frozenset[int] = frozenset()  # mirrors that are not deleted
        self._mirrors: dict[int, list[tuple[int, str]]] = {}  # channel -> its judged mirrors with their families
        self._verdicts: OrderedDict[int, str | None] = OrderedDict()
        self._advisories = "0"
        self._loading = asyncio.Lock()  # what was read first is not put in place last

    async def load(self) -> None:
        """Read them again; called at start and after each change to them, to channels' and to mirrors'."""
        async with self._loading:
            await self._load()

    async def _load(self) -> None:

        async def body(
            r: Reader,
        ) -> tuple[list[PolicyRow], list[ChannelRow], list[MirrorRow], str]:
            number = await journal.setting(r, ADVISORIES) or "0"
            return await policies.every(r), await catalog.all_channels(r), await catalog.all_mirrors(r), number

        rows, channels, mirrors, self._advisories = await self._db.read(body)
        named = {row.name: row for row in rows}
        made: dict[Key, InForce] = {}

        async def in_force(name: str, of: str, family: str) -> InForce | None:
            row = named.get(name)
            if row is None:
                return None
            key = (row.id, row.revision, of, family)
            if key not in made:
                # Thousands of specs take a good part of a second to read, and mostly it is another policy that changed.
                known = self._made.get(key)
                if known is None:
                    known = await asyncio.to_thread(self.ready, row, of, Family(family))
                made[key] = known
            return made[key]

        of_channel, of_mirror = {}, {}
        by_id = {channel.id: channel for channel in channels}
        judged: dict[int, list[tuple[int, str]]] = {}
        for channel in channels:
            for family in self._families if channel.policy else ():
                found = await in_force(channel.policy or "", CHANNEL, family)
                if found is not None:
                    of_channel[channel.id, family.value] = found
        for mirror in mirrors:
            owner = by_id.get(mirror.channel_id)
            name, of = (mirror.policy, MIRROR) if mirror.policy else (owner.policy if owner else None, CHANNEL)
            found = await in_force(name, of, mirror.type.value) if name else None
            if found is not None:
                of_mirror[mirror.id] = found
                judged.setdefault(mirror.channel_id, []).append((mirror.id, mirror.type.value))
        self._made = made
        self._of_channel, self._of_mirror, self._mirrors = of_channel, of_mirror, judged
        self._living = frozenset(mirror.id for mirror in mirrors)
        self._verdicts.clear()

    def ready(self, row: PolicyRow, of: str, family: Family) -> InForce:
        """Return a policy ready to judge a family."""
        rules = self._families.get(family)
        if rules is None or rules.policing is None or family not in row.families:
            return InForce(row, of, None)
        return InForce(row, of, Judge(row.rules, load_policing(rules.policing)), rules.policing)

    async def found(self, mirror_id: int, judgement: Path) -> None:
        """Put what a run has found in place of what the one before had; it is written before the run's rows.

        A crash in between leaves rows that are judged again, never a judgement that is too old.
        """
        await asyncio.to_thread(self.files.put, mirror_id, judgement)
        self._verdicts.clear()

    def of_mirror(self, mirror_id: int) -> InForce | None:
        """Return the policy that judges a mirror; None: there is none."""
        return self._of_mirror.get(mirror_id)

    def filters_of(self, mirror: MirrorRow) -> Filters:
        """Return what a mirror takes, as it was read last: see `named_by`."""
        if not mirror.judged.endswith(NAMED):
            return mirror.filters  # until a run has read what its policy names, clients get what they got
        return self.takes(mirror.id, mirror.type.value, mirror.filters)

    def takes(self, mirror_id: int, family: str, filters: Filters) -> Filters:
        """Return what a mirror of a family with these filters takes: see `named_by`."""
        in_force = self._of_mirror.get(mirror_id)
        return named_by(self._families[Family(family)], in_force.judge if in_force is not None else None, filters)

    def not_seen(self, mirror: MirrorRow) -> list[str]:
        """Return what the policy of a mirror asks about and cannot see, because clients have the parts read."""
        in_force, rules = self._of_mirror.get(mirror.id), self._families[Family(mirror.type.value)]
        judge = in_force.judge if in_force is not None else None
        reads_all = (
            rules.lazy is None
            or mirror.mode is not MirrorMode.PASSIVE
            or rules.only(self.filters_of(mirror)) is not None
        )
        if judge is None or reads_all or not isinstance(judge.policing, ToldApart):
            return []
        if (licenses := judge.rules.licenses) is None:
            return []
        read = "its packages are read when a client first asks for them, without what their files tell of themselves"
        unknown = f"every licence is unknown, and {'denied' if licenses.unknown is Verdicts.DENY else 'allowed'}"
        return [f"{read}: {unknown}. Name packages in the mirror's filters to have them read by its runs"]

    def of_new(self, channel_id: int, family: str) -> InForce | None:
        """Return the policy that would judge a mirror without one of its own."""
        return self._of_channel.get((channel_id, family))

    def judged(self, channel_id: int) -> list[tuple[int, str]]:
        """Return the mirrors of a channel that a policy judges, each with its family."""
        mirrors = self._mirrors.get(channel_id, ())
        return [(mirror, family) for mirror, family in mirrors if self._of_mirror[mirror].judge is not None]

    def judges_own(self, channel_id: int) -> bool:
        """Tell whether a policy judges what is a channel's own."""
        return any(found.judge is not None for (of, _), found in self._of_channel.items() if of == channel_id)

    def stamp(self, in_force: InForce | None) -> str:
        """Return what verdicts hang on: policy and revision, the day where age counts, advisories where flaws do."""
        if in_force is None or in_force.judge is None:
            return ""
        row = in_force.policy
        day = f"@{utc_day(self._clock.now_ms())}" if row.rules.min_age is not None else ""
        flaws = f"!{self._advisories}" if row.rules.cve is not None else ""
        rules = self._families[in_force.judge.policing.family]
        named = NAMED if named_by(rules, in_force.judge, Filters()) != Filters() else ""
        return f"{row.name}:{row.revision}{day}{flaws}{named}"

    # --- refusing

    async def refuse(self, channel: str, file: FileRow) -> None:
        """Raise Forbidden, which names block or rule, for a file that nobody may have."""
        await self._blocks.refuse(channel, file)
        in_force = self._judging(file.channel_id, file.family, file.mirror_id)
        if in_force is None or in_force.judge is None:
            return
        if file.id in self._verdicts:
            against = self._verdicts[file.id]
        else:
            raw = await self._db.read(lambda r: raw_record(r, file.id))
            entry = Entry(file.filename, file.section, raw or b"")
            against = await self._against(in_force, file.channel_id, file.mirror_id, file.part, entry)
            self._verdicts[file.id] = against
            if len(self._verdicts) > VERDICTS_REMEMBERED:
                self._verdicts.popitem(last=False)
        if against is not None:
            raise Forbidden(_told(file.filename, channel, in_force.policy.name, against))

    async def leaves_out(self, channel_id: int, one: Judged) -> bool:
        """Tell whether the policy in force leaves out an artifact of a mirror, or of the channel itself."""
        in_force = self._judging(channel_id, one.family, one.mirror_id)
        if in_force is None or in_force.judge is None:
            return False
        entry = Entry(one.filename, one.section, one.raw)
        return await self._against(in_force, channel_id, one.mirror_id, one.part, entry) is not None

    def _judging(self, channel_id: int, family: str, mirror_id: int) -> InForce | None:
        """Return the policy that judges a row; what a mirror left that is no more is the channel's to judge."""
        if mirror_id in self._living:
            return self._of_mirror.get(mirror_id)
        return self._of_channel.get((channel_id, family))

    async def own(self, channel_id: int) -> tuple[list[int], list[int]]:
        """Return which of a channel's own rows its policy leaves out, and which that it had left out it now keeps."""
        out = [one async for one in self._each(partial(blocks.own, channel_id=channel_id))]
        back = [one async for one in self._each(partial(blocks.closed_by_blocks, channel_id=channel_id, reason=POLICY))]
        return (
            [one.id for one in out if await self.leaves_out(channel_id, one)],
            [one.id for one in back if not await self.leaves_out(channel_id, one)],
        )

    async def _each(self, page: Callable[..., Awaitable[list[Judged]]]) -> AsyncIterator[Judged]:
        after = 0
        while found := await self._db.read(partial(page, after=after)):
            after = found[-1].id
            for one in found:
                yield one

    async def _against(self, in_force: InForce, channel_id: int, mirror_id: int, part: str, entry: Entry) -> str | None:
        """Return what speaks against a file: by its record now, else by what the last run found."""
        judge, name = in_force.judge, in_force.policy.name
        assert judge is not None
        try:
            facts = judge.policing.facts(part, entry)
        except InvalidRecordError:
            return None
        if judge.rules.licenses is not None and isinstance(judge.policing, ToldApart):
            version = facts.version
            document = await self._db.read(lambda r: policies.told(r, channel_id, part, version))
            facts = judge.policing.with_told(facts, document)
        key = judge.policing.name_key(facts.name)
        if judge.excepted(key, facts):
            return None
        verdict = judge.first(key, facts, None) or await self._flaw(judge, key, facts)
        if verdict is None and mirror_id:
            found = await asyncio.to_thread(self._found, mirror_id, name, part, entry.filename)
            by_closure = judge.closes and judge.allow is not None and not judge.allow.names_one(key)
            if found is not None and (found.rule in SEEN_BY_RUNS or (found.rule == PACKAGES and by_closure)):
                verdict = found
        return None if verdict is None or not verdict.refuses else f"{verdict.rule}: {verdict.why}"

    async def _flaw(self, judge: Judge, key: str, facts: Facts) -> Verdict | None:
        """Return what known flaws say: no run has looked at a file of a lazy part, or at a channel's own."""
        if judge.rules.cve is None:
            return None
        documents = await self._db.read(lambda r: advisories.about(r, judge.policing.family, key))
        flaws = Flaws(judge.policing, judge.rules.cve, map(decode_advisory, documents))
        return flaws.worst(facts) if documents else None

    def _found(self, mirror_id: int, name: str, part: str, filename: str) -> Verdict | None:
        judgement = self.files.of(mirror_id)
        about = judgement.about()
        if about is None or about.policy != name:
            return None
        found = judgement.verdict(part, filename)
        return None if found is None else Verdict(found.rule, found.why)

    async def refuse_absent(self, channel_id: int, channel: str, family: str, part: str, filename: str) -> None:
        """Raise Forbidden for a file that a source lists and a policy has never let in."""
        for mirror_id, of_family in self._mirrors.get(channel_id, ()):
            in_force = self._of_mirror[mirror_id]
            if of_family != family or in_force.judge is None:
                continue
            verdict = await asyncio.to_thread(self._found, mirror_id, in_force.policy.name, part, filename)
            if verdict is not None and verdict.refuses:
                against = f"{verdict.rule}: {verdict.why}"
                raise Forbidden(_told(filename, channel, in_force.policy.name, against))


def _told(filename: str, channel: str, policy: str, against: str) -> str:
    return f"{filename} is kept out of {channel} by policy {policy}, {against}"


async def assignable(r: Reader, name: str | None, path: str = "$.policy") -> PolicyRow | None:
    """Return the policy that is to be assigned; raise NotFound when there is none of this name."""
    if name is None:
        return None
    row = await policies.by_name(r, name)
    if row is None:
        raise no_policy(name, path)
    return row


def no_policy(name: str, path: str = "$.policy") -> NotFound:
    """Return the answer for a policy that there is not."""
    return NotFound(f"there is no policy {name!r}", hint="`policy.list` shows the policies", path=path)


def not_on_both(policy: str | None, other: str | None, what: str) -> None:
    """Raise Conflict when a mirror and its channel are to have the same policy."""
    if policy is not None and policy == other:
        raise Conflict(
            f"policy {policy} is already that of {what}",
            hint="a mirror without a policy is judged by its channel's; the same one on both would change nothing",
            path="$.policy",
        )


async def queue_own(tx: Tx, queue: RunQueue, channel: ChannelRow, *, cause: str, by: str) -> list[int]:
    """Queue a run that judges what is a channel's own, if there is anything."""
    if not await policies.has_own(tx, channel.id):
        return []
    run_id, _ = await queue.submit(tx, RunKind.REMOVE, channel_id=channel.id, channel=channel.name, cause=cause, by=by)
    return [run_id]


async def queue_refilters(tx: Tx, queue: RunQueue, mirrors: Sequence[MirrorRow], *, cause: str, by: str) -> list[int]:
    """Queue a run that judges anew for each mirror that was ever read; one that waits already is enough.

    Where a run of the mirror is at work another one takes out beside it what goes; it is not among those returned.
    """
    unfinished = await runs.open_runs(tx)
    waiting = {
        run.mirror_id: run.id
        for run in unfinished
        if run.kind is RunKind.REFILTER and run.started_at is None and not run.params.get(SWEEPS)
    }
    at_work = {run.mirror_id for run in unfinished if run.kind is RunKind.MIRROR and run.started_at is not None}
    found = []
    for mirror in mirrors:
        if mirror.id in at_work:
            await queue.submit(
                tx,
                RunKind.REFILTER,
                channel_id=mirror.channel_id,
                channel=mirror.channel,
                mirror_id=mirror.id,
                cause=cause,
                by=by,
                params={SWEEPS: True},
            )
    for mirror in mirrors:
        if mirror.id in waiting:
            found.append(waiting[mirror.id])
        elif await catalog.source_indexes(tx, mirror.id):
            run_id, _ = await queue.submit(
                tx,
                RunKind.REFILTER,
                channel_id=mirror.channel_id,
                channel=mirror.channel,
                mirror_id=mirror.id,
                cause=cause,
                by=by,
            )
            found.append(run_id)
    return found
