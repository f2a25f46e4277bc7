"""The only place that turns the steps of a document into the verbs on policies, channels and mirrors."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from firth_protocol.errors import FirthError, Invalid, NotFound
from firth_protocol.methods import (
    ChannelCreate,
    ChannelUpdate,
    ConfigAction,
    ConfigApply,
    ConfigKind,
    MirrorCreate,
    MirrorUpdate,
    Params,
    PolicyCreate,
    PolicyUpdate,
)
from firth_protocol.types import Run
from firthd.access import Caller
from firthd.channels.manage import Channels
from firthd.mirrors.govern import Governor
from firthd.mirrors.installation_plan import Change, Names
from firthd.mirrors.installation_text import GIVEN, Ref
from firthd.mirrors.manage import Mirrors
from firthd.store.catalog import ChannelRow, MirrorRow
from firthd.store.policies import PolicyRow

ABSENT: Mapping[str, object] = {
    **dict.fromkeys(("policy", "proxy", "ca_file", "max_rate_hours", "credentials"), ""),
    **dict.fromkeys(("drop_unused_days", "max_rate"), 0),
}
"""How a document spells that a field holds nothing."""

P = TypeVar("P", bound=Params)


class Rows(Struct, frozen=True, kw_only=True):
    """What there was when the document was read."""

    policies: Mapping[str, PolicyRow]
    channels: Mapping[str, ChannelRow]
    mirrors: Mapping[Ref, MirrorRow]


class Done(Struct, frozen=True, kw_only=True):
    """What came of one step."""

    seq: int = 0
    runs: Sequence[Run] = ()
    warnings: Sequence[str] = ()


class Steps:
    """Takes the steps of one document, each first for a try."""

    def __init__(
        self,
        channels: Channels,
        mirrors: Mirrors,
        governor: Governor,
        params: ConfigApply,
        caller: Caller,
        rows: Rows,
    ) -> None:
        self._channels = channels
        self._mirrors = mirrors
        self._governor = governor
        self._params = params
        self._caller = caller
        self._rows = rows
        self._revisions: dict[tuple[ConfigKind, Names], int] = {}

    async def tried(self, change: Change) -> Done:
        """Check a step without taking it; raise what is wrong with it, with its place in the document.

        Policies are assigned in a later step than they may be made in: the plan has checked those.
        """
        fields = {name: value for name, value in change.after.items() if name != "policy"}
        if not fields and change.action is ConfigAction.CHANGED:
            return Done()
        with at(change.path):
            try:
                return await self._call(change, fields, dry_run=True, check=self._params.check)
            except NotFound:
                if not self._comes_into_new(change):
                    raise
                return Done()

    async def take(self, change: Change) -> Done:
        """Take a step; raise what keeps it from being taken."""
        with at(change.path):
            check = self._params.check and self._comes_into_new(change)  # others were asked when the step was tried
            return await self._call(change, change.after, dry_run=False, check=check)

    def _comes_into_new(self, change: Change) -> bool:
        """Tell whether a step needs a channel that an earlier one makes."""
        parent = change.names[0] if change.kind is ConfigKind.MIRROR else change.names[0].rpartition("/")[0]
        return change.kind is not ConfigKind.POLICY and bool(parent) and parent not in self._rows.channels

    async def _call(self, change: Change, after: Mapping[str, Any], *, dry_run: bool, check: bool) -> Done:
        fields = {name: None if value == ABSENT.get(name, UNSPELLED) else value for name, value in after.items()}
        fields["dry_run"] = dry_run
        created = change.action is ConfigAction.CREATED
        match change.kind:
            case ConfigKind.POLICY:
                return await self._policy(change, fields, created=created)
            case ConfigKind.CHANNEL:
                return await self._channel(change, fields, created=created)
            case ConfigKind.MIRROR:
                if fields.get("credentials") == GIVEN:
                    fields["credentials"] = msgspec.to_builtins(self._params.secrets[change.name])
                return await self._mirror(change, {**fields, "check": check}, created=created)

    async def _policy(self, change: Change, fields: dict[str, Any], *, created: bool) -> Done:
        if created:
            reply = await self._governor.create(_params({**fields, "name": change.name}, PolicyCreate))
        else:
            named = {"policy": change.name, "revision": self._revision(change)}
            asked = _params({**fields, **named}, PolicyUpdate)
            reply = await self._governor.update(asked, self._caller.user, self._caller.patterns())
        self._note(change, reply.policy.revision, fields)
        return Done(seq=reply.seq, runs=reply.runs, warnings=reply.warnings)

    async def _channel(self, change: Change, fields: dict[str, Any], *, created: bool) -> Done:
        named: dict[str, Any] = {"channel": change.name}
        if created:
            notices = fields.pop("notices", [])
            reply = await self._channels.create(_params({**fields, "name": change.name}, ChannelCreate), self._caller)
            if notices and not fields["dry_run"]:
                named["revision"] = reply.channel.revision
                asked = _params({"notices": notices, **named}, ChannelUpdate)
                reply = await self._channels.update(asked, self._caller)
        else:
            named["revision"] = self._revision(change)
            reply = await self._channels.update(_params({**fields, **named}, ChannelUpdate), self._caller)
        self._note(change, reply.channel.revision, fields)
        return Done(seq=reply.seq, runs=reply.runs, warnings=reply.warnings)

    async def _mirror(self, change: Change, fields: dict[str, Any], *, created: bool) -> Done:
        if created:
            channel, name = change.names
            named = {"channel": channel, "name": name, "run_now": self._params.run_now}
            reply = await self._mirrors.create(_params({**fields, **named}, MirrorCreate), self._caller.user)
        else:
            row = self._rows.mirrors[change.names[0], change.names[1]]
            named = {"mirror": row.id, "revision": self._revision(change)}
            reply = await self._mirrors.update(_params({**fields, **named}, MirrorUpdate), self._caller.user)
        self._note(change, reply.mirror.revision, fields)
        return Done(seq=reply.seq, runs=[] if reply.run is None else [reply.run], warnings=reply.warnings)

    def _revision(self, change: Change) -> int:
        """Return what a step is based on: what an earlier one has left, else what there was."""
        known = self._revisions.get((change.kind, change.names))
        if known is not None:
            return known
        match change.kind:
            case ConfigKind.POLICY:
                return self._rows.policies[change.name].revision
            case ConfigKind.CHANNEL:
                return self._rows.channels[change.name].revision
            case ConfigKind.MIRROR:
                return self._rows.mirrors[change.names[0], change.names[1]].revision

    def _note(self, change: Change, revision: int, fields: Mapping[str, Any]) -> None:
        if not fields["dry_run"]:
            self._revisions[change.kind, change.names] = revision


UNSPELLED = object()


def _params(fields: Mapping[str, Any], kind: type[P]) -> P:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `")
        raise Invalid(what[:1].lower() + what[1:], path=path.rstrip("`") or "$") from None


@contextlib.contextmanager
def at(path: str) -> Iterator[None]:
    """Say of what goes wrong inside the block where in the document it stands."""
    try:
        yield
    except FirthError as error:
        inner = str(error.data.get("path") or "$")
        below = inner[1:] if inner.startswith("$") else f".{inner}"
        data = {**error.data, "path": path + below}
        raise type(error)(f"`{path}{below}`: {error.message}", hint=error.hint, **data) from None


def half_way(error: FirthError, changes: Sequence[Change], number: int) -> FirthError:
    """Return the error for a document of which only the first steps could be taken."""
    done = [f"{one.kind} {one.name} {one.action}" for one in changes[:number]]
    left = [f"{one.kind} {one.name}" for one in changes[number:]]
    told = f"{number:,} of {len(changes):,} steps were taken" if number else "nothing was changed"
    hint = error.hint or "mend the cause and apply the document again: it goes on from there"
    data = {**error.data, "done": done, "left": left}
    return type(error)(f"{told}: {error.message}", hint=hint, **data)
