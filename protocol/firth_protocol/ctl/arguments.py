"""The only place that turns words of the command line into a method's parameters."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, inspect

from firth_protocol.ctl.exits import UsageError
from firth_protocol.describe import Field, fields_of, fixed_after_creation, getter_of
from firth_protocol.methods import Method
from firth_protocol.types import Credentials

_PAIR = re.compile(r"(?P<key>[A-Za-z_][A-Za-z0-9_.-]*)=(?P<value>.*)", re.DOTALL)
_STDIN = ("-", "@-")
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def parameters(method: Method, words: Iterable[str], warn: Callable[[str], None]) -> dict[str, Any]:
    """Return the parameters that `words` give: the first required one alone, others as key=value.

    A value `@file` is read from a file, `@env:NAME` from the environment, `@-` (or `-`) from standard input, `@@text`
    is the text `@text`. A `revision` that the method needs may be left out: whoever calls fetches it. Raises
    UsageError.
    """
    fields = {field.name: field for field in fields_of(method.params)}
    params: dict[str, Any] = {}
    words = list(words)
    values = (pair["value"] if (pair := _PAIR.fullmatch(word)) else word for word in words)
    if sum(value in _STDIN for value in values) > 1:
        raise UsageError("standard input can be the value of one field only")
    for number, word in enumerate(words):
        pair = _PAIR.fullmatch(word)
        if pair is None and number == 0:
            key, text = _first_required(method, fields.values(), word), word
        elif pair is None:
            raise UsageError(f"{word!r} is not understood: write field=value ({_names(fields)})")
        else:
            key, text = pair["key"], pair["value"]
        _set(params, method, fields, key, text, warn)
    fetched = {"revision"} if getter_of(method) is not None else set()
    lacking = [field.name for field in fields.values() if field.required and field.name not in {*params, *fetched}]
    if lacking:
        raise UsageError(f"{method.name} needs {', '.join(lacking)}; see firthctl {method.name} --help")
    _check(method, dict.fromkeys(fetched, 1) | params)
    return params


def read_value(text: str) -> str:
    """Return the text itself, or what `@file`, `@env:NAME`, `@-` and `-` stand for, without the line end."""
    if text.startswith("@@"):
        return text[1:]
    if text in _STDIN:
        try:
            return sys.stdin.buffer.read().decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError("standard input is no UTF-8 text") from error
    if text.startswith("@env:"):
        name = text.removeprefix("@env:")
        if name not in os.environ:
            raise UsageError(f"the environment has no {name}; write @@ for a value that begins with @")
        return os.environ[name]
    if text.startswith("@"):
        try:
            return Path(text[1:]).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            cause = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise UsageError(f"{text[1:]} cannot be read: {cause}; write @@ for a value that begins with @") from error
    return text


def meant(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return `; did you mean ...?` when a known name resembles this one."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return f"; did you mean {close[0]}?" if close else ""


def _first_required(method: Method, fields: Iterable[Field], word: str) -> str:
    for field in fields:
        if field.required:
            return field.name
    raise UsageError(f"{method.name} needs no {word!r}: write field=value, see firthctl {method.name} --help")


def _set(
    params: dict[str, Any],
    method: Method,
    fields: dict[str, Field],
    key: str,
    text: str,
    warn: Callable[[str], None],
) -> None:
    """Put one value into the parameters; a dotted key goes into the struct that it begins with."""
    *outer, last = key.split(".")
    here, target = fields, params
    for name in outer:
        field = _field(method, here, name, key)
        if field.struct is None:
            raise UsageError(f"{name} is {field.type_text} and has no fields of its own")
        here = {inner.name: inner for inner in fields_of(field.struct)}
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise UsageError(f"{name} is given as a whole and in parts; choose one")
    field = _field(method, here, last, key)
    if last in target:
        raise UsageError(f"{key} is given twice")
    named = not outer and text.startswith("@@")  # it says where a secret lies, and is none
    if _is_secret(fields[(*outer, last)[0]]) and _on_command_line(text) and not named:
        warn(f"{key} can be read by other users while this runs; give it as {key}=@FILE or {key}=@- (standard input)")
    target[last] = _value(field, key, read_value(text))


def _field(method: Method, fields: dict[str, Field], name: str, key: str) -> Field:
    if name not in fields:
        if name == key and fixed_after_creation(method, name):
            noun = method.name.partition(".")[0]
            raise UsageError(f"{name} is fixed after creation: a new {noun} can have another one")
        raise UsageError(f"{method.name} has no field {key!r}{meant(name, fields)} ({_names(fields)})")
    return fields[name]


def _on_command_line(text: str) -> bool:
    """Tell whether a value stands there itself, where every user's `ps` shows it."""
    return text.startswith("@@") or not (text in (*_STDIN, "", "null") or text.startswith("@"))


