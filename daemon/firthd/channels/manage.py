"""The only place that changes channels: create, edit, delete, freeze, unfreeze, roll back."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, structs

from firth_protocol import names
from firth_protocol.errors import Conflict, InUse, Invalid, NotFound, WrongState
from firth_protocol.events import Fact
from firth_protocol.methods import (
    ChannelCreate,
    ChannelReply,
    ChannelUpdate,
    FreezeReply,
    RunReply,
    SeqReply,
)
from firth_protocol.types import Channel, ContentChange, Family, KeepGenerations, Notice, RunKind
from firthd.access import Caller
from firthd.channels import browse
from firthd.channels.policies import Policies, assignable, not_on_both, queue_own, queue_refilters
from firthd.channels.publish import Publisher
from firthd.channels.published import Published
from firthd.clock import Clock, from_rfc3339, rfc3339
from firthd.families.base import FamilyRules
from firthd.runs import steps
from firthd.runs.halt import halt
from firthd.runs.queue import RunQueue
from firthd.store import artifacts, catalog, generations, journal, runs
from firthd.store.catalog import ChannelRow
from firthd.store.database import Database, Reader, Tx, more_to_come
from firthd.store.generations import FamilyRow
from firthd.store.journal import Journal
from firthd.store.objects import ObjectRow

T = TypeVar("T")


NAMED = 5


class _DryRun(Exception):
    def __init__(self, result: Any) -> None:
        super().__init__("dry run")
        self.result = result


async def write(db: Database, body: Callable[[Tx], Awaitable[T]], *, dry_run: bool) -> T:
    """Run `body` in a transaction; on a dry run do all of it and take it back."""

    async def tried(tx: Tx) -> T:
        result = await body(tx)
        if dry_run:
            raise _DryRun(result)
        return result

    try:
        return await db.write(tried)
    except _DryRun as tried_out:
        result: T = tried_out.result
        return result


class Channels:
    """The verbs on channels."""

    def __init__(
        self,
        db: Database,
        log: Journal,
        clock: Clock,
        queue: RunQueue,
        publisher: Publisher,
        published: Published,
        policies: Policies,
        families: Mapping[Family, FamilyRules],
    ) -> None:
        self._policies = policies
        self._db = db
        self._journal = log
        self._clock = clock
        self._queue = queue
        self._publisher = publisher
        self._published = published
        self._reserved = frozenset(name for rules in families.values() for name in rules.reserved_names)

    async def create(self, params: ChannelCreate, caller: Caller) -> ChannelReply:
        """Create a channel and publish its first generation, empty but complete in every variant."""
        parent = names.check(params.name, self._reserved).parent
        keep = params.keep_generations or KeepGenerations()

        async def body(tx: Tx, first: list[ObjectRow], families: list[FamilyRow]) -> ChannelReply:
            if await catalog.channel_by_name(tx, params.name):
                raise Conflict(f"channel {params.name} exists already", hint="choose another name", channel=params.name)
            await assignable(tx, params.policy)
            parent_id = (await browse.channel(tx, parent)).id if parent else None
            channel_id = await catalog.insert_channel(
                tx,
                name=params.name,
                parent_id=parent_id,
                description=params.description,
                privacy=params.privacy,
                keep_days=keep.days,
                keep_months=keep.months,
                policy=params.policy,
                now_ms=self._clock.now_ms(),
            )
            row = await catalog.channel_by_id(tx, channel_id)
            assert row is not None
            await self._publisher.publish_first(tx, row, first, families)
            ids = {"channel": params.name}
            await self._journal.fact(tx, Fact.CHANNEL_CREATED, ids=ids)
            seq = await self._journal.fact(
                tx, Fact.CHANNEL_PUBLISHED, ids=ids, data={"generation": 1, "added": 0, "removed": 0, "cause": "create"}
            )
            return ChannelReply(channel=await self._describe(tx, channel_id, caller), seq=seq)

        async with self._publisher.first_objects() as (first, families):
            reply = await write(self._db, lambda tx: body(tx, first, families), dry_run=params.dry_run)
        await self._policies.load()
        return reply

    async def update(self, params: ChannelUpdate, caller: Caller) -> ChannelReply:
        """Change a channel's description, privacy, policy or what it keeps; raise Conflict on a stale revision."""

        async def body(tx: Tx) -> tuple[ChannelReply, list[int]]:
            row, seen = await browse.channel(tx, params.channel), caller.patterns()
            if row.revision != params.revision:
                current = await browse.describe(tx, row, seen)
                raise stale(f"channel {row.name}", params.revision, row.revision, current)
            changes: dict[str, Any] = {}
            for field in ("description", "privacy"):
                value = getattr(params, field)
                if value is not UNSET and value != getattr(row, field):
                    changes[field] = value
            if params.keep_generations is not UNSET:
                keep = params.keep_generations or KeepGenerations()
                changes.update(keep_days=keep.days, keep_months=keep.months)
            if params.notices is not UNSET:
                notices = dated(params.notices, row.notices, self._clock.now_ms())
                if notices != row.notices:
                    changes["notices"] = msgspec.json.encode(notices).decode()
            queued: list[int] = []
            if params.policy is not UNSET and params.policy != row.policy:
                changes["policy"] = params.policy
            if not changes:
                reply = ChannelReply(channel=await browse.describe(tx, row, seen), seq=await journal.newest(tx))
                return reply, queued
            await catalog.update_channel(tx, row.id, changes, self._clock.now_ms())
            if "policy" in changes:
                queued = await self._assign(tx, row, changes["policy"], caller.user)
            if "privacy" in changes:
                privacy = changes["privacy"]
                tx.after_commit(lambda: self._published.set_privacy(row.name, privacy))
            seq = await self._journal.fact(
                tx, Fact.CHANNEL_UPDATED, ids={"channel": row.name}, data={"fields": sorted(changes)}
            )
            return ChannelReply(channel=await self._describe(tx, row.id, caller), seq=seq), queued

        reply, queued = await write(self._db, body, dry_run=params.dry_run)
        if params.policy is not UNSET:
            await self._policies.load()
        runs_shown = [] if params.dry_run else [await self._queue.get(run) for run in queued]
        return structs.replace(reply, runs=runs_shown)

    async def _assign(self, tx: Tx, row: ChannelRow, policy: str | None, by: str) -> list[int]:
        """Check a policy that a channel is to have; queue what makes it true."""
        await assignable(tx, policy)
        mirrors = await catalog.mirrors_of(tx, row.id)
        for mirror in mirrors:
            not_on_both(policy, mirror.policy, f"mirror {row.name}:{mirror.name}")
        judged = [mirror for mirror in mirrors if mirror.policy is None]
        cause = f"policy {policy} was assigned" if policy else "the channel has no policy any more"
        own = await queue_own(tx, self._queue, row, cause=cause, by=by)
        return [*own, *await queue_refilters(tx, self._queue, judged, cause=cause, by=by)]

    async def delete(self, name: str, confirm: str, caller: Caller, *, dry_run: bool) -> SeqReply:
        """Delete a channel with its mirrors and generations; its runs are stopped first."""
        if confirm != name:
            raise Invalid(f"confirm is {confirm!r}", hint=f"write {name!r} to confirm the deletion", path="$.confirm")
        row = await self._db.read(lambda r: browse.channel(r, name))

        async def check(r: Reader) -> None:
            if await catalog.subchannels(r, row.id, None):
                seen = await catalog.subchannels(r, row.id, caller.patterns())
                raise InUse(
                    f"{name} has subchannels{named(seen)}",
                    hint="delete the subchannels first",
                    channel=name,
                )

        async def body(tx: Tx) -> SeqReply:
            await check(tx)
            for run in await runs.open_runs(tx):
                if run.channel_id == row.id and not dry_run:
                    raise WrongState(f"run {run.id} was queued meanwhile", hint="try again in a moment", run=run.id)
            await catalog.mark_channel_deleted(tx, row.id, self._clock.now_ms())
            seq = await self._journal.fact(tx, Fact.CHANNEL_DELETED, ids={"channel": name})
            tx.after_commit(lambda: self._published.drop(name))
            return SeqReply(seq=seq)

        await self._db.read(check)
        if not dry_run:
            with more_to_come():
                await halt(self._db, self._queue, lambda run: run.channel_id == row.id)
        return await write(self._db, body, dry_run=dry_run)

    async def freeze(self, name: str, caller: Caller, *, dry_run: bool) -> FreezeReply:
        """Pin the published generation. Freezing a frozen channel changes nothing."""

        async def body(tx: Tx) -> FreezeReply:
            row, seen = await browse.channel(tx, name), caller.patterns()
            if row.frozen_at is not None:
                return FreezeReply(
                    changed=False,
                    channel=await browse.describe(tx, row, seen),
                    seq=await journal.newest(tx),
                )
            now = self._clock.now_ms()
            await catalog.update_channel(tx, row.id, {"frozen_at": now, "frozen_by": caller.user}, now)
            tx.after_commit(lambda: self._published.set_frozen(name, now))
            seq = await self._journal.fact(
                tx, Fact.CHANNEL_FROZEN, ids={"channel": name}, data={"generation": row.generation}
            )
            return FreezeReply(changed=True, channel=await self._describe(tx, row.id, caller), seq=seq)

        reply = await write(self._db, body, dry_run=dry_run)
        row = await self._db.read(lambda r: browse.channel(r, name))
        current = await self._db.read(lambda r: generations.generation(r, row.id, row.generation))
        missing = await self._db.read(lambda r: artifacts.not_stored(r, row.id, current.shows if current else 0))
        hint = f"{missing:,} artifacts are not stored yet: each is fetched on its first request" if missing else ""
        return FreezeReply(changed=reply.changed, channel=reply.channel, not_stored=missing, hint=hint, seq=reply.seq)

    async def unfreeze(self, name: str, caller: Caller, *, dry_run: bool) -> FreezeReply:
        """Let a channel publish again: a run publishes at once what has accumulated.

        A dry run's `change` counts what clients are going to see, after a rollback too; None: nothing to publish.
        """

        async def body(tx: Tx) -> tuple[FreezeReply, int | None]:
            row, seen = await browse.channel(tx, name), caller.patterns()
            if row.frozen_at is None:
                reply = FreezeReply(
                    changed=False,
                    channel=await browse.describe(tx, row, seen),
                    seq=await journal.newest(tx),
                )
                return reply, None
            now = self._clock.now_ms()
            await catalog.update_channel(tx, row.id, {"frozen_at": None, "frozen_by": None}, now)
            tx.after_commit(lambda: self._published.set_frozen(name, None))
            seq = await self._journal.fact(tx, Fact.CHANNEL_UNFROZEN, ids={"channel": name})
            current = await generations.generation(tx, row.id, row.generation)
            waiting = await generations.finished_change_sets(tx, row.id)
            run_id = None
            moved = current is not None and current.shows != current.number
            if waiting or moved or await catalog.to_render_anew(tx, row.id):
                run_id, _ = await self._queue.submit(
                    tx, RunKind.PUBLISH, channel_id=row.id, channel=name, cause="unfreeze", by=caller.user
                )
            run = await runs.run_by_id(tx, run_id) if run_id else None
            reply = FreezeReply(
                changed=True,
                channel=await self._describe(tx, row.id, caller),
                run=steps.describe(run) if run else None,
                seq=seq,
            )
            return reply, run_id

        reply, run = await write(self._db, body, dry_run=dry_run)
        if not dry_run or run is None:
            return reply
        # counted beside the writer: of a long way back that takes seconds
        return msgspec.structs.replace(reply, change=await self._db.read(lambda r: _to_come(r, name)))

    async def rollback(self, name: str, generation: int, by: str, *, dry_run: bool) -> RunReply:
        """Queue a run that publishes an earlier kept generation again and freezes the channel."""

        async def body(tx: Tx) -> RunReply:
            row = await browse.channel(tx, name)
            target = await generations.generation(tx, row.id, generation)
            if target is None or not target.kept:
                near = [one.number for one in await generations.nearest_kept(tx, row.id, generation)]
                raise NotFound(
                    f"generation {generation} of {name} is not kept",
                    hint=f"the nearest kept: {', '.join(map(str, near)) or 'none'}",
                    channel=name,
                )
            if generation == row.generation:
                raise WrongState(f"{name} shows generation {generation} already", hint="choose an earlier one")
            run_id, seq = await self._queue.submit(
                tx,
                RunKind.ROLLBACK,
                channel_id=row.id,
                channel=name,
                cause=f"rollback to generation {generation}",
                by=by,
                params={"generation": generation},
            )
            run = await runs.run_by_id(tx, run_id)
            assert run is not None
            return RunReply(run=steps.describe(run), seq=seq)

        return await write(self._db, body, dry_run=dry_run)

    async def _describe(self, tx: Tx, channel_id: int, caller: Caller) -> Channel:
        row = await catalog.channel_by_id(tx, channel_id)
        assert row is not None
        return await browse.describe(tx, row, caller.patterns())


