"""The only place that stores, edits and applies policies: every change queues the runs that make it true."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET

from firth_protocol.errors import Conflict, InUse, Invalid
from firth_protocol.events import Fact
from firth_protocol.methods import (
    PolicyCreate,
    PolicyDelete,
    PolicyList,
    PolicyReply,
    PolicyUpdate,
    SeqReply,
)
from firth_protocol.types import Family, Policy, PolicyUse, Rules
from firthd.channels.manage import stale, write
from firthd.channels.policies import Policies, no_policy, queue_own, queue_refilters
from firthd.clock import Clock, rfc3339
from firthd.families import load_policing
from firthd.families.base import FamilyRules
from firthd.families.policing import Policing
from firthd.mirrors import checks
from firthd.policies.rules import check_rules, in_words
from firthd.runs.queue import RunQueue
from firthd.store import catalog, policies
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Reader, Tx
from firthd.store.journal import Journal
from firthd.store.paging import Cut, Patterns
from firthd.store.policies import PolicyRow

DAY_MS = 86_400_000
SPREAD_MS = 3_600_000
"""Daily runs are spread over the first hour of the UTC day."""
SPREAD_STEP_MS = 97_000
"""How far the runs of two mirrors with neighbouring ids lie apart."""


class Governor:
    """The verbs on policies."""

    def __init__(
        self,
        db: Database,
        journal: Journal,
        clock: Clock,
        queue: RunQueue,
        in_force: Policies,
        families: Mapping[Family, FamilyRules],
    ) -> None:
        self._db = db
        self._journal = journal
        self._clock = clock
        self._queue = queue
        self._in_force = in_force
        self._families = families
        self._asked: dict[int, str] = {}  # mirror -> for which verdicts a run was queued: once

    # --- verbs

    async def create(self, params: PolicyCreate) -> PolicyReply:
        """Create a policy; raise Conflict for a name that is taken, Invalid for rules that mean nothing."""
        checks.check_name(params.name)
        families = in_order(params.families)
        await self.check(params.rules, families)

        async def body(tx: Tx) -> PolicyReply:
            if await policies.by_name(tx, params.name) is not None:
                raise Conflict(f"policy {params.name} exists already", hint="choose another name", path="$.name")
            await policies.insert(
                tx,
                name=params.name,
                description=params.description,
                families=families,
                rules=params.rules,
                now_ms=self._clock.now_ms(),
            )
            seq = await self._journal.fact(tx, Fact.POLICY_CREATED, ids={"policy": params.name})
            return PolicyReply(policy=await self._told(tx, params.name, None), seq=seq)

        reply = await write(self._db, body, dry_run=params.dry_run)
        await self._in_force.load()
        return reply

    async def update(self, params: PolicyUpdate, by: str, patterns: Patterns) -> PolicyReply:
        """Edit a policy; where it is in force runs judge anew. Raises Conflict on a stale revision."""

        async def body(tx: Tx) -> tuple[PolicyReply, list[int]]:
            row = await self._row(tx, params.policy)
            if row.revision != params.revision:
                current = await self._told(tx, row.name, patterns)
                raise stale(f"policy {row.name}", params.revision, row.revision, current)
            changes: dict[str, Any] = {}
            if params.description is not UNSET and params.description != row.description:
                changes["description"] = params.description
            if params.families is not UNSET and in_order(params.families) != row.families:
                changes["families"] = in_order(params.families)
            if params.rules is not UNSET and params.rules != row.rules:
                changes["rules"] = params.rules
            await self.check(changes.get("rules", row.rules), changes.get("families", row.families))
            runs: list[int] = []
            if changes:
                await policies.update(tx, row.id, changes, self._clock.now_ms())
            if changes.keys() - {"description"}:
                judged = await self.judged_by(tx, row.name)
                cause = f"policy {row.name} was changed"
                runs = await queue_refilters(tx, self._queue, judged, cause=cause, by=by)
                for channel in await catalog.all_channels(tx):
                    if channel.policy == row.name:
                        runs += await queue_own(tx, self._queue, channel, cause=cause, by=by)
            seq = await self._journal.fact(
                tx, Fact.POLICY_UPDATED, ids={"policy": row.name}, data={"fields": sorted(changes)}
            )
            return PolicyReply(policy=await self._told(tx, row.name, patterns), seq=seq), runs

        reply, runs = await write(self._db, body, dry_run=params.dry_run)
        await self._in_force.load()
        shown = [] if params.dry_run else [await self._queue.get(run) for run in runs]
        return PolicyReply(policy=reply.policy, runs=shown, seq=reply.seq)

    async def delete(self, params: PolicyDelete) -> SeqReply:
        """Delete a policy; raise InUse where it is assigned."""

        async def body(tx: Tx) -> SeqReply:
            row = await self._row(tx, params.policy)
            if await policies.users(tx, row.name):
                users = await self.uses(tx, row.name, None)
                raise InUse(
                    f"policy {row.name} is in force: {_named(users)}",
                    hint="take it away there first",
                    policy=row.name,
                )
            await policies.delete(tx, row.id)
            return SeqReply(seq=await self._journal.fact(tx, Fact.POLICY_DELETED, ids={"policy": row.name}))

        reply = await write(self._db, body, dry_run=params.dry_run)
        await self._in_force.load()
        return reply

    # --- looking

    async def page(self, r: Reader, params: PolicyList, patterns: Patterns) -> Cut[Policy]:
        """Return a page of policies; where they are in force is told of channels that a caller may see."""
        rows, following, total = await policies.page(r, query=params.query, cursor=params.cursor, limit=params.limit)
        return Cut(items=[await self.describe(r, row, patterns) for row in rows], following=following, total=total)

    async def get(self, r: Reader, name: str, patterns: Patterns) -> Policy:
        """Return one policy; raise NotFound."""
        return await self.describe(r, await self._row(r, name), patterns)

    async def describe(self, r: Reader, row: PolicyRow, patterns: Patterns) -> Policy:
        """Return a policy as clients see it."""
        return Policy(
            id=row.id,
            name=row.name,
            description=row.description,
            families=row.families,
            rules=row.rules,
            summary=in_words(row.rules, row.families),
            used_by=await self.uses(r, row.name, patterns),
            created_at=rfc3339(row.created_at),
            updated_at=rfc3339(row.updated_at),
            revision=row.revision,
        )

    async def uses(self, r: Reader, name: str, patterns: Patterns) -> list[PolicyUse]:
        """Return where a policy is assigned, of channels that a caller may see."""
        found = await policies.users(r, name, patterns)
        return [PolicyUse(channel=one.channel, mirror=one.mirror_id, mirror_name=one.mirror) for one in found]

    async def check(self, rules: Rules, families: Sequence[Family]) -> None:
        """Raise Invalid, with the place, for rules that mean nothing in a family that they judge."""
        judged = self.policings(families)
        if not judged:
            served = ", ".join(self.policings(list(Family)))
            raise Invalid(
                "no family that this version judges is among them", hint=f"judged: {served}", path="$.families"
            )
        await asyncio.to_thread(check_rules, rules, judged)

    def policings(self, families: Sequence[Family]) -> dict[Family, Policing]:
        """Return what policies ask of those of the families that they can judge."""
        return {
            family: load_policing(rules.policing)
            for family, rules in self._families.items()
            if family in families and rules.policing is not None
        }

    async def judged_by(self, r: Reader, name: str) -> list[MirrorRow]:
        """Return the mirrors for which a policy is in force."""
        channels = {channel.id for channel in await catalog.all_channels(r) if channel.policy == name}
        return [
            mirror
            for mirror in await catalog.all_mirrors(r)
            if mirror.policy == name or (mirror.policy is None and mirror.channel_id in channels)
        ]

    async def about_flaws(self, r: Reader) -> list[MirrorRow]:
        """Return the mirrors whose policy asks for known flaws."""
        found: dict[int, MirrorRow] = {}
        for row in await policies.every(r):
            if row.rules.cve is not None:
                found |= {mirror.id: mirror for mirror in await self.judged_by(r, row.name)}
        return list(found.values())

    async def _row(self, r: Reader, name: str) -> PolicyRow:
        row = await policies.by_name(r, name)
        if row is None:
            raise no_policy(name)
        return row

    async def _told(self, r: Reader, name: str, patterns: Patterns) -> Policy:
        return await self.describe(r, await self._row(r, name), patterns)

    # --- what comes by itself

    async def daily(self) -> None:
        """Forget what was seen of mirrors that are no more, and let what has come of age in.

        Queue a run for each mirror whose verdicts are not those of today, spread over the first hour of the day.
        """
        await self._db.write(policies.forget_sights)
        await self._db.write(policies.forget_told)
        now = self._clock.now_ms()
        due = []
        for mirror in await self._db.read(catalog.all_mirrors):
            wanted = self._in_force.stamp(self._in_force.of_mirror(mirror.id))
            spread = mirror.id * SPREAD_STEP_MS % SPREAD_MS
            old = "@" in wanted and wanted != mirror.judged and self._asked.get(mirror.id) != wanted
            if old and now % DAY_MS >= spread:
                due.append(mirror)
                self._asked[mirror.id] = wanted
        if due:
            cause = "a new day: packages have come of age"
            await self._db.write(lambda tx: queue_refilters(tx, self._queue, due, cause=cause, by="firthd"))


def in_order(families: Sequence[Family] | None) -> list[Family]:
    """Return families in one order, each once; None stands for all."""
    return [family for family in Family if families is None or family in families]


def _named(users: Sequence[PolicyUse]) -> str:
    names = [one.channel if one.mirror_name is None else f"{one.channel}:{one.mirror_name}" for one in users[:5]]
    more = f" and {len(users) - 5:,} more" if len(users) > 5 else ""
    return ", ".join(names) + more
