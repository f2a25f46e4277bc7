"""The only place that knows how a list is cut into pages by key, and what its opaque cursor holds."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from firth_protocol.errors import CursorExpired, Invalid

T = TypeVar("T")

Patterns = tuple[str, ...] | None
"""The channels that a caller may see: names, or `team/*` for the children of team; None is every channel."""

_NUMBERS = range(-(1 << 63), 1 << 63)
"""What SQLite can hold; a cursor made by hand may hold anything."""


class Cut(Struct, Generic[T], frozen=True, kw_only=True):
    """A page of a list: the cursor behind it (None: the list ends there), and how many there are where it is told."""

    items: list[T]
    following: str | None = None
    total: int | None = None


class Order(Struct, frozen=True):
    """A sort order: the SQL expression that it goes by (never NULL), and its direction."""

    name: str
    sql: str
    descending: bool

    def clause(self, key: str) -> str:
        """Return the ORDER BY list; `key` is the unique column that breaks ties."""
        direction = "DESC" if self.descending else "ASC"
        return f"{self.sql} {direction}, {key} {direction}"

    def beyond(self, key: str) -> str:
        """Return the condition for rows after the cursor's :page_value and :page_key."""
        sign = "<" if self.descending else ">"
        return f"(:page_key IS NULL OR ({self.sql}, {key}) {sign} (:page_value, :page_key))"


def order(sort: str, columns: Mapping[str, str]) -> Order:
    """Return the order that a `sort` parameter names; raise Invalid when there is none."""
    name = sort.removeprefix("-")
    if name not in columns:
        known = ", ".join(f"`{column}`" for column in columns)
        raise Invalid(
            f"cannot sort by `{name}`", hint=f"one of {known}, with - before it for descending", path="$.sort"
        )
    return Order(name, columns[name], sort.startswith("-"))


def encode(sort: str, value: Any, key: Any) -> str:
    """Return the cursor behind a row."""
    raw = msgspec.json.encode([sort, value, key])
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: str | None, sort: str, keyed: type[int] | type[str] = int) -> dict[str, Any]:
    """Return {page_value, page_key} of a cursor (both None without one); raise CursorExpired when it is foreign.

    `keyed` is what the list's keys are.
    """
    if text is None:
        return {"page_value": None, "page_key": None}
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        found, value, key = msgspec.json.decode(raw, type=tuple[str, str | int | float | None, str | int])
    except (binascii.Error, ValueError, msgspec.DecodeError):
        found, value, key = "", None, 0
    numbers = [number for number in (value, key) if isinstance(number, int)]
    if found != sort or not isinstance(key, keyed) or any(number not in _NUMBERS for number in numbers):
        raise CursorExpired("the cursor does not belong to this list", hint="start again without a cursor")
    return {"page_value": value, "page_key": key}


def cut(name: str, found: list[T], limit: int, place: Callable[[T], tuple[Any, Any]]) -> tuple[list[T], str | None]:
    """Return a page of the list `name` and the cursor behind it, None when the list ends there.

    `found` holds one row more than the page when there is another; `place` gives a row's sort value and unique key.
    """
    following = encode(name, *place(found[limit - 1])) if len(found) > limit else None
    return found[:limit], following


def visible(column: str, patterns: Patterns) -> tuple[str, dict[str, str]]:
    """Return the condition, with its parameters, that keeps the channels a caller may see."""
    if patterns is None:
        return "1", {}
    parts, params = ["0"], {}
    for number, pattern in enumerate(patterns):
        if pattern.endswith("/*"):
            parts.append(f"substr({column}, 1, length(:seen{number})) = :seen{number}")
            params[f"seen{number}"] = pattern[:-1]
        else:
            parts.append(f"{column} = :seen{number}")
            params[f"seen{number}"] = pattern
    return f"({' OR '.join(parts)})", params
