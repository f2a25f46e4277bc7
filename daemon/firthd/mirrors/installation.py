"""The only place that writes a whole installation down, and makes one what a document says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, structs

from firth_protocol.errors import FirthError, Invalid
from firth_protocol.methods import (
    ConfigAction,
    ConfigApply,
    ConfigApplyReply,
    ConfigExport,
    ConfigExportReply,
    ConfigKind,
    ConfigPreview,
    PolicyPreview,
)
from firth_protocol.types import Credentials, Json, KeepGenerations
from firthd.access import Caller
from firthd.channels import browse
from firthd.channels.manage import Channels, dated
from firthd.mirrors import checks, installation_text
from firthd.mirrors.context import Context
from firthd.mirrors.govern import in_order
from firthd.mirrors.governance import Governance
from firthd.mirrors.installation_plan import Change, Plan, plan
from firthd.mirrors.installation_steps import Done, Rows, Steps, at, half_way
from firthd.mirrors.installation_text import (
    GIVEN,
    ChannelEntry,
    Installation,
    MirrorEntry,
    PolicyEntry,
    Ref,
    place,
)
from firthd.mirrors.manage import Mirrors, Schedules
from firthd.mirrors.source import rules_of
from firthd.store import catalog, policies
from firthd.store.audit import OK, AuditLog
from firthd.store.catalog import ChannelRow, MirrorRow
from firthd.store.database import Reader, more_to_come
from firthd.store.journal import newest
from firthd.upstream.masking import mask

STEP_BYTES = 20_000
"""Of a step's fields in the audit log; of more only their names."""


class State(Rows, frozen=True, kw_only=True):
    """What there is, as rows and as a document would name it."""

    made: Installation


