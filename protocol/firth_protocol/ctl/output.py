"""The only place that prints data: tables for people, JSON lines and CSV for programs."""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, TextIO

import msgspec
from msgspec import Struct

from firth_protocol.describe import Field, fields_of
from firth_protocol.units import size

# C0, DEL, C1, and what reorders or hides text on a terminal: names come from foreign sources.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_FORMULA = re.compile(r"[=+\-@\t\r]")
_SPACE = re.compile(r"[\t\r\n\v\f]+")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?Z")
_GAP = "  "
_NARROWEST = 8

# What a table of these shows, most telling first; columns that find no room are left out.
_COLUMNS = {
    "Channel": ("name", "privacy", "frozen", "generation", "published_at", "mirrors", "worst_state", "description"),
    "Mirror": ("id", "channel", "name", "type", "mode", "state", "artifacts", "bytes", "last_success_at", "source"),
    "Run": ("id", "kind", "state", "channel", "mirror_name", "step", "created_at", "finished_at", "cause", "by"),
    "Generation": ("number", "time", "cause", "added", "removed", "artifacts", "bytes", "current", "kept", "run"),
    "Change": ("change", "subdir", "filename", "size", "cause", "mirror", "run"),
    "Package": ("name", "version", "versions", "files", "stored", "bytes", "downloads", "platforms", "family"),
    "DownloadCount": ("channel", "package", "version", "day", "token", "downloads", "family"),
    "LogLine": ("number", "time", "level", "step", "text"),
    "Token": ("id", "name", "channels", "created_at", "expires_at", "last_used_at", "revoked"),
    "AuditEntry": ("id", "time", "user", "role", "method", "outcome", "params"),
}
_BYTES = ("bytes", "size", "free", "floor", "bytes_stored", "bytes_done", "bytes_total", "index_bytes", "rss_bytes")


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def clean(text: str) -> str:
    """Return the text in one line, without what a terminal would take for a command."""
    return _CONTROL.sub("", _SPACE.sub(" ", text))


