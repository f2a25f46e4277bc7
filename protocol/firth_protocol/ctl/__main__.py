"""The only place that decides what a call of firthctl does, and with which status it ends."""

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

import msgspec
from msgspec import Struct

from firth_protocol import API
from firth_protocol.address import find_socket
from firth_protocol.ctl import completion, edits, helptext, waiting
from firth_protocol.ctl.arguments import has_column, meant, parameters, read_value
from firth_protocol.ctl.exits import Exit, Unreachable, UsageError
from firth_protocol.ctl.output import Format, Printer, clean
from firth_protocol.ctl.transport import Daemon
from firth_protocol.describe import fields_of, getter_of, listed_in, struct_of
from firth_protocol.errors import FirthError
from firth_protocol.events import LOST
from firth_protocol.methods import METHODS, Method
from firth_protocol.types import Document, RunState

PAGE = 1000
"""Items asked for at once: the most that a page has."""

COMPLETION_TIMEOUT_S = 2.0
"""How long somebody who pressed tab waits for names."""

_FLAGS = {"--json": Format.JSON, "--table": Format.TABLE, "--csv": Format.CSV}


class Options(Struct, kw_only=True):
    """What stands before, between and after the words that are not options."""

    socket: str | None = None
    form: Format | None = None
    columns: list[str] = []
    wait: bool = False
    limit: int | None = None
    help: bool = False
    version: bool = False
    words: list[str] = []


def main() -> None:
    """Run firthctl with the arguments of this process; never returns."""
    sys.exit(int(run(sys.argv[1:])))