def named(channels: list[str]) -> str:
    """Return `: a, b` of the first names, and how many more there are; nothing for none."""
    more = f" and {len(channels) - NAMED:,} more" if len(channels) > NAMED else ""
    return f": {', '.join(channels[:NAMED])}{more}" if channels else ""


async def _to_come(r: Reader, name: str) -> ContentChange:
    """Return what leads from the content that clients see to that of all finished change sets."""
    row = await browse.channel(r, name)
    current = await generations.generation(r, row.id, row.generation)
    shows = current.shows if current else 0
    draft = [one.id for one in await generations.finished_change_sets(r, row.id)]
    added, removed = await generations.count_changes(r, row.id, shows, generations.DRAFT, draft)
    return ContentChange(added=added, removed=removed, from_generation=row.generation, to_generation=row.generation + 1)


def stale(what: str, given: int, current: int, thing: Any) -> Conflict:
    """Return the error for an edit that is based on an old revision; it carries the current object."""
    return Conflict(
        f"{what} was changed meanwhile: revision {given} is old, {current} is current",
        hint="read it again and repeat the edit",
        current=msgspec.to_builtins(thing),
    )


def dated(notices: Sequence[Notice], before: Sequence[Notice], now_ms: int) -> list[Notice]:
    """Return a channel's notices with the times at which they were first given; raise Invalid for what is no time."""
    since = {(notice.message, notice.level): notice.created_at for notice in before}
    made = []
    for number, notice in enumerate(notices):
        expires = None
        if notice.expires_at is not None:
            try:
                expires = rfc3339(from_rfc3339(notice.expires_at))
            except (ValueError, OverflowError):
                raise Invalid(
                    "a notice expires at a time with its zone",
                    hint="write it as 2027-01-31T00:00:00Z",
                    path=f"$.notices[{number}].expires_at",
                ) from None
        created = since.get((notice.message, notice.level)) or rfc3339(now_ms)
        made.append(structs.replace(notice, expires_at=expires, created_at=created))
    return made
