"""The only place that reads a method's parameters strictly, says what is wrong with them, and masks their secrets."""

import difflib
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw, inspect

from firth_protocol import API
from firth_protocol.describe import fixed_after_creation
from firth_protocol.errors import InvalidParams
from firth_protocol.methods import Method, Params
from firth_protocol.types import Json
from firthd import __version__
from firthd.upstream.masking import mask

MASK = "***"
AUDITED_BYTES = 20_000
_NAMING = ("channel", "mirror", "run", "name", "id")

_SECRET_FIELDS = frozenset(("credentials", "token", "password", "bearer", "secret", "secrets"))
_DOCUMENT = "document"
_SHOWN = 100
"""Characters of a caller's own text that an error repeats at the most."""

# msgspec's messages end with the place of the error, `$` being the parameters.
_PLACED = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>\$.*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_LACKING = re.compile(r"Object missing required field `(?P<name>.*)`")
_WRONG_VALUE = re.compile(r"Invalid enum value '?(?P<value>.*?)'?", re.DOTALL)
_STEP = re.compile(r"\.(?P<field>[^.\[\]]+)|\[[^\]]*\]")


def decode_params(method: Method, raw: Raw) -> Params:
    """Return the method's parameters; raise InvalidParams, whose data has `path`, such as `$.filters.projects[0]`."""
    if bytes(raw).lstrip()[:1] != b"{":
        raise InvalidParams(
            f"{method.name} takes parameters by name, in an object",
            path="$",
            hint=f'send "params": {{"field": value}}; the fields are {_fields(method.params)}',
        )
    try:
        return msgspec.json.decode(raw, type=method.params)
    except msgspec.ValidationError as error:
        raise _explained(method, str(error)) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidParams(f"`$`: {error}", path="$", hint="send JSON with less nesting") from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `, did you mean ...?` when a known name resembles `name`, else an empty text."""
    close = difflib.get_close_matches(name[:_SHOWN], list(known), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def mask_params(params: Params) -> Json:
    """Return the parameters as JSON for the audit log, without defaults, with every secret as `***`.

    Of parameters over AUDITED_BYTES only what names their subject stays, with `cut`: how long they were.
    """
    masked: Json = _masked("", msgspec.to_builtins(params))
    size = len(msgspec.json.encode(masked))
    if size > AUDITED_BYTES:  # whoever may be refused could fill the disk with what he asks for
        return {"cut": size} | {name: value for name, value in masked.items() if name in _NAMING and _short(value)}
    return masked


def _short(value: Any) -> bool:
    return len(str(value)) <= _SHOWN * 3


def _masked(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _SECRET_FIELDS:
        return {key: MASK for key, item in value.items() if item is not None} if isinstance(value, dict) else MASK
    if isinstance(value, dict):
        return {key: _masked(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(name, item) for item in value]
    if isinstance(value, str):
        if name == _DOCUMENT:  # each step of it has a line of its own
            return {"bytes": len(value.encode()), "sha256": sha256(value.encode()).hexdigest()}
        if "://" in value or name == "source":
            return mask(value)
        if name == "proxy" and "@" in value:
            return f"{MASK}@{value.rpartition('@')[2]}"
    return value


def _explained(method: Method, text: str) -> InvalidParams:
    found = _PLACED.fullmatch(text)
    assert found is not None  # the pattern matches any text
    what, path = found["what"], found["path"] or "$"
    if unknown := _UNKNOWN.fullmatch(what):
        return _unknown_field(method, path, unknown["name"])
    if lacking := _LACKING.fullmatch(what):
        path = f"{path}.{lacking['name']}"
        return InvalidParams(
            f"`{path}`: the field is needed", path=path, hint=f"`firthctl {method.name} --help` lists the fields"
        )
    if wrong := _WRONG_VALUE.fullmatch(what):
        values = _enum_values(method.params, path)
        return InvalidParams(
            f"`{path}`: {wrong['value'][:_SHOWN]!r} is not one of {', '.join(values)}"
            f"{did_you_mean(wrong['value'], values)}",
            path=path,
            hint=f"`firthctl {method.name} --help` lists the values",
        )
    return InvalidParams(
        f"`{path}`: {what[:1].lower()}{what[1:]}",
        path=path,
        hint=f"`firthctl {method.name} --help` lists the fields and their types",
    )


def _unknown_field(method: Method, path: str, name: str) -> InvalidParams:
    structs = [kind for kind in _types_at(method.params, path) if isinstance(kind, inspect.StructType)]
    known = [field.encode_name for kind in structs for field in kind.fields]
    place = f"{path}.{name[:_SHOWN]}"
    if path == "$" and fixed_after_creation(method, name):
        noun = method.name.partition(".")[0]
        return InvalidParams(
            f"`{place}` is fixed after creation", path=place, hint=f"a new {noun} can have another {name}"
        )
    return InvalidParams(
        f"`{place}`: the daemon knows no such field (api {API}, version {__version__}){did_you_mean(name, known)}",
        path=place,
        hint=f"its fields are {', '.join(known)}" if known else f"{method.name} takes no parameters",
    )


def _fields(params: type[Params]) -> str:
    return ", ".join(params.__struct_fields__) or "none"


def _enum_values(params: type[Params], path: str) -> list[str]:
    kinds = _types_at(params, path)
    return [str(member.value) for kind in kinds if isinstance(kind, inspect.EnumType) for member in kind.cls]


def _types_at(params: type[Params], path: str) -> list[inspect.Type]:
    """Return the types that may stand at a place such as `$.filters.projects[0]`, unions taken apart."""
    kinds = list(_flat(inspect.type_info(params)))
    for step in _STEP.finditer(path):
        kinds = [inner for kind in kinds for inner in _inside(kind, step["field"])]
    return kinds


def _inside(kind: inspect.Type, field: str | None) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.StructType) and field is not None:
        for known in kind.fields:
            if known.encode_name == field:
                yield from _flat(known.type)
    elif isinstance(kind, inspect.ListType) and field is None:
        yield from _flat(kind.item_type)
    elif isinstance(kind, inspect.DictType):
        yield from _flat(kind.value_type)


def _flat(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.Metadata):
        yield from _flat(kind.type)
    elif isinstance(kind, inspect.UnionType):
        for member in kind.types:
            yield from _flat(member)
    else:
        yield kind
