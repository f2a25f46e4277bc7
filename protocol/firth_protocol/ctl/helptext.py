"""The only place that writes firthctl's help; what it says of methods comes from the table."""

from collections.abc import Mapping

from firth_protocol.describe import Field, fields_of, getter_of, item_of, result_text
from firth_protocol.methods import METHODS, Method
from firth_protocol.types import Credentials

_OVERVIEW = """\
firthctl [options] METHOD [value] [field=value ...]
firthctl METHOD --help                 fields, types, defaults, meaning
firthctl call METHOD '{"raw": "json"}'   any method, parameters unchecked; @FILE or @- reads them
firthctl watch [topics] [after=CURSOR] events as they happen (daemon, channel, mirror, run, ...)
firthctl discover                      the daemon's own description of its methods (OpenRPC)
firthctl completion bash|zsh|fish      a script for the shell

Options
  --socket PATH   the daemon's socket; else FIRTH_SOCKET, else the system's, else the user's
  --wait          follow the run that the method starts, on stderr, and end with its outcome
  --limit N       at most N items of a list (default: all pages)
  --table, --json, --csv
                  a table (default on a terminal), JSON lines (default into a pipe), or CSV (what is no
                  list and no object)
  --columns A,B.C only these, in this order; a dot goes into an object: name,draft.added
  --version, --help

Values
  The first required field may stand alone: firthctl channel.freeze main
  Lists: a,b,c or JSON. Objects: JSON, or field by field: filters.subdirs=linux-64,noarch
  null clears a field. @FILE reads a value from a file, @env:NAME from the environment, @- from
  standard input, @@x is the text @x.
  An edit without revision reads the present one first: firthctl mirror.update main:forge schedule=daily
  Secrets belong into a file or standard input: other users can read a command line.

Exit status
  0 done   1 an error reply, or a run that failed or was stopped   2 the daemon cannot be reached
  3 usage  4 a run that ended incomplete   5 run.wait came back and the run goes on
  (--wait and run.wait end with the outcome of the run)

Methods
"""


def usage() -> str:
    """Return what is said of the command line as a whole, without the methods."""
    return _OVERVIEW.rpartition("\n\nMethods")[0]


def overview(methods: Mapping[str, Method] = METHODS) -> str:
    """Return the help of firthctl as a whole."""
    width = max(len(name) for name in methods)
    return _OVERVIEW + "".join(f"  {row.name:<{width}}  {row.summary}\n" for row in methods.values())


def of_method(method: Method) -> str:
    """Return the help of one method."""
    fields = fields_of(method.params)
    first = next((field.name for field in fields if field.required), None)
    usage = f"firthctl {method.name}"
    fetched = {"revision"} if getter_of(method) is not None else set()
    needed = [field for field in fields if field.required and field.name not in fetched]
    usage += "".join(_usage(field, alone=field.name == first) for field in needed)
    if len(needed) < len(fields):
        usage += " [field=value ...]"
    lines = [usage, "", f"{method.summary}.", ""]
    if fields:
        lines += ["Fields", *(line for field in fields for line in _field(field, "  ", field.name in fetched)), ""]
    if any(field.struct is Credentials for field in fields):
        lines.append(
            "Secrets: credentials.token=@FILE, or credentials.token=@- from standard input; credentials=@@NAME"
        )
        lines += ["means @NAME, one that the service manager gives the daemon.", ""]
    lines.append(f"Role     {method.role}")
    lines.append(f"Reply    {result_text(method.result)}: {_reply(method)}")
    if method.errors:
        lines.append(f"Errors   {', '.join(error.kind for error in method.errors)}")
    return "\n".join(lines) + "\n"


def _usage(field: Field, *, alone: bool) -> str:
    return f" {field.name.upper()}" if alone else f" {field.name}=..."


def _field(field: Field, indent: str, fetched: bool) -> list[str]:
    if fetched:
        state = "read first when left out"
    elif field.required:
        state = "needed"
    elif field.default is None or field.default == "null":
        state = "optional"
    else:
        state = f"default {field.default}"
    lines = [f"{indent}{field.name}  {field.type_text}  ({state})"]
    if field.description:
        lines.append(f"{indent}    {field.description}")
    if field.struct is not None:
        for inner in fields_of(field.struct):
            about = f"  {inner.description}" if inner.description else ""
            lines.append(f"{indent}    {field.name}.{inner.name}  {inner.type_text}{about}")
    return lines


def _reply(method: Method) -> str:
    struct = item_of(method.result) or method.result
    names = getattr(struct, "__struct_fields__", None)
    return ", ".join(names) if names else "any JSON"