class Printer:
    """Prints to one stream. `width` is that of the terminal, None when the stream is none.

    `columns` are the members that are shown, `draft.added` one inside another; nothing chooses what tells most.
    """

    def __init__(self, stream: TextIO, form: Format, width: int | None, columns: Sequence[str] = ()) -> None:
        self._stream = stream
        self._form = form
        self._width = width
        self._chosen = list(columns)

    def items(self, pages: Iterable[list[Any]], kind: type[Struct] | None) -> None:
        """Print the items of a list, page after page; `kind` is their struct, if known."""
        match self._form:
            case Format.JSON:
                for page in pages:
                    for item in page:
                        self._json(self._of(item))
            case Format.CSV:
                self._csv(pages, kind)
            case Format.TABLE:
                self._table(pages, kind)

    def one(self, value: Any, kind: type[Struct] | None = None) -> None:
        """Print a single reply; `kind` is its struct, if known."""
        if self._form is Format.CSV and isinstance(value, dict):
            self._csv([[value]], kind)
        elif self._form is Format.TABLE and isinstance(value, dict):
            self._lines(self._of(value), "", kind)
        else:
            self._json(self._of(value))

    def _of(self, value: Any) -> Any:
        """Return the chosen members of an object, or the object when none are chosen."""
        if not self._chosen or not isinstance(value, dict):
            return value
        return {column: _get(value, column) for column in self._chosen}

    def _json(self, value: Any) -> None:
        text = msgspec.json.encode(value).decode()
        if self._width is not None:
            text = _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
        self._write(text)

    def _csv(self, pages: Iterable[list[Any]], kind: type[Struct] | None) -> None:
        """Print RFC 4180's form with a header line; a list or object that was chosen is JSON inside its cell."""
        columns = self._chosen or ([field.name for field in fields_of(kind) if field.scalar] if kind else [])
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        headed = False
        for page in pages:
            if not headed:
                columns = columns or _scalars(page)
                writer.writerow(columns)
                headed = True
            writer.writerows([_plain(_get(item, column)) for column in columns] for item in page)
            self._stream.write(buffer.getvalue() if self._width is None else _shown(buffer.getvalue()))
            buffer.seek(0)
            buffer.truncate()

    def _table(self, pages: Iterable[list[Any]], kind: type[Struct] | None) -> None:
        """Print columns as wide as the first page needs and the terminal allows; the header comes once."""
        widths: list[int] | None = None
        columns: list[str] = []
        for page in pages:
            if not page:
                continue
            columns = columns or self._chosen or _columns(kind, page)
            rows = [[_cell(column, _get(item, column)) for column in columns] for item in page]
            if widths is None:
                widths = _fit(columns, rows, self._width)
                columns = columns[: len(widths)]
                self._row([column.upper() for column in columns], widths, [False] * len(widths))
            for item, row in zip(page, rows, strict=True):
                right = [_is_number(_get(item, column)) for column in columns]
                self._row(row[: len(widths)], widths, right)

    def _row(self, cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> None:
        parts = [_pad(cell, width, to_right) for cell, width, to_right in zip(cells, widths, right, strict=True)]
        self._write(_GAP.join(parts).rstrip())

    def _lines(self, value: dict[str, Any], indent: str, kind: type[Struct] | None) -> None:
        """Print an object as one `name  value` a line; objects inside are indented, lists of objects are tables."""
        fields = {field.name: field for field in fields_of(kind)} if kind is not None else {}
        width = max((len(name) for name in value), default=0)
        for name, item in value.items():
            inner_kind = _kind_at(fields, name)
            if isinstance(item, dict) and item:
                self._write(f"{indent}{clean(name)}")
                self._lines(item, indent + _GAP, inner_kind)
            elif isinstance(item, list) and item and all(isinstance(each, dict) for each in item):
                self._write(f"{indent}{clean(name)}")
                room = None if self._width is None else max(self._width - len(indent) - 2, 20)
                inner = io.StringIO()
                Printer(inner, Format.TABLE, room).items([item], inner_kind)
                for line in inner.getvalue().splitlines():
                    self._write(indent + _GAP + line)
            else:
                lines = item.rstrip("\n").split("\n") if isinstance(item, str) else [item]
                for label, line in zip([name, *[""] * len(lines)], lines, strict=False):
                    self._write(f"{indent}{clean(label):<{width}}{_GAP}{_cell(name, line)}".rstrip())

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")


def text_width(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    wide = sum(1 for letter in text if unicodedata.east_asian_width(letter) in "WF")
    return len(text) + wide - sum(1 for letter in text if unicodedata.combining(letter))


def cut(text: str, width: int) -> str:
    """Return the text in at most `width` columns; what is left out shows as an ellipsis."""
    if text_width(text) <= width:
        return text
    while text and text_width(text) > width - 1:
        text = text[:-1]
    return text + "…"


def _columns(kind: type[Struct] | None, page: list[Any]) -> list[str]:
    name = kind.__name__ if kind is not None else ""
    if name in _COLUMNS:
        return list(_COLUMNS[name])
    first = page[0]
    if not isinstance(first, dict):
        return ["value"]
    keys = list(dict.fromkeys(key for item in page if isinstance(item, dict) for key in item))
    return [key for key in keys if not any(isinstance(_get(item, key), dict) for item in page)] or keys


def _scalars(page: list[Any]) -> list[str]:
    """Return the members that hold one value in each object of a page, all where none does."""
    if not page or not isinstance(page[0], dict):
        return ["value"]
    keys = list(page[0])
    return [key for key in keys if not any(isinstance(_get(item, key), dict | list) for item in page)] or keys


def _kind_at(fields: dict[str, Field], path: str) -> type[Struct] | None:
    """Return the struct that lies at `path`, alone or in a list, if it is known."""
    name, _, rest = path.partition(".")
    inner = fields[name].inner if name in fields else None
    if inner is None or not rest:
        return inner
    return _kind_at({field.name: field for field in fields_of(inner)}, rest)


def _fit(columns: list[str], rows: list[list[str]], room: int | None) -> list[int]:
    """Return the widths of the columns that fit, at least one; the last of them takes what is left."""
    widths = [max([text_width(column), *(text_width(row[n]) for row in rows)]) for n, column in enumerate(columns)]
    if room is None:
        return widths
    fitting: list[int] = []
    for width in widths:
        left = room - sum(fitting) - len(_GAP) * len(fitting)
        if fitting and left < min(width, _NARROWEST):
            break
        fitting.append(max(min(width, left), 1))
        if width > left:
            break
    return fitting


def _pad(text: str, width: int, to_right: bool) -> str:
    text = cut(text, width)
    space = " " * (width - text_width(text))
    return space + text if to_right else text + space


def _get(item: Any, column: str) -> Any:
    """Return a member of an object, or of one inside it; what is no object is its own only column."""
    if not isinstance(item, dict):
        return item
    if column in item or "." not in column:
        return item.get(column)
    name, _, rest = column.partition(".")
    return _get(item[name], rest) if isinstance(item.get(name), dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(column: str, value: Any) -> str:
    """Return a value for people."""
    if value is None or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value):
        return (
            size(value)
            if column.rpartition(".")[2] in _BYTES
            else f"{value:g}"
            if isinstance(value, float)
            else str(value)
        )
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return clean(", ".join(str(item) for item in value))
    if isinstance(value, str):
        return clean(_TIME.sub(r"\1 \2", value) if _TIME.fullmatch(value) else value)
    return clean(msgspec.json.encode(value).decode())


def _plain(value: Any) -> Any:
    """Return a cell of CSV: numbers and texts as they are, nothing for null.

    A text that a spreadsheet would work out begins with an apostrophe: names come from foreign sources.
    """
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    if value is None:
        return value
    return msgspec.json.encode(value).decode()


def _shown(text: str) -> str:
    return "\n".join(_CONTROL.sub("", line) for line in text.split("\n"))
