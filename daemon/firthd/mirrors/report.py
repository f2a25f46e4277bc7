"""The only place that describes mirrors and their runs to clients, and knows how a mirror is addressed."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from firth_protocol.methods import MirrorList, RunList
from firth_protocol.types import Collision, FailedArtifact, FailedReason, Mirror, MirrorDetails, MissingDependency, Run
from firthd.absent import no_mirror, no_run
from firthd.channels import browse
from firthd.channels.policies import InForce, Policies
from firthd.clock import Clock, maybe_rfc3339, rfc3339
from firthd.mirrors.judgement import counted
from firthd.runs import steps
from firthd.runs.queue import RunQueue
from firthd.store import artifacts, catalog, collisions, runs
from firthd.store.catalog import MirrorRow
from firthd.store.collisions import CollisionRow
from firthd.store.database import Database, Reader
from firthd.store.paging import Cut, Patterns

LISTED = 1000

REASONS = 20
_OWN = re.compile(r"\b[0-9a-f]{16,}\b")
"""What of a reason is its file's own: digests."""

NextDue = Callable[[str, int], int | None]
"""(schedule, after ms) → the next due time in ms."""


async def find(r: Reader, ref: int | str) -> MirrorRow:
    """Return the mirror that an id or `channel:name` means; raise NotFound."""
    row = None
    if isinstance(ref, int) or ref.isdecimal():
        number = int(ref) if len(str(ref)) < 19 else 0  # no id that SQLite can hold has more digits
        row = await catalog.mirror_by_id(r, number)
    elif ":" in ref:
        channel, _, name = ref.partition(":")
        row = await catalog.mirror_by_name(r, channel, name)
    if row is None:
        raise no_mirror(ref)
    return row


def grouped(reasons: Sequence[tuple[str, int]]) -> list[FailedReason]:
    """Return why files could not be had, the most frequent first; reasons that differ by a digest are one."""
    counts: Counter[str] = Counter()
    for reason, count in reasons:
        counts[_OWN.sub("…", reason)] += count
    return [FailedReason(reason=reason, count=count) for reason, count in counts.most_common(REASONS)]


class Finder:
    """Finds the channel that a mirror or a run belongs to."""

    def __init__(self, db: Database, queue: RunQueue) -> None:
        self._db = db
        self._queue = queue

    async def by_mirror(self, ref: int | str) -> str:
        """Return the channel's name; raise NotFound."""
        return (await self._db.read(lambda r: find(r, ref))).channel

    async def by_run(self, run: int) -> str:
        """Return the channel's name; raise NotFound."""
        return (await self._queue.row(run)).channel