def _is_secret(field: Field) -> bool:
    of_many = isinstance(field.kind, inspect.DictType) and field.kind.value_type
    return field.struct is Credentials or (isinstance(of_many, inspect.StructType) and of_many.cls is Credentials)


def _value(field: Field, key: str, text: str) -> Any:
    """Return the text as the field's type wants it; raise UsageError."""
    if field.nullable and text == "null":
        return None
    try:
        return _converted(field.kind, text)
    except ValueError as error:
        raise UsageError(f"{key}: {error or repr(text)}; it is {field.type_text}") from None


def _converted(kind: inspect.Type, text: str) -> Any:
    match kind:
        case inspect.BoolType():
            if text.lower() not in _TRUE + _FALSE:
                raise ValueError(f"{text!r} is neither true nor false")
            return text.lower() in _TRUE
        case inspect.IntType():
            if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
                raise ValueError(f"{text!r} is no whole number")
            return int(text)
        case inspect.FloatType():
            return _number(text)
        case inspect.EnumType():
            values = [str(member.value) for member in kind.cls]
            if text not in values:
                raise ValueError(f"{text!r} is not one of its values{meant(text, values)}")
            return text
        case inspect.UnionType():
            return _of_union(kind, text)
        case inspect.ListType():
            return _json(text) if text.lstrip().startswith("[") else _list(kind.item_type, text)
        case inspect.StrType():
            return text
        case _:
            return _json(text)


def _of_union(kind: inspect.UnionType, text: str) -> Any:
    """Return an integer where the union has one and the text is one, else what another member makes of it."""
    members = sorted(kind.types, key=lambda member: isinstance(member, inspect.StrType))
    for member in members:
        try:
            return _converted(member, text)
        except ValueError:
            continue
    raise ValueError(f"{text!r} is none of these")


def _list(item: inspect.Type, text: str) -> list[Any]:
    kind = item.type if isinstance(item, inspect.Metadata) else item
    return [_converted(kind, part.strip()) for part in text.split(",") if part.strip()]


def _number(text: str) -> float:
    number = float(text)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{text!r} is no number")
    return number


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise ValueError(f"{text[:60]!r} is no JSON") from None


def _check(method: Method, params: dict[str, Any]) -> None:
    """Raise UsageError where the daemon would refuse a value by its type."""
    try:
        msgspec.convert(params, method.params)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        place = f"{path.rstrip('`')}: " if path else ""
        raise UsageError(f"{place}{what[:1].lower()}{what[1:]}; see firthctl {method.name} --help") from None


def _names(fields: Iterable[str]) -> str:
    names = ", ".join(fields)
    return f"its fields are {names}" if names else "it has no fields"


def struct_paths(struct: type[Struct], prefix: str = "") -> list[str]:
    """Return every key that may stand before `=`, dotted ones of structs included."""
    found = []
    for field in fields_of(struct):
        found.append(f"{prefix}{field.name}")
        if field.struct is not None:
            found += struct_paths(field.struct, f"{prefix}{field.name}.")
    return found


def has_column(struct: type[Struct], column: str) -> bool:
    """Tell whether a column, `draft.added` one inside another, is a member of the struct."""
    name, dot, rest = column.partition(".")
    field = next((field for field in fields_of(struct) if field.name == name), None)
    if field is None or not dot:
        return field is not None
    if field.struct is not None:
        return has_column(field.struct, rest)
    return not field.scalar and field.inner is None  # any JSON may hold it
