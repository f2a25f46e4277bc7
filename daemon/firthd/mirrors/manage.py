"""The only place that changes mirrors: check, create, edit, run, stop, restart, plan, delete."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from msgspec import UNSET

from firth_protocol.errors import Conflict, Invalid, WrongState
from firth_protocol.events import Fact
from firth_protocol.methods import (
    MirrorCheck,
    MirrorCreate,
    MirrorDelete,
    MirrorDeleteReply,
    MirrorFill,
    MirrorPlan,
    MirrorReply,
    MirrorUpdate,
    RunReply,
)
from firth_protocol.types import (
    Credentials,
    Family,
    Filters,
    Mirror,
    MirrorType,
    OnUpstreamRemoval,
    RunKind,
    RunState,
    SourceFound,
)
from firthd.absent import no_mirror
from firthd.channels import browse
from firthd.channels.blocks import Blocks
from firthd.channels.manage import stale, write
from firthd.channels.policies import Policies, assignable, not_on_both, queue_refilters
from firthd.clock import Clock
from firthd.families import recognisers
from firthd.families.base import FamilyRules
from firthd.mirrors import checks
from firthd.mirrors.delete import Removals
from firthd.mirrors.probe import Probe
from firthd.mirrors.report import Reports, find
from firthd.mirrors.run import MirrorRuns
from firthd.mirrors.source import NO_MIRROR, Job, rules_of, source_of
from firthd.mirrors.take_in import TakeIn
from firthd.runs.queue import RunQueue
from firthd.store import catalog, runs
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Reader, Tx, more_to_come
from firthd.store.journal import Journal, newest
from firthd.store.secrets import Named, SecretFile, Secrets
from firthd.upstream.client import Source, mask
from firthd.upstream.client import Upstream as Upstreams
from firthd.upstream.source import check_credentials

NO_SECRETS = Secrets()
COALESCED_MOST = 100
"""Due times that the scheduler counts at one look: so many may have been more."""


class Schedules(Protocol):
    """What knows cron; the scheduler is passed in."""

    def check(self, text: str) -> tuple[str, list[str]]:
        """Return the expression as five fields, and warnings; raise Invalid for nonsense."""


class Mirrors:
    """The verbs on mirrors."""

    def __init__(
        self,
        *,
        db: Database,
        journal: Journal,
        clock: Clock,
        queue: RunQueue,
        runs: MirrorRuns,
        take_in: TakeIn,
        reports: Reports,
        secrets: SecretFile,
        blocks: Blocks,
        upstream: Upstreams,
        policies: Policies,
        families: Mapping[Family, FamilyRules],
        schedules: Schedules,
    ) -> None:
        self._policies = policies
        self._db = db
        self._journal = journal
        self._clock = clock
        self._queue = queue
        self._runs = runs
        self._take_in = take_in
        self._removals = Removals(db, journal, clock, queue, secrets, blocks)
        self._reports = reports
        self._secrets = secrets
        self._upstream = upstream
        self._families = families
        self._schedules = schedules

    # --- finding ---------------------------------------------------------------------------------------

    async def find(self, r: Reader, ref: int | str) -> MirrorRow:
        """Return the mirror that an id or `channel:name` means; raise NotFound."""
        return await find(r, ref)

    # --- checking the source -----------------------------------------------------------------------------

    async def check(self, params: MirrorCheck) -> SourceFound:
        """Ask a source what it is, at most 10 s; raise Upstream or Invalid with what was found instead."""
        stored, proxy = None, params.proxy
        if params.mirror is not None:
            ref = params.mirror
            row = await self._db.read(lambda r: find(r, ref))
            same_proxy = params.proxy is None or mask(params.proxy) == row.proxy
            # Secrets of one host stay with it, and go through no other proxy than the mirror's own.
            if same_proxy and checks.host_of(row.source) == checks.host_of(params.source):
                now = source_of(row, self._secrets, without=params.credentials is not None)
                stored = now.credentials
                if proxy in {None, row.proxy}:  # as it is shown: its password is not
                    proxy = now.proxy
        source, warnings = self._normalise(
            params.type, params.source, params.credentials, proxy, params.ca_file, stored=stored
        )
        return await self._ask(params.type, source, warnings)

    async def _ask(
        self, type_: MirrorType, source: Source, warnings: list[str], filters: Filters | None = None
    ) -> SourceFound:
        rules = rules_of(self._families, type_)
        probe = Probe(self._upstream, source, rules, recognisers())
        found = await probe.run(filters or Filters(), beside=filters is None)
        return msgspec.structs.replace(found, warnings=[*warnings, *found.warnings])

    def _normalise(
        self,
        type_: MirrorType,
        address: str,
        given: Credentials | str | None,
        proxy: str | None,
        ca_file: str | None,
        *,
        stored: Credentials | None = None,
    ) -> tuple[Source, list[str]]:
        """Return the source that an address and its secrets mean; `stored` are those that the mirror has already."""
        rules = rules_of(self._families, type_)
        credentials = self._secrets.named(given) if isinstance(given, str) else given
        check_credentials(credentials)
        checks.check_proxy(proxy)
        checks.check_ca_file(ca_file)
        found = rules.normalise(address, credentials, stored)
        made = Source(url=found.source, credentials=found.credentials, proxy=proxy, ca_file=ca_file)
        return made, list(found.warnings)

    # --- create and edit -----------------------------------------------------------------------------------

    async def create(self, params: MirrorCreate, by: str) -> MirrorReply:
        """Create a mirror; its source is asked first unless `check` is false."""
        checks.check_name(params.name)
        schedule, warnings = self._schedules.check(params.schedule)
        warnings += checks.check_filters(rules_of(self._families, params.type), params.filters)
        source, found = self._normalise(params.type, params.source, params.credentials, params.proxy, params.ca_file)
        warnings += found
        transfer = checks.transfer_columns(params, params.mode)
        warnings += await asyncio.to_thread(checks.absent_folders, params.also_from)
        await self._db.read(lambda r: browse.channel(r, params.channel))
        if params.check:
            answer = await self._ask(params.type, source, [], params.filters)
            source = msgspec.structs.replace(source, url=answer.source)
            warnings += answer.warnings

        async def body(tx: Tx) -> tuple[Mirror, int, list[str]]:
            channel = await browse.channel(tx, params.channel)
            if await catalog.mirror_by_name(tx, channel.name, params.name):
                raise Conflict(
                    f"{channel.name} has a mirror {params.name!r} already", hint="choose another name", path="$.name"
                )
            await assignable(tx, params.policy)
            not_on_both(params.policy, channel.policy, f"channel {channel.name}")
            others = await catalog.mirrors_of(tx, channel.id)
            more = []
            if others:
                more.append(
                    f"{channel.name} has {len(others) + 1} mirrors now: a package name belongs to the oldest that"
                    " offers it, the others' files of that name are not served"
                )
            mirror_id = await catalog.insert_mirror(
                tx,
                {
                    "channel_id": channel.id,
                    "name": params.name,
                    "type": params.type,
                    "mode": params.mode,
                    "source": source.url,
                    "schedule": schedule,
                    "filters": msgspec.json.encode(params.filters).decode(),
                    "on_upstream_removal": params.on_upstream_removal,
                    "proxy": mask(params.proxy) if params.proxy else None,
                    "ca_file": params.ca_file,
                    "has_credentials": int(source.credentials is not None),
                    "enabled": int(params.enabled),
                    "policy": params.policy,
                    **transfer,
                },
                self._clock.now_ms(),
            )
            seq = await self._journal.fact(
                tx, Fact.MIRROR_CREATED, ids={"channel": channel.name, "mirror": mirror_id}, data={"name": params.name}
            )
            return await self._reports.describe(tx, await _row(tx, mirror_id)), seq, more

        secrets = _secrets(source, params.proxy)
        with more_to_come(params.run_now or secrets != NO_SECRETS):
            mirror, seq, more = await write(self._db, body, dry_run=params.dry_run)
        warnings += more
        if params.dry_run:
            return MirrorReply(mirror=mirror, warnings=warnings, seq=seq)
        await self._secrets.put(mirror.id, secrets)
        await self._policies.load()
        mirror = await self._db.read(lambda r: self._reports.mirror(r, mirror.id))
        run = None
        if params.run_now:
            reply = await self.run(mirror.id, by, cause="run now")
            run, seq = reply.run, reply.seq
            row = await self._db.read(lambda r: _row(r, mirror.id))
            mirror = await self._db.read(lambda r: self._reports.describe(r, row))
        return MirrorReply(mirror=mirror, run=run, warnings=warnings, seq=seq)

    async def update(self, params: MirrorUpdate, by: str) -> MirrorReply:
        """Edit a mirror; a policy acts at once, a changed source or filter at the next run, which reads all anew."""
        before = await self._db.read(lambda r: find(r, params.mirror))
        changes: dict[str, Any] = {}
        warnings: list[str] = []
        if params.name is not UNSET:
            checks.check_name(params.name)
            changes["name"] = params.name
        if params.schedule is not UNSET:
            changes["schedule"], said = self._schedules.check(params.schedule)
            warnings += said
        if params.filters is not UNSET:
            filters = params.filters or Filters()
            warnings += checks.check_filters(rules_of(self._families, before.type), filters)
            changes["filters"] = msgspec.json.encode(filters).decode()
        for field in ("on_upstream_removal", "enabled"):
            value = getattr(params, field)
            if value is not UNSET:
                changes[field] = value
        changes |= checks.transfer_columns(params, before.mode)
        warnings += await asyncio.to_thread(checks.absent_folders, params.also_from)
        secrets, anew = await self._new_source(params, before, changes, warnings)

        async def body(tx: Tx) -> tuple[int, list[int]]:
            row = await _row(tx, before.id)
            if params.policy is not UNSET and params.policy != row.policy:
                changes["policy"] = params.policy
            if row.revision != params.revision:
                current = await self._reports.describe(tx, row)
                raise stale(f"mirror {row.channel}:{row.name}", params.revision, row.revision, current)
            if "name" in changes and changes["name"] != row.name:
                other = await catalog.mirror_by_name(tx, row.channel, changes["name"])
                if other is not None:
                    raise Conflict(f"{row.channel} has a mirror {changes['name']!r} already", path="$.name")
            await catalog.update_mirror(tx, row.id, changes, self._clock.now_ms())
            if anew or not changes.keys().isdisjoint({"filters", "on_upstream_removal"}):
                await catalog.forget_source_indexes(tx, row.id)
            if changes.get("source", row.source) != row.source:
                await catalog.owners_changed(tx, row.channel_id)
            if "schedule" in changes or "enabled" in changes:
                await catalog.note_mirror(tx, row.id, {"scheduled_from": self._clock.now_ms()})
            queued = await self._assign(tx, row.id, by) if "policy" in changes else []
            seq = await self._journal.fact(
                tx,
                Fact.MIRROR_UPDATED,
                ids={"channel": row.channel, "mirror": row.id},
                data={"fields": sorted(changes)},
            )
            return seq, queued

        with more_to_come(secrets is not None):
            seq, queued = await write(self._db, body, dry_run=params.dry_run)
        await self._policies.load()
        if not params.dry_run and secrets is not None:
            await self._secrets.put(before.id, secrets)
        row = await self._db.read(lambda r: _row(r, before.id))
        mirror = await self._db.read(lambda r: self._reports.describe(r, row))
        run = await self._queue.get(queued[0]) if queued and not params.dry_run else None
        return MirrorReply(mirror=mirror, run=run, warnings=warnings, seq=seq)

    async def _assign(self, tx: Tx, mirror_id: int, by: str) -> list[int]:
        """Check the policy that a mirror's row has now; queue the run that makes it true."""
        row = await _row(tx, mirror_id)
        await assignable(tx, row.policy)
        not_on_both(row.policy, (await browse.channel(tx, row.channel)).policy, f"channel {row.channel}")
        cause = f"policy {row.policy} was assigned" if row.policy else "the mirror has no policy of its own any more"
        return await queue_refilters(tx, self._queue, [row], cause=cause, by=by)

    async def _new_source(
        self, params: MirrorUpdate, before: MirrorRow, changes: dict[str, Any], warnings: list[str]
    ) -> tuple[Secrets | None, bool]:
        """Work out source, credentials, proxy and CA file of an edit; return new secrets, and whether to read anew."""
        fields = (params.source, params.credentials, params.proxy, params.ca_file)
        if all(field is UNSET for field in fields):
            return None, False
        replaced = params.credentials is not UNSET
        now = source_of(before, self._secrets, without=replaced)
        credentials = None if params.credentials is UNSET else params.credentials
        stored = now.credentials if params.credentials is UNSET else None
        # What is shown of a proxy may come back with the form it stood in: then it is the stored one, password and all.
        proxy = now.proxy if params.proxy is UNSET or params.proxy == before.proxy else params.proxy
        ca_file = now.ca_file if params.ca_file is UNSET else params.ca_file
        given = before.source if params.source is UNSET else params.source
        if checks.host_of(given) != checks.host_of(before.source) and stored is not None:
            stored = None  # secrets of one host are not sent to another
            warnings.append("the source is another host: its credentials must be given anew")
        source, said = self._normalise(before.type, given, credentials, proxy, ca_file, stored=stored)
        warnings += said
        if params.check:
            answer = await self._ask(before.type, source, [], Filters())
            source = msgspec.structs.replace(source, url=answer.source)
            warnings += answer.warnings
        changes.update(
            source=source.url,
            proxy=mask(proxy) if proxy else None,
            ca_file=ca_file,
            has_credentials=int(source.credentials is not None),
        )
        return _secrets(source, proxy), source.url != before.source

    # --- runs ----------------------------------------------------------------------------------------------

    async def fill(self, params: MirrorFill, by: str) -> RunReply:
        """Queue the download of what a mirror lists and the store lacks; raise Invalid for a spec that is none."""

        async def body(tx: Tx) -> tuple[int | None, int]:
            row = await find(tx, params.mirror)
            self._removals.check(row)
            for spec in params.specs or []:
                rules_of(self._families, row.type).requirement(spec)
            return await self._queue.submit(
                tx,
                RunKind.FILL,
                channel_id=row.channel_id,
                channel=row.channel,
                mirror_id=row.id,
                cause="by hand",
                by=by,
                params={} if params.specs is None else {"specs": params.specs},
            )

        run_id, seq = await write(self._db, body, dry_run=params.dry_run)
        return RunReply(run=None if params.dry_run or run_id is None else await self._queue.get(run_id), seq=seq)

    async def run(
        self,
        ref: int | str,
        by: str,
        *,
        cause: str = "by hand",
        accept_removals: bool = False,
        dry_run: bool = False,
    ) -> RunReply:
        """Queue a run, or return the one that is under way."""

        async def body(tx: Tx) -> tuple[int, bool, int]:
            row = await find(tx, ref)
            self._removals.check(row)
            for other in await runs.open_runs(tx):
                if other.mirror_id == row.id and other.kind is RunKind.MIRROR and other.state is not RunState.STOPPING:
                    return other.id, True, await newest(tx)
            run_id, seq = await self._queue.submit(
                tx,
                RunKind.MIRROR,
                channel_id=row.channel_id,
                channel=row.channel,
                mirror_id=row.id,
                cause=cause,
                by=by,
                params={"accept_removals": True} if accept_removals else {},
                notes=_coalesced(row.coalesced),
            )
            if row.coalesced:
                await catalog.note_mirror(tx, row.id, {"coalesced": 0})
            return run_id, False, seq

        run_id, already, seq = await write(self._db, body, dry_run=dry_run)
        if dry_run and not already:
            return RunReply(run=None, already=False, seq=seq)
        run = await self._queue.row(run_id)
        warnings = []
        if already and accept_removals and not run.params.get("accept_removals"):
            warnings.append(f"run {run_id} is under way and does not accept removals; ask again when it has ended")
        return RunReply(run=self._queue.describe(run), already=already, warnings=warnings, seq=seq)

    async def stop(self, ref: int | str, *, publish: bool, dry_run: bool) -> RunReply:
        """Stop a mirror's run; raise WrongState when there is none."""
        row = await self._db.read(lambda r: find(r, ref))
        found = await self._open_run(row)
        if found is None:
            raise WrongState(f"{row.channel}:{row.name} is not running: {row.state}", hint="`mirror.run` starts it")
        if dry_run:
            return RunReply(run=await self._queue.get(found), seq=await self._db.read(newest))
        run, seq = await self._queue.stop(found, publish=publish)
        return RunReply(run=run, seq=seq)

    async def restart(self, ref: int | str, by: str, *, dry_run: bool) -> RunReply:
        """Stop a mirror's run if there is one, then queue a new one from step 1."""
        row = await self._db.read(lambda r: find(r, ref))
        found = await self._open_run(row)
        if found is not None and not dry_run:
            with contextlib.suppress(WrongState), more_to_come():
                await self._queue.stop(found)
        return await self.run(row.id, by, cause="restart", dry_run=dry_run)

    async def _open_run(self, row: MirrorRow) -> int | None:
        open_runs = await self._db.read(runs.open_runs)
        return next((run.id for run in open_runs if run.mirror_id == row.id and run.kind is RunKind.MIRROR), None)

    async def plan(self, params: MirrorPlan, by: str) -> RunReply:
        """Queue a run that tells what a mirror run would do; for a mirror, or the fields of one to be created."""
        if params.mirror is not None:
            ref = params.mirror
            row = await self._db.read(lambda r: find(r, ref))
            return await self._submit_plan(row.channel_id, row.channel, row.id, by, None)
        missing = [field for field in ("channel", "type", "source") if getattr(params, field) is None]
        if missing:
            raise Invalid(f"give `mirror`, or also {', '.join(missing)}", path=f"$.{missing[0]}")
        assert params.channel is not None
        assert params.type is not None
        assert params.source is not None
        checks.check_filters(rules_of(self._families, params.type), params.filters)
        source, _ = self._normalise(params.type, params.source, params.credentials, params.proxy, params.ca_file)
        name = params.channel
        channel = await self._db.read(lambda r: browse.channel(r, name))
        job = Job(
            mirror_id=NO_MIRROR,
            channel_id=channel.id,
            channel=channel.name,
            name=params.name or "",
            type=params.type,
            mode=params.mode,
            source=source,
            filters=params.filters,
            keep=params.on_upstream_removal is OnUpstreamRemoval.KEEP,
        )
        return await self._submit_plan(channel.id, channel.name, None, by, job)

    async def _submit_plan(
        self, channel_id: int, channel: str, mirror_id: int | None, by: str, job: Job | None
    ) -> RunReply:
        async def body(tx: Tx) -> tuple[int, int]:
            run_id, seq = await self._queue.submit(
                tx, RunKind.PLAN, channel_id=channel_id, channel=channel, mirror_id=mirror_id, cause="by hand", by=by
            )
            if job is not None:
                self._runs.plans[run_id] = job  # before the queue can see the run
            return run_id, seq

        run_id, seq = await self._db.write(body)
        return RunReply(run=await self._queue.get(run_id), seq=seq)

    # --- delete ------------------------------------------------------------------------------------------------

    async def delete(self, params: MirrorDelete, by: str) -> MirrorDeleteReply:
        """Delete a mirror; its stored artifacts stay with the channel, or all of its artifacts go."""
        reply = await self._removals.delete(params, by)
        await self._policies.load()
        return reply

    async def forget_deleted(self) -> None:
        """Take away what mirrors left that went with their channel: their secrets first of all."""
        await self._take_in.forget_deleted()


async def _row(r: Reader, mirror_id: int) -> MirrorRow:
    row = await catalog.mirror_by_id(r, mirror_id)
    if row is None:
        raise no_mirror(mirror_id)
    return row


def _coalesced(times: int) -> list[str]:
    if not times:
        return []
    many = "at least " if times >= COALESCED_MOST else ""
    return [f"the schedule fired {many}{times:,} times while a run worked; this run stands for them"]


def _secrets(source: Source, proxy: str | None) -> Secrets:
    hidden = proxy if proxy and mask(proxy) != proxy else None
    host = checks.host_of(source.url) if source.credentials is not None else ""
    if isinstance(source.credentials, Named):
        return Secrets(named=source.credentials.name, proxy=hidden, host=host)
    return Secrets(credentials=source.credentials, proxy=hidden, host=host)