class Reports:
    """Describes mirrors."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        queue: RunQueue,
        policies: Policies,
        next_due: NextDue,
    ) -> None:
        self._policies = policies
        self._db = db
        self._clock = clock
        self._queue = queue
        self._next_due = next_due
        self._colliding: dict[int, tuple[int, tuple[list[CollisionRow], int]]] = {}  # mirror -> mark, what was found

    async def describe(self, r: Reader, row: MirrorRow) -> Mirror:
        """Return a mirror as clients see it; its secrets are not in it."""
        last = await runs.run_by_id(r, row.last_run_id) if row.last_run_id else None
        state = row.state
        if last is not None and (seen := self._queue.seen(last)) is not last:
            last, state = seen, seen.state
        live = self._queue.live(row.last_run_id) if row.last_run_id else None
        now = self._clock.now_ms()
        in_force = self._policies.of_mirror(row.id)
        due = self._next_due(row.schedule, now) if row.enabled else None
        return Mirror(
            id=row.id,
            channel=row.channel,
            name=row.name,
            type=row.type,
            mode=row.mode,
            source=row.source,
            schedule=row.schedule,
            filters=row.filters,
            on_upstream_removal=row.on_upstream_removal,
            proxy=row.proxy,
            ca_file=row.ca_file,
            credentials="***" if row.has_credentials else None,
            also_from=row.also_from,
            drop_unused_days=row.drop_unused_days,
            max_rate=row.max_rate,
            max_rate_hours=row.max_rate_hours,
            enabled=row.enabled,
            state=state,
            last_run=steps.brief(live.snapshot() if live is not None else last) if last is not None else None,
            last_success_at=maybe_rfc3339(row.last_success_at),
            last_success_age_s=(now - row.last_success_at) / 1000 if row.last_success_at else None,
            next_run_at=maybe_rfc3339(due),
            artifacts=row.artifacts,
            stored=row.stored,
            shadowed=row.shadowed,
            bytes=row.bytes,
            created_at=rfc3339(row.created_at),
            updated_at=rfc3339(row.updated_at),
            revision=row.revision,
            policy=row.policy,
            in_force=in_force.told() if in_force is not None else None,
        )

    async def page(self, r: Reader, params: MirrorList, patterns: Patterns) -> Cut[Mirror]:
        """Return a page of the mirrors in channels of `patterns`."""
        channel = await browse.channel(r, params.channel) if params.channel else None
        due: dict[str, int] = {}
        if params.sort.removeprefix("-") == "next_run_at":
            now = self._clock.now_ms()
            found = [(schedule, self._next_due(schedule, now)) for schedule in await catalog.schedules(r)]
            due = {schedule: time for schedule, time in found if time is not None}
        rows, following, total = await catalog.mirrors_page(
            r,
            channel_id=channel.id if channel else None,
            query=params.query,
            type_=params.type,
            mode=params.mode,
            state=params.state,
            sort=params.sort,
            cursor=params.cursor,
            limit=params.limit,
            patterns=patterns,
            due=due,
        )
        return Cut(items=[await self.describe(r, row) for row in rows], following=following, total=total)

    async def runs_page(self, r: Reader, params: RunList, patterns: Patterns, *, store: bool) -> Cut[Run]:
        """Return a page of the runs in channels of `patterns`; `store`: those of the store too."""
        mirror = await find(r, params.mirror) if params.mirror is not None else None
        channel = await browse.channel(r, params.channel) if params.channel is not None else None
        shown, following, total = await runs.runs_page(
            r,
            mirror_id=mirror.id if mirror else None,
            channel_id=channel.id if channel else None,
            kind=params.kind,
            state=params.state,
            sort=params.sort,
            cursor=params.cursor,
            limit=params.limit,
            patterns=patterns,
            store=store,
        )
        return Cut(items=[self._queue.describe(row) for row in shown], following=following, total=total)

    async def mirror(self, r: Reader, ref: int | str) -> Mirror:
        """Return the mirror that an id or `channel:name` means; raise NotFound."""
        return await self.describe(r, await find(r, ref))

    async def _collisions(self, row: MirrorRow) -> tuple[list[CollisionRow], int]:
        """Return the files that another mirror has with other bytes, looked for again when the channel has changed."""
        mark = await self._db.read(lambda r: collisions.mark(r, row.channel_id))
        known = self._colliding.get(row.id)
        if known is None or known[0] != mark:
            found = await self._db.read(lambda r: collisions.collisions(r, row.channel_id, row.id, LISTED))
            known = self._colliding[row.id] = (mark, found)
        return known[1]

    async def details(self, ref: int | str, run_id: int | None) -> MirrorDetails:
        """Return what a mirror's run (None: its newest) did, with each failure; raise NotFound."""
        row = await self._db.read(lambda r: find(r, ref))
        newest = run_id is None
        run_id = run_id or row.last_run_id
        run = await self._queue.row(run_id) if run_id else None
        if run is not None and run.mirror_id != row.id:
            raise no_run(run.id)  # whosever it is
        totals = await self._db.read(lambda r: artifacts.mirror_totals(r, row.channel_id, row.id))
        failed = await self._db.read(lambda r: runs.failures(r, run.id, LISTED)) if run else []
        failures = await self._db.read(lambda r: runs.count_failures(r, run.id)) if run else 0
        reasons = await self._db.read(lambda r: runs.failure_reasons(r, run.id, LISTED)) if run else []
        names, shadowed = await self._db.read(lambda r: artifacts.shadowed_names(r, row.channel_id, row.id, LISTED))
        in_force = self._policies.of_mirror(row.id)
        missing, lacks, unsolvable, left_out, untold = await asyncio.to_thread(self._judged, row.id, in_force)
        collisions, colliding = await self._collisions(row)
        live = self._queue.live(run.id) if run else None
        shown = live.snapshot() if live is not None else run
        counts = shown.counts if shown else steps.NO_COUNTS
        if newest and in_force is not None:  # runs that judge anew count too, and may come after the one that is shown
            filtered = counted(in_force, left_out)
            counts = msgspec.structs.replace(counts, filtered=filtered, missing=lacks)
        return MirrorDetails(
            mirror=row.id,
            run=run.id if run else None,
            counts=counts,
            artifacts=totals.artifacts,
            stored=totals.stored,
            on_demand=totals.artifacts - totals.stored,
            bytes=totals.bytes,
            bytes_stored=totals.bytes_stored,
            parts=totals.parts,
            failed=[
                FailedArtifact(part=one.part, filename=one.filename, reason=one.reason, attempts=one.attempts)
                for one in failed
            ],
            # Of a broken index not every record's refusal is kept, but each is counted.
            failed_total=max(failures, shown.counts.failed) if shown else 0,
            failed_reasons=grouped(reasons),
            shadowed=names,
            shadowed_total=shadowed,
            collisions=[
                Collision(
                    part=one.part,
                    filename=one.filename,
                    sha256=one.sha256,
                    other=one.other,
                    other_sha256=one.other_sha256,
                )
                for one in collisions
            ],
            collisions_total=colliding,
            notes=[*(shown.notes if shown else []), *untold, *self._policies.not_seen(row)],
            in_force=in_force.told() if in_force is not None else None,
            missing=missing,
            missing_total=lacks,
            unsolvable=unsolvable,
        )

    def _judged(
        self, mirror_id: int, in_force: InForce | None
    ) -> tuple[list[MissingDependency], int, list[str], dict[str, int], list[str]]:
        """Return what the policy in force found last: requirements that nothing meets, how many there are, specs that
        cannot be solved, how many records each rule leaves out, and what was not looked at."""
        judgement = self._policies.files.of(mirror_id)
        about = judgement.about() if in_force is not None and in_force.judge is not None else None
        if about is None or in_force is None or about.policy != in_force.policy.name:
            return [], 0, [], {}, []
        found, total = judgement.missing_page(0, LISTED)
        told = [
            MissingDependency(requirement=one.requirement, platform=one.platform, chain=one.chain, why=one.why)
            for one in found
        ]
        return told, total + about.unlisted, about.unsolvable, judgement.counts(), about.notes
