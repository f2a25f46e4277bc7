"""The only place that writes the manual page of firthctl; what it says comes from the help and the method table."""

from collections.abc import Mapping

from firth_protocol.ctl import helptext
from firth_protocol.describe import Field, fields_of, result_text
from firth_protocol.methods import METHODS, Method

_NAME = "firthctl \\- call firthd, the daemon of Firth package channels"
_FILES = """\
/run/firth/firth.sock              the system's daemon
$XDG_RUNTIME_DIR/firth/firth.sock  that of a user"""


def page(methods: Mapping[str, Method] = METHODS) -> str:
    """Return firthctl(1) as roff for man(7)."""
    lines = ['.TH FIRTHCTL 1 "" Firth "Firth package channels"', ".SH NAME", _NAME]
    title = "Synopsis"
    for section in helptext.usage().split("\n\n"):
        first, *rest = section.splitlines()
        if rest and not first.startswith(("firthctl", " ")):
            title, body = first, [line.removeprefix("  ") for line in rest]
        else:
            body = [first, *rest]
        lines += [f".SH {title.upper()}", *_as_it_is(body)]
    lines += [".SH ENVIRONMENT", ".TP", ".B FIRTH_SOCKET", "the socket, where --socket names none"]
    lines += [".SH FILES", *_as_it_is(_FILES.splitlines()), ".SH METHODS"]
    for row in methods.values():
        lines += _method(row)
    lines += [".SH SEE ALSO", ".BR firth (1),", ".BR firthd (8)"]
    return "\n".join(lines) + "\n"


def _method(row: Method) -> list[str]:
    lines = [
        f".SS {_text(row.name)}",
        f"{_text(row.summary)}. Role: {row.role}. Reply: {_text(result_text(row.result))}.",
    ]
    for field in fields_of(row.params):
        lines += [".TP", f'.BR {field.name} " {_text(_kind(field)).replace(chr(34), "")}"']
        lines.append(_text(field.description) or "\\&")
    return lines


def _kind(field: Field) -> str:
    needed = "" if field.required else ", optional" if field.default in (None, "null") else f", default {field.default}"
    return f"({field.type_text}{needed})"


def _as_it_is(lines: list[str]) -> list[str]:
    return [".nf", *(_text(line) for line in lines), ".fi"]


def _text(text: str) -> str:
    """Return the text as roff shows it letter by letter."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