class Installations:
    """The verbs on an installation as a whole; one document is applied at a time."""

    def __init__(
        self,
        context: Context,
        channels: Channels,
        mirrors: Mirrors,
        governance: Governance,
        schedules: Schedules,
        audit: AuditLog,
    ) -> None:
        self._p = context
        self._channels = channels
        self._mirrors = mirrors
        self._governance = governance
        self._schedules = schedules
        self._audit = audit
        self._lock = asyncio.Lock()

    # --- export

    async def export(self, params: ConfigExport, caller: Caller) -> ConfigExportReply:
        """Return the document of what the caller may see; of one channel, with its policies. Raises NotFound."""

        async def body(r: Reader) -> tuple[State, str]:
            if params.channel is not None:
                await browse.channel(r, params.channel)
            return await self._state(r), await self._p.journal.as_of(r)

        state, as_of = await self._p.db.read(body)
        only = params.channel
        channels = {
            name: entry
            for name, entry in state.made.channels.items()
            if caller.sees(name) and (only is None or name == only)
        }
        mirrors = {ref: entry for ref, entry in state.made.mirrors.items() if ref[0] in channels}
        used = {entry.policy for entry in channels.values()} | {entry.policy for entry in mirrors.values()}
        named = {name: entry for name, entry in state.made.policies.items() if only is None or name in used}
        made = Installation(policies=named, channels=channels, mirrors=mirrors)
        return ConfigExportReply(document=await asyncio.to_thread(installation_text.write, made), as_of=as_of)

    async def _state(self, r: Reader) -> State:
        rows = {row.name: row for row in sorted(await policies.every(r), key=lambda row: row.name)}
        channels = {row.name: row for row in sorted(await catalog.all_channels(r), key=lambda row: row.name)}
        mirrors = {(row.channel, row.name): row for row in await catalog.all_mirrors(r)}
        return State(
            policies=rows,
            channels=channels,
            mirrors=mirrors,
            made=Installation(
                policies={
                    name: PolicyEntry(description=row.description, families=list(row.families), rules=row.rules)
                    for name, row in rows.items()
                },
                channels={name: _channel_entry(row) for name, row in channels.items()},
                mirrors={ref: self._mirror_entry(row) for ref, row in mirrors.items()},
            ),
        )

    def _mirror_entry(self, row: MirrorRow) -> MirrorEntry:
        named = self._p.secrets.get(row.id).named
        return MirrorEntry(
            type=row.type,
            mode=row.mode,
            source=row.source,
            credentials="" if not row.has_credentials else f"@{named}" if named else GIVEN,
            schedule=row.schedule,
            enabled=row.enabled,
            policy=row.policy or "",
            filters=row.filters,
            on_upstream_removal=row.on_upstream_removal,
            also_from=row.also_from,
            proxy=row.proxy or "",
            ca_file=row.ca_file or "",
            drop_unused_days=row.drop_unused_days or 0,
            max_rate=row.max_rate or 0,
            max_rate_hours=row.max_rate_hours or "",
        )

    # --- apply

    async def apply(self, params: ConfigApply, caller: Caller) -> ConfigApplyReply:
        """Carry a document out, or tell what that would do.

        All of it is checked before anything changes. Where a step fails all the same, the error says which are done;
        applying the document again goes on from there.
        """
        wanted = await asyncio.to_thread(installation_text.read, params.document)
        async with self._lock:
            state = await self._p.db.read(self._state)
            wanted = self._normalised(wanted, state, params.secrets)
            made = plan(state.made, wanted, self._secrets(params, wanted, state))
            steps = Steps(self._channels, self._mirrors, self._governance.governor, params, caller, state)
            warnings: list[str] = []
            for change in made.changes:
                warnings += (await steps.tried(change)).warnings
            reply = ConfigApplyReply(
                changes=[change.told() for change in made.changes],
                unchanged=made.unchanged,
                left_alone=made.left_alone,
                warnings=warnings,
                seq=0,
            )
            if params.dry_run:
                previews = await self._previews(made, state, wanted)
                return structs.replace(reply, previews=previews, seq=await self._p.db.read(newest))
            done = await self._carry_out(made, steps)
        return structs.replace(
            reply,
            runs=[run for one in done for run in one.runs],
            warnings=list(dict.fromkeys([*warnings, *(text for one in done for text in one.warnings)])),
            seq=done[-1].seq if done else await self._p.db.read(newest),
        )

    async def _carry_out(self, made: Plan, steps: Steps) -> list[Done]:
        done: list[Done] = []
        for number, change in enumerate(made.changes):
            try:
                with more_to_come():
                    async with self._line(change):
                        done.append(await steps.take(change))
            except FirthError as error:
                raise half_way(error, made.changes, number) from error
        return done

    @contextlib.asynccontextmanager
    async def _line(self, change: Change) -> AsyncIterator[None]:
        """Let a line of the audit log go with a step, as if it had been called by itself."""
        verb = "create" if change.action is ConfigAction.CREATED else "update"
        named = (
            {"channel": change.names[0], "name": change.names[-1]} if len(change.names) > 1 else {"name": change.name}
        )
        fields: Json = {**change.after, **named}
        if len(msgspec.json.encode(fields)) > STEP_BYTES:
            fields = {"fields": sorted(change.after), **named}
        line = self._audit.step(f"{change.kind}.{verb}", fields)
        if line is None:
            yield
            return
        try:
            with line.beside():
                yield
        except FirthError as error:
            await line.end(error.kind)
            raise
        await line.end(OK)

    async def _previews(self, made: Plan, state: State, wanted: Installation) -> list[ConfigPreview]:
        """Return the effect of each policy on the mirrors that it judges otherwise than now."""
        changed = {change.name for change in made.changes if change.kind is ConfigKind.POLICY}
        found: list[ConfigPreview] = []
        for name in dict.fromkeys(policy for policy in made.policies.values() if policy):
            entry = wanted.policies.get(name, PolicyEntry())
            row = state.policies.get(name)
            rules = row.rules if entry.rules is UNSET and row is not None else entry.rules
            families = row.families if entry.families is UNSET and row is not None else entry.families
            for ref, policy in made.policies.items():
                mirror = state.mirrors.get(ref)
                if policy != name or mirror is None or rules is UNSET:
                    continue
                if name in changed or policy != _in_force(state, mirror):
                    asked = PolicyPreview(
                        rules=rules, families=None if families is UNSET else list(families), mirror=mirror.id
                    )
                    told = await self._governance.previews.preview(asked)
                    found.append(ConfigPreview(policy=name, **structs.asdict(told)))
        return found

    # --- one spelling

    def _normalised(self, wanted: Installation, state: State, secrets: Mapping[str, Credentials]) -> Installation:
        """Return what a document says, spelled as the state has it; raise Invalid, with the place."""
        named = {}
        for name, policy in wanted.policies.items():
            families = UNSET if policy.families is UNSET else in_order(policy.families)
            named[name] = structs.replace(policy, families=families)
        channels = {}
        for name, channel in wanted.channels.items():
            row = state.channels.get(name)
            if channel.notices is not UNSET:
                with at(place("channels", name)):
                    notices = dated(channel.notices, row.notices if row is not None else [], 0)
                channel = structs.replace(channel, notices=[structs.replace(one, created_at=None) for one in notices])
            channels[name] = channel
        mirrors = {}
        for ref, mirror in wanted.mirrors.items():
            with at(place("channels", *ref)):
                mirrors[ref] = self._normal_mirror(mirror, state.mirrors.get(ref), secrets.get(":".join(ref)))
        return Installation(policies=named, channels=channels, mirrors=mirrors)

    def _normal_mirror(self, mirror: MirrorEntry, row: MirrorRow | None, given: Credentials | None) -> MirrorEntry:
        changes: dict[str, Any] = {}
        if mirror.source and mirror.source != (row.source if row is not None else None):
            changes["source"] = self._normal_source(mirror, row, given)
        if mirror.schedule is not UNSET:
            changes["schedule"] = self._schedules.check(mirror.schedule)[0]
        if mirror.also_from is not UNSET:
            changes["also_from"] = checks.check_near(mirror.also_from)
        if mirror.proxy and mirror.proxy != (row.proxy if row is not None else None):
            checks.check_proxy(mirror.proxy)
            if "@" in mirror.proxy or mask(mirror.proxy) != mirror.proxy:
                raise Invalid(
                    "a document holds no secrets, and this proxy has a password",
                    hint="set it by mirror.create or mirror.update, and leave `proxy` out here",
                    path="$.proxy",
                )
        return structs.replace(mirror, **changes)

    def _normal_source(self, mirror: MirrorEntry, row: MirrorRow | None, given: Credentials | None) -> str:
        """Return an address as the state has it: where credentials are sent in it, their place stands there."""
        assert mirror.source is not UNSET
        type_ = mirror.type if mirror.type is not UNSET else row.type if row is not None else None
        stored = self._p.secrets.get(row.id).credentials if row is not None else None
        if mirror.credentials == GIVEN:
            lacking = given is None and stored is None
        else:
            lacking = False
            if mirror.credentials:
                given = self._p.secrets.named(mirror.credentials)
            elif mirror.credentials is not UNSET:
                stored = None
        if type_ is None or lacking:
            return mirror.source  # the plan says what is not there
        return rules_of(self._p.families, type_).normalise(mirror.source, given, stored).source

    def _secrets(self, params: ConfigApply, wanted: Installation, state: State) -> set[Ref]:
        """Return the mirrors whose credentials are other than those that are kept; raise Invalid for one not named."""
        found = set()
        for key, given in params.secrets.items():
            channel, _, name = key.partition(":")
            entry = wanted.mirrors.get((channel, name))
            row = state.mirrors.get((channel, name))
            if entry is None or entry.credentials != GIVEN:
                raise Invalid(
                    f'the document names no mirror {key!r} with credentials = "{GIVEN}"', path=f"$.secrets.{key}"
                )
            if row is None or not row.has_credentials or self._p.secrets.get(row.id).credentials != given:
                found.add((channel, name))
        return found


def _channel_entry(row: ChannelRow) -> ChannelEntry:
    return ChannelEntry(
        description=row.description,
        privacy=row.privacy,
        policy=row.policy or "",
        keep_generations=KeepGenerations(days=row.keep_days, months=row.keep_months),
        notices=[structs.replace(one, created_at=None) for one in row.notices],
    )


def _in_force(state: State, mirror: MirrorRow) -> str:
    return mirror.policy or state.channels[mirror.channel].policy or ""
