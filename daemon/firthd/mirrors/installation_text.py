"""The only place that knows how an installation is written down: a TOML document of policies, channels and mirrors.

A field that is not there is left as it is; an empty text or 0 takes away what may be absent. No secret stands in it.
"""

import difflib
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType, inspect

from firth_protocol.errors import Invalid
from firth_protocol.types import (
    Family,
    Filters,
    KeepGenerations,
    MirrorMode,
    MirrorType,
    Notice,
    OnUpstreamRemoval,
    Privacy,
    Rules,
)
from firthd.upstream.masking import mask, printable

FORMAT = 1
GIVEN = "given"
"""Stands for credentials that the daemon keeps: they come with `config.apply`, beside the document."""
LINE = 100
HEAD = f"""\
# An installation of Firth, as `config.export` writes it and `config.apply` reads it.
# What is not named here is left alone. "" and 0 take away what may be absent.
format = {FORMAT}
"""
_NAMED = re.compile(r"@[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
# A chain of dotted keys costs the square of its length to read; no document has as deep a one.
_ENDLESS_KEY = re.compile(r"""(?<![A-Za-z0-9_-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){50}""")
_PLACED = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_STEP = re.compile(r"\.(?P<field>[^.\[\]]+)|\[[^\]]*\]")
_SHOWN = 100


class _Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class PolicyEntry(_Entry, frozen=True, kw_only=True):
    """A policy as a document has it."""

    description: str | UnsetType = UNSET
    families: list[Family] | UnsetType = UNSET
    rules: Rules | UnsetType = UNSET


class MirrorEntry(_Entry, frozen=True, kw_only=True):
    """A mirror as a document has it."""

    type: MirrorType | UnsetType = UNSET
    mode: MirrorMode | UnsetType = UNSET
    source: str | UnsetType = UNSET
    credentials: str | UnsetType = UNSET
    schedule: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    policy: str | UnsetType = UNSET
    filters: Filters | UnsetType = UNSET
    on_upstream_removal: OnUpstreamRemoval | UnsetType = UNSET
    also_from: list[str] | UnsetType = UNSET
    proxy: str | UnsetType = UNSET
    ca_file: str | UnsetType = UNSET
    drop_unused_days: int | UnsetType = UNSET
    max_rate: int | UnsetType = UNSET
    max_rate_hours: str | UnsetType = UNSET


class ChannelEntry(_Entry, frozen=True, kw_only=True):
    """A channel as a document has it; its mirrors stand below it."""

    description: str | UnsetType = UNSET
    privacy: Privacy | UnsetType = UNSET
    policy: str | UnsetType = UNSET
    keep_generations: KeepGenerations | UnsetType = UNSET
    notices: list[Notice] | UnsetType = UNSET


Ref = tuple[str, str]
"""A mirror's channel and name."""


class Installation(Struct, frozen=True, kw_only=True):
    """What a document names, in its order: a package belongs to the mirror of its channel that is older."""

    policies: Mapping[str, PolicyEntry] = {}
    channels: Mapping[str, ChannelEntry] = {}
    mirrors: Mapping[Ref, MirrorEntry] = {}


def place(kind: str, *names: str) -> str:
    """Return the path of an entry, such as `$.channels.main.mirrors.forge`."""
    keys = [_key(name[:_SHOWN]) for name in names]
    if kind == "policies":
        return f"$.policies.{keys[0]}"
    return f"$.channels.{keys[0]}" + (f".mirrors.{keys[1]}" if len(keys) > 1 else "")


# --- reading -----------------------------------------------------------------------------------------------


def read(text: str) -> Installation:
    """Return what a document says; raise Invalid, with the place, for one that is not understood."""
    top = _parsed(text)
    if top.get("format", FORMAT) != FORMAT:
        raise Invalid(f"this version reads documents of format {FORMAT}", path="$.format")
    _only(top, ("format", "policies", "channels"), "$")
    policies = {
        name: _entry(value, PolicyEntry, place("policies", name)) for name, value in _table(top, "policies", "$")
    }
    channels, mirrors = {}, {}
    for name, value in _table(top, "channels", "$"):
        path = place("channels", name)
        fields = _is_table(value, path)
        for of, mirror in _table(fields, "mirrors", path):
            mirrors[name, of] = _mirror(mirror, place("channels", name, of))
        own = {field: content for field, content in fields.items() if field != "mirrors"}
        channels[name] = _entry(own, ChannelEntry, path, "mirrors")
    return Installation(policies=policies, channels=channels, mirrors=mirrors)


def _parsed(text: str) -> dict[str, Any]:
    too_deep = Invalid(
        "the document is nested too deeply", hint="it has tables of a few levels only", path="$.document"
    )
    if _ENDLESS_KEY.search(text) is not None:
        raise too_deep
    try:
        found: dict[str, Any] = _plain(tomllib.loads(text), "$")
    except RecursionError:
        raise too_deep from None
    except ValueError as error:  # tomllib.TOMLDecodeError, and a number with thousands of digits
        hint = "the document is TOML, as `config.export` writes it"
        if "=" not in text and "[" not in text:
            hint = "firthctl reads a document from a file as config.apply @FILE"
        raise Invalid(f"the document is no TOML: {printable(str(error))[:_SHOWN]}", hint=hint, path="$") from None
    return found


def _plain(value: Any, path: str) -> Any:
    """Return what TOML holds as JSON would: days and times are texts; raise Invalid for what JSON has not."""
    if isinstance(value, dict):
        return {name: _plain(item, f"{path}.{_key(name)}") for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{path}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        raise Invalid(f"`{path}`: {value} is no number here", path=path)
    return value


def _table(fields: Mapping[str, Any], name: str, path: str) -> Iterator[tuple[str, Any]]:
    yield from _is_table(fields.get(name, {}), f"{path}.{name}").items()


def _is_table(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Invalid(f"`{path}`: this is a table, one entry a name", path=path)
    return value


def _mirror(value: Any, path: str) -> MirrorEntry:
    fields = _is_table(value, path)
    named = fields.get("credentials", "")
    if not isinstance(named, str) or (named not in {"", GIVEN} and _NAMED.fullmatch(named) is None):
        raise Invalid(
            f"`{path}.credentials`: a document holds no secrets",
            hint=f'write "{GIVEN}" and hand them to config.apply as secrets=@FILE, or "@NAME" of one that the service'
            " manager gives the daemon",
            path=f"{path}.credentials",
        )
    source = fields.get("source")
    if isinstance(source, str) and mask(source) != printable(source):
        raise Invalid(
            f"`{path}.source`: the address holds a secret, and a document holds none",
            hint=f'take it out of the address, write credentials = "{GIVEN}", and hand it over as secrets=@FILE',
            path=f"{path}.source",
        )
    return _entry(fields, MirrorEntry, path)


T = TypeVar("T", bound=_Entry)


def _entry(value: Any, kind: type[T], path: str, *more: str) -> T:
    try:
        return msgspec.convert(_is_table(value, path), kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), kind, path, more) from None


def _explained(text: str, kind: type[_Entry], path: str, more: Sequence[str]) -> Invalid:
    found = _PLACED.fullmatch(text)
    assert found is not None  # the pattern matches any text
    what, below = found["what"], found["path"] or ""
    here = path + below
    if unknown := _UNKNOWN.fullmatch(what):
        known = [*_fields_at(kind, below), *(() if below else more)]
        return _unknown(unknown["name"], known, here)
    return Invalid(f"`{here}`: {what[:1].lower()}{what[1 : 2 * _SHOWN]}", path=here)


def _only(fields: Mapping[str, Any], known: Sequence[str], path: str) -> None:
    for name in fields:
        if name not in known:
            raise _unknown(name, known, path)


def _unknown(name: str, known: Sequence[str], path: str) -> Invalid:
    close = difflib.get_close_matches(name[:_SHOWN], known, n=1, cutoff=0.5)
    meant = f"; did you mean `{close[0]}`?" if close else ""
    here = f"{path}.{_key(name[:_SHOWN])}"
    return Invalid(f"`{here}`: there is no such field{meant}", hint=f"its fields are {', '.join(known)}", path=here)


def _fields_at(kind: type[Struct], path: str) -> list[str]:
    """Return the names of the fields that may stand at a place below a struct."""
    kinds = list(_flat(inspect.type_info(kind)))
    for step in _STEP.finditer(path):
        inner: list[inspect.Type] = []
        for one in kinds:
            if isinstance(one, inspect.StructType) and step["field"] is not None:
                inner += [field.type for field in one.fields if field.encode_name == step["field"]]
            elif isinstance(one, inspect.ListType) and step["field"] is None:
                inner.append(one.item_type)
        kinds = [flat for one in inner for flat in _flat(one)]
    return [field.encode_name for one in kinds if isinstance(one, inspect.StructType) for field in one.fields]


def _flat(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield from _flat(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _flat(member)
    else:
        yield kind


# --- writing -----------------------------------------------------------------------------------------------


def write(made: Installation) -> str:
    """Return the document of an installation; `read` gives the same back."""
    lines = [HEAD]
    for name, policy in made.policies.items():
        lines += _section(("policies", name), msgspec.to_builtins(policy))
    for name, channel in made.channels.items():
        lines += _section(("channels", name), msgspec.to_builtins(channel))
        for (of, mirror), entry in made.mirrors.items():
            if of == name:
                lines += _section(("channels", name, "mirrors", mirror), msgspec.to_builtins(entry))
    return "\n".join(lines)


def _section(path: Sequence[str], fields: Mapping[str, Any]) -> Iterator[str]:
    yield f"[{'.'.join(map(_key, path))}]"
    present = {name: value for name, value in fields.items() if value is not None}
    below = {name: value for name, value in present.items() if isinstance(value, dict) and value}
    for name, value in present.items():
        if name not in below:
            yield f"{_key(name)} = {_value(value)}"
    yield ""
    for name, value in below.items():
        yield from _section((*path, name), value)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items() if item is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list):
        items = [_value(item) for item in value]
        short = f"[{', '.join(items)}]"
        return short if len(short) <= LINE else "[\n" + "".join(f"  {item},\n" for item in items) + "]"
    return repr(value)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    """Return a basic string; what is not printable is escaped: hostile names stay harmless in a terminal."""
    made = []
    for letter in value:
        if letter in {'"', "\\"}:
            made.append(f"\\{letter}")
        elif letter.isprintable():
            made.append(letter)
        else:
            made.append(f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}")
    return f'"{"".join(made)}"'
