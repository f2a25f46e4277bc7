"""Decides, purely, what leads from an installation as it is to what a document says of it, and in which order."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import msgspec
from msgspec import Struct

from firth_protocol.errors import Invalid
from firth_protocol.methods import ConfigAction, ConfigChange, ConfigField, ConfigKind
from firthd.mirrors.checks import host_of
from firthd.mirrors.installation_text import GIVEN, Installation, Ref, place

FIXED = ("type", "mode")
"""What a mirror is born with."""
_NEEDED = {ConfigKind.POLICY: ("rules",), ConfigKind.CHANNEL: (), ConfigKind.MIRROR: ("type", "source")}
_TABLES = {ConfigKind.POLICY: "policies", ConfigKind.CHANNEL: "channels", ConfigKind.MIRROR: "channels"}

Names = tuple[str, ...]
"""A policy's or channel's name; channel and name of a mirror."""
Fields = Mapping[str, Any]


class Change(Struct, frozen=True, kw_only=True):
    """One step: `after` are the fields that are set, as the document spells them."""

    action: ConfigAction
    kind: ConfigKind
    names: Names
    before: Fields
    after: Fields

    @property
    def name(self) -> str:
        """Return what people call the thing."""
        return ":".join(self.names)

    @property
    def path(self) -> str:
        """Return where the document names it."""
        return place(_TABLES[self.kind], *self.names)

    def told(self) -> ConfigChange:
        """Return it as clients see it."""
        fields = [
            ConfigField(field=field, before=self.before.get(field), after=value) for field, value in self.after.items()
        ]
        return ConfigChange(action=self.action, kind=self.kind, name=self.name, fields=fields)


class Plan(Struct, frozen=True, kw_only=True):
    """The steps in their order, and what needs none."""

    changes: Sequence[Change]
    unchanged: list[str]
    left_alone: list[str]
    policies: Mapping[Ref, str]  # of each mirror that is there or comes: the policy that is going to judge it


def plan(now: Installation, wanted: Installation, secrets: Set[Ref]) -> Plan:
    """Return what to do; `secrets` are the mirrors whose credentials come anew.

    Raises Invalid for what cannot become true, with the place in the document.
    """
    entries = _everything(wanted)
    present = _everything(now)
    changes, unchanged = [], []
    for (kind, names), named in entries.items():
        before = present.get((kind, names))
        change = _change(kind, names, before, named, new_secrets=names in secrets)
        if change is None:
            unchanged.append(_called(kind, names))
        else:
            changes.append(change)
    final = {key: {**present.get(key, {}), **entries.get(key, {})} for key in {**present, **entries}}
    for key, fields in entries.items():
        _check(*key, final, policy_named="policy" in fields)
    return Plan(
        changes=list(_in_order(changes, present, final)),
        unchanged=unchanged,
        left_alone=[_called(*key) for key in present if key not in entries],
        policies={
            (names[0], names[1]): _policy(final, ConfigKind.MIRROR, names)
            or _policy(final, ConfigKind.CHANNEL, names[:1])
            for kind, names in final
            if kind is ConfigKind.MIRROR
        },
    )


Key = tuple[ConfigKind, Names]


def _everything(made: Installation) -> dict[Key, Fields]:
    found: dict[Key, Fields] = {}
    for name, policy in made.policies.items():
        found[ConfigKind.POLICY, (name,)] = msgspec.to_builtins(policy)
    for name, channel in made.channels.items():
        found[ConfigKind.CHANNEL, (name,)] = msgspec.to_builtins(channel)
    for ref, mirror in made.mirrors.items():
        found[ConfigKind.MIRROR, ref] = msgspec.to_builtins(mirror)
    return found


def _called(kind: ConfigKind, names: Names) -> str:
    return f"{kind} {':'.join(names)}"


def _change(
    kind: ConfigKind, names: Names, before: Fields | None, fields: Fields, *, new_secrets: bool
) -> Change | None:
    path = place(_TABLES[kind], *names)
    if before is None:
        for field in _NEEDED[kind]:
            if field not in fields:
                raise Invalid(f"`{path}.{field}`: a new {kind} needs it", path=f"{path}.{field}")
        _needs_secrets(path, {}, fields, new_secrets=new_secrets)
        return Change(action=ConfigAction.CREATED, kind=kind, names=names, before={}, after=fields)
    for field in FIXED:
        if kind is ConfigKind.MIRROR and fields.get(field, before[field]) != before[field]:
            raise Invalid(
                f"`{path}.{field}`: a mirror's {field} is fixed after its creation; it is {before[field]}",
                hint="a mirror of another name can have another one",
                path=f"{path}.{field}",
            )
    _needs_secrets(path, before, fields, new_secrets=new_secrets)
    after = {field: value for field, value in fields.items() if before.get(field) != value}
    if new_secrets:
        after["credentials"] = GIVEN
    return Change(action=ConfigAction.CHANGED, kind=kind, names=names, before=before, after=after) if after else None


def _needs_secrets(path: str, before: Fields, fields: Fields, *, new_secrets: bool) -> None:
    """Raise Invalid where a mirror is to have credentials that are not there: those of one host go to no other."""
    if new_secrets or fields.get("credentials", before.get("credentials")) != GIVEN:
        return
    moved = host_of(fields.get("source", before.get("source", ""))) != host_of(before.get("source", ""))
    if before.get("credentials") != GIVEN or moved:
        raise Invalid(
            f"`{path}.credentials`: they are not given",
            hint='hand them over as secrets=@FILE, a JSON object such as {"main:forge": {"token": "..."}}',
            path=f"{path}.credentials",
        )


def _policy(final: Mapping[Key, Fields], kind: ConfigKind, names: Names) -> str:
    policy: str = final.get((kind, names), {}).get("policy", "")
    return policy


def _check(kind: ConfigKind, names: Names, final: Mapping[Key, Fields], *, policy_named: bool) -> None:
    """Raise Invalid for an entry that names what is not there, or contradicts another one."""
    path = place(_TABLES[kind], *names)
    if kind is ConfigKind.CHANNEL and "/" in names[0]:
        parent = names[0].rpartition("/")[0]
        if (ConfigKind.CHANNEL, (parent,)) not in final:
            raise Invalid(f"`{path}`: there is no channel {parent!r} to be its parent", path=path)
    policy = _policy(final, kind, names)
    if policy and (ConfigKind.POLICY, (policy,)) not in final:
        raise Invalid(
            f"`{path}.policy`: there is no policy {policy!r}",
            hint="`policy.list` shows the policies; a document may bring them along",
            path=f"{path}.policy",
        )
    if kind is ConfigKind.MIRROR:
        _not_on_both(path, policy, _policy(final, ConfigKind.CHANNEL, names[:1]))
    elif kind is ConfigKind.CHANNEL and policy_named:
        for of, mirror in final:
            if of is ConfigKind.MIRROR and mirror[0] == names[0]:
                _not_on_both(path, policy, _policy(final, of, mirror))


def _not_on_both(path: str, policy: str, other: str) -> None:
    if policy and policy == other:
        raise Invalid(
            f"`{path}.policy`: channel and mirror would both have policy {policy}",
            hint="a mirror without a policy is judged by its channel's",
            path=f"{path}.policy",
        )


def _in_order(changes: Sequence[Change], now: Mapping[Key, Fields], final: Mapping[Key, Fields]) -> Iterator[Change]:
    """Yield policies, then channels with parents first, then mirrors.

    A mirror whose policy passes to its channel gives it away first: at no moment do both have the same one.
    """
    yield from (change for change in changes if change.kind is ConfigKind.POLICY)
    channels = [change for change in changes if change.kind is ConfigKind.CHANNEL]
    mirrors = [change for change in changes if change.kind is ConfigKind.MIRROR]
    for channel in sorted(channels, key=lambda change: change.name.count("/")):
        passing = channel.after.get("policy", "")
        for number, mirror in enumerate(mirrors):
            held = mirror.before.get("policy", "")
            if passing and mirror.names[0] == channel.name and held == passing:
                first = mirror.after["policy"]
                of_channel = _policy(now, ConfigKind.CHANNEL, channel.names)
                if first == of_channel:  # they change places: for a moment the mirror has none of its own
                    first = ""
                yield msgspec.structs.replace(mirror, after={"policy": first})
                rest = {name: value for name, value in mirror.after.items() if name != "policy" or value != first}
                mirrors[number] = msgspec.structs.replace(mirror, before={**mirror.before, "policy": first}, after=rest)
        yield channel
    yield from (mirror for mirror in mirrors if mirror.after)