def run(argv: Sequence[str]) -> Exit:
    """Do what the arguments say; return the exit status. Errors are told on stderr."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail(stream)
    try:
        status = _command(_options(argv))
        sys.stdout.flush()
        return status
    except UsageError as error:
        return _complain(Exit.USAGE, str(error))
    except Unreachable as error:
        return _complain(Exit.UNREACHABLE, str(error))
    except FirthError as error:
        return _complain(Exit.ERROR, f"{error.kind}: {error.message}", error.hint)
    except BrokenPipeError:
        return _broken_pipe()
    except OSError as error:
        _drop_output()
        return _complain(Exit.ERROR, f"the output cannot be written: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.stderr.write("\n" if sys.stderr.isatty() else "")
        return Exit.INTERRUPTED


def _options(argv: Sequence[str]) -> Options:
    """Take the options out of the words; raise UsageError."""
    options = Options()
    rest = iter(argv)
    for word in rest:
        name, equals, inline = word.partition("=")
        if word == "--":
            options.words += rest
        elif not word.startswith("-") or word == "-":
            options.words.append(word)
        elif word in _FLAGS:
            options.form = _FLAGS[word]
        elif word == "--wait":
            options.wait = True
        elif word in ("--help", "-h"):
            options.help = True
        elif word == "--version":
            options.version = True
        elif name in ("--socket", "--limit", "--columns"):
            value = inline if equals else next(rest, None)
            if not value:
                raise UsageError(f"{name} needs a value")
            if name == "--socket":
                options.socket = value
            elif name == "--columns":
                options.columns = [column.strip() for column in value.split(",") if column.strip()]
            else:
                options.limit = _count(value)
        else:
            raise UsageError(_no_option(name))
    return options


def _command(options: Options) -> Exit:
    if options.version:
        sys.stdout.write(f"firthctl, api {API}\n")
        return Exit.DONE
    _check_text(options.words)
    name, *words = options.words or [""]
    if not name:
        (sys.stdout if options.help else sys.stderr).write(helptext.overview())
        return Exit.DONE if options.help else Exit.USAGE
    if options.help:
        sys.stdout.write(helptext.of_method(METHODS[name]) if name in METHODS else helptext.overview())
        return Exit.DONE
    daemon = Daemon(find_socket(options.socket, os.environ))
    match name:
        case "call":
            return _raw(daemon, options, words)
        case "watch":
            return _watch(daemon, options, words)
        case "discover":
            return _discover(daemon, words)
        case "completion":
            return _completion(words)
        case "__complete":
            return _complete(words)
    if name not in METHODS:
        close = meant(name, [*METHODS, *completion.COMMANDS])
        raise UsageError(f"there is no method {name!r}{close} (firthctl --help lists them; `call` takes any name)")
    return _method(daemon, options, METHODS[name], parameters(METHODS[name], words, _warn))


def _check_text(words: list[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{word!r} is no UTF-8 text") from None


# --- commands -------------------------------------------------------------------------------------------


def _method(daemon: Daemon, options: Options, method: Method, params: dict[str, Any]) -> Exit:
    listed = listed_in(method.result)
    _check_columns(options.columns, method)
    if listed is not None:
        name, item = listed
        _printer(options).items(_pages(daemon, method, name, params, options.limit), item)
        return Exit.DONE
    if options.limit is not None:
        raise UsageError(f"--limit is for lists; {method.name} is none")
    getter = getter_of(method)
    if getter is not None and "revision" not in params:
        return _reply(daemon, options, method.name, edits.edit(daemon, method, getter, params, _say))
    return _reply(daemon, options, method.name, daemon.call(method.name, params))


def _check_columns(columns: list[str], method: Method) -> None:
    """Raise UsageError for a column that no item or reply of the method has."""
    listed = listed_in(method.result)
    kind = listed[1] if listed is not None else struct_of(method.result)
    for column in columns:
        if kind is not None and not has_column(kind, column):
            names = [field.name for field in fields_of(kind)]
            raise UsageError(f"there is no column {column!r}{meant(column, names)} (there are {', '.join(names)})")


def _reply(daemon: Daemon, options: Options, method: str, result: Any) -> Exit:
    """Print a single reply; with --wait only after its runs have ended, which then stand in it as they ended."""
    status = Exit.DONE
    row = METHODS.get(method)
    kind = struct_of(row.result) if row is not None else None
    if row is not None and row.waits and isinstance(result, dict):
        if options.wait and not RunState(result["state"]).ended:
            result = waiting.follow(daemon, result["id"], waiting.Line(sys.stderr, _width(sys.stderr)), time.sleep)
        _printer(options).one(result, kind)
        return waiting.exit_of([result])
    if isinstance(result, dict):
        for warning in result.get("warnings") or []:
            _warn(str(warning))
        if options.wait:
            try:
                status = _wait(daemon, result)
            except (FirthError, Unreachable, KeyboardInterrupt):
                _printer(options).one(result, kind)  # what was asked for is done, and may say what nothing else will
                raise
    if options.form is None and not options.columns and kind is not None and issubclass(kind, Document):
        sys.stdout.write(_told(result["document"]))
        return status
    _printer(options).one(result, kind)
    return status


def _told(text: str) -> str:
    """Return a text as it is; on a terminal without what it would take for a command."""
    return text if not sys.stdout.isatty() else "\n".join(map(clean, text.split("\n")))


def _wait(daemon: Daemon, result: dict[str, Any]) -> Exit:
    line = waiting.Line(sys.stderr, _width(sys.stderr))
    ended = []
    try:
        if isinstance(result.get("run"), dict):
            result["run"] = waiting.follow(daemon, result["run"]["id"], line, time.sleep)
            ended.append(result["run"])
        if isinstance(result.get("runs"), list):
            result["runs"] = [waiting.follow(daemon, run["id"], line, time.sleep) for run in result["runs"]]
            ended += result["runs"]
        if not ended:
            _say("this started no run; there is nothing to wait for")
    except KeyboardInterrupt:
        line.end("no longer watched; the run goes on in the daemon")
        raise
    if ended:
        waiting.refresh(daemon, result, _say)
    return waiting.exit_of(ended)


def _pages(daemon: Daemon, method: Method, name: str, params: dict[str, Any], cap: int | None) -> Iterator[list[Any]]:
    """Yield the items of every page; of one page only when the words ask for it by `limit` or `cursor`."""
    one_page = "limit" in params or "cursor" in params
    left = cap
    while left is None or left > 0:
        if not one_page:
            params["limit"] = PAGE if left is None else min(left, PAGE)
        result = daemon.call(method.name, params)
        items = result[name] if left is None else result[name][:left]
        if isinstance(text := result.get("text"), str):
            sys.stdout.write(_told(text))
            items = text.splitlines()
        else:
            yield items
        cursor = result.get("next_cursor")
        if cursor is None:
            return
        if one_page:
            sys.stdout.flush()
            _say(f"there is more: cursor={cursor}")
            return
        if left is not None:
            left -= len(items)
        params["cursor"] = cursor


def _raw(daemon: Daemon, options: Options, words: list[str]) -> Exit:
    if not words or len(words) > 2:
        raise UsageError('write firthctl call METHOD \'{"field": "value"}\'')
    text = read_value(words[1]) if len(words) == 2 else "{}"
    try:
        params = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"the parameters are no JSON: {error}") from None
    if not isinstance(params, dict):
        raise UsageError("the parameters are a JSON object: names and values")
    return _reply(daemon, options, words[0], daemon.call(words[0], params))


def _watch(daemon: Daemon, options: Options, words: list[str]) -> Exit:
    after = None
    topics: list[str] = []
    for word in words:
        if word.startswith("after="):
            after = word.removeprefix("after=")
        else:
            topics += [topic for topic in word.split(",") if topic]
    form = options.form or (Format.TABLE if sys.stdout.isatty() else Format.JSON)
    if form is Format.CSV or options.columns:
        raise UsageError("events have no fixed columns; choose --json or --table")
    for event in daemon.events(topics, after):
        if event.get("type") == LOST:
            raise Unreachable("events came faster than they were read and some are lost; watch again")
        if form is Format.JSON:
            Printer(sys.stdout, form, _width(sys.stdout)).one(event)
        else:
            sys.stdout.write(_event_line(event) + "\n")
        sys.stdout.flush()
    raise Unreachable("the daemon ended the stream of events; it is stopping")


def _event_line(event: dict[str, Any]) -> str:
    about = {**event.get("ids", {}), **event.get("data", {})}
    told = " ".join(
        f"{key}={value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
        for key, value in about.items()
    )
    return clean(f"{event.get('time', '')}  {event.get('type', '')}  {told}")


def _discover(daemon: Daemon, words: list[str]) -> Exit:
    if words:
        raise UsageError("discover takes no words")
    text = msgspec.json.format(msgspec.json.encode(daemon.call("rpc.discover", {})), indent=2)
    sys.stdout.write(text.decode() + "\n")
    return Exit.DONE


def _completion(words: list[str]) -> Exit:
    if len(words) != 1 or words[0] not in completion.SHELLS:
        raise UsageError(f"write firthctl completion {'|'.join(completion.SHELLS)}")
    sys.stdout.write(completion.script(words[0]))
    return Exit.DONE


def _complete(words: list[str]) -> Exit:
    """Answer the shells' scripts: what may stand here? A daemon that is slow or away adds nothing."""
    if len(words) not in (2, 3):
        raise UsageError("write firthctl completion SHELL; this is for its script")
    shell, line, *breaks = words
    daemon = Daemon(find_socket(completion.socket_of(line), os.environ), COMPLETION_TIMEOUT_S)

    def ask(method: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            items: list[dict[str, Any]] = daemon.call(method, params)["items"]
        except (Unreachable, FirthError):
            return []
        return items

    sys.stdout.write("".join(f"{clean(found)}\n" for found in completion.complete(shell, line, ask, *breaks)))
    return Exit.DONE


# --- the terminal ---------------------------------------------------------------------------------------


def _printer(options: Options) -> Printer:
    width = _width(sys.stdout)
    form = options.form or (Format.JSON if width is None else Format.TABLE)
    return Printer(sys.stdout, form, width, options.columns)


def _width(stream: TextIO) -> int | None:
    """Return the columns of the terminal behind a stream, None when it is none."""
    return max(os.get_terminal_size(stream.fileno()).columns or 80, 20) if stream.isatty() else None


def _never_fail(stream: TextIO) -> None:
    """Let letters that the terminal's encoding lacks come out escaped instead of as an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12 or int(text) == 0:
        raise UsageError(f"--limit: {text!r} is no number of items")
    return int(text)


def _no_option(name: str) -> str:
    field = name.lstrip("-").replace("-", "_")
    close = meant(name, completion.OPTIONS, 0.75)
    return f"there is no option {name}{close} (fields are written without dashes: {field}=value)"


def _warn(text: str) -> None:
    _say(f"warning: {text}")


def _say(text: str) -> None:
    sys.stderr.write(f"firthctl: {clean(text)}\n")


def _complain(status: Exit, text: str, hint: str = "") -> Exit:
    _say(text)
    if hint:
        sys.stderr.write(f"  {clean(hint)}\n")
    return status


def _broken_pipe() -> Exit:
    """End without a word."""
    _drop_output()
    return Exit.BROKEN_PIPE


def _drop_output() -> None:
    """Let what Python would still write at its end go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
