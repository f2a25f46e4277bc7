"""The only place that completes command lines: candidates from the table and the daemon, and the shells' scripts."""

import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from firth_protocol.ctl.arguments import struct_paths
from firth_protocol.describe import fields_of, listed_in, struct_of
from firth_protocol.events import Topic
from firth_protocol.methods import METHODS, Method

Ask = Callable[[str, Mapping[str, Any]], list[dict[str, Any]]]
"""Gives the items of one page of a list, by method and parameters; nothing where the daemon does not answer."""

PAGE = 1000
NEWEST = 20
"""Runs that are offered: nobody means an old one by its number."""
QUERY = 200
_UNSAFE = re.compile(r"[^\w./:@=,+%-]")
"""What bash would not take for a letter of the word: it inserts names as they come, other shells quote them."""
_WITH_VALUE = ("--socket", "--limit", "--columns")

SHELLS = ("bash", "zsh", "fish")
COMMANDS = ("call", "watch", "discover", "completion")
OPTIONS = ("--socket", "--wait", "--limit", "--columns", "--table", "--json", "--csv", "--help", "--version")

_SCRIPTS = {
    # bash takes what stands in COMP_WORDBREAKS (`=` and `:`) for the end of a word, so that it wants only what comes
    # after the last of them.
    "bash": """\
_firthctl() {
  local IFS=$'\\n' word="${COMP_LINE:0:COMP_POINT}"
  word="${word##* }"
  if [[ $word == *=@* ]]; then  # a file
    COMPREPLY=($(compgen -P @ -f -- "${word#*=@}"))
    compopt -o filenames
    [ ${#COMPREPLY[@]} -ne 1 ] || [ ! -d "${COMPREPLY[0]#@}" ] || { COMPREPLY[0]+=/; compopt -o nospace; }
    return
  fi
  COMPREPLY=($(firthctl __complete bash "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null))
  if [ ${#COMPREPLY[@]} -eq 1 ] && [ "${COMPREPLY[0]: -1}" = "=" ]; then compopt -o nospace; fi
}
complete -o default -F _firthctl firthctl
""",
    "zsh": """\
#compdef firthctl
_firthctl() {
  local -a found
  found=("${(@f)$(firthctl __complete zsh "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
  compadd -S '' -- ${(M)found:#*=}
  compadd -- ${${found:#*=}:#}
  case $words[CURRENT] in (*=@*) compset -P '*=@'; _files ;; esac
}
compdef _firthctl firthctl
""",
    "fish": """\
function __firthctl_found
  firthctl __complete fish (commandline -cp | string collect) 2>/dev/null
  set -l word (commandline -ct)
  if string match -q '*=@*' -- $word
    set -l before (string replace -r '=@.*' '=@' -- $word)
    printf '%s\\n' $before(__fish_complete_path (string replace -r '^[^@]*@' '' -- $word))
  end
end
complete -c firthctl -f -a '(__firthctl_found)'
""",
}


def script(shell: str) -> str:
    """Return the completion script of a shell; raise KeyError for one that we do not know."""
    return _SCRIPTS[shell]


def complete(shell: str, line: str, ask: Ask, breaks: str = "=:") -> list[str]:
    """Return what may stand at the end of a command line, as the shell wants it.

    `breaks` are the letters that end a word for bash.
    """
    *before, current = _words(line)
    found = [candidate for candidate in _candidates(before[1:], current, ask) if candidate.startswith(current)]
    if shell == "bash":
        cut = max((current.rfind(letter) for letter in "=:" if letter in breaks), default=-1) + 1
        return [_UNSAFE.sub(r"\\\g<0>", candidate[cut:]) for candidate in found]
    return found


def socket_of(line: str) -> str | None:
    """Return the socket that a command line names by `--socket`."""
    words = _words(line)[:-1]
    for number, word in enumerate(words):
        if word.startswith("--socket="):
            return word.partition("=")[2]
        if word == "--socket" and number + 1 < len(words):
            return words[number + 1]
    return None


def _words(line: str) -> list[str]:
    """Return the words of a line, the last one perhaps empty or unfinished; quotes may still be open."""
    for end in ("", "'", '"'):
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        return [*words, ""] if not words or (line[-1:].isspace() and not end) else words
    return line.split()


def _candidates(before: list[str], current: str, ask: Ask) -> list[str]:
    words = [
        word
        for number, word in enumerate(before)
        if not word.startswith("-") and (number == 0 or before[number - 1] not in _WITH_VALUE)
    ]
    if before[-1:] == ["--columns"] and words:
        return _columns(words[0], current)
    if before[-1:] and before[-1] in _WITH_VALUE:
        return []
    if current.startswith("-"):
        return list(OPTIONS)
    if not words:
        return [*METHODS, *COMMANDS]
    match words[0]:
        case "completion":
            return list(SHELLS)
        case "call":
            return list(METHODS) if len(words) == 1 else []
        case "watch":
            return [topic.value for topic in Topic]
    return _of_method(words[0], words[1:], current, ask)


def _columns(method: str, current: str) -> list[str]:
    row = METHODS.get(method)
    listed = listed_in(row.result) if row is not None else None
    kind = listed[1] if listed is not None else struct_of(row.result) if row is not None else None
    chosen, comma, _ = current.rpartition(",")
    return [f"{chosen}{comma}{path}" for path in struct_paths(kind)] if kind is not None else []


def _of_method(name: str, given: list[str], current: str, ask: Ask) -> list[str]:
    row = METHODS.get(name)
    if row is None:
        return []
    fields = fields_of(row.params)
    key, equals, value = current.partition("=")
    if equals:
        found = [value for field in fields if field.name == key for value in field.values]
        return [f"{key}={value}" for value in found or _names(row, key, value, ask)]
    first = next((field.name for field in fields if field.required), "")
    alone = _names(row, first, current, ask) if first and not given else []
    used = {word.partition("=")[0] for word in given}
    if given and "=" not in given[0]:
        used |= {first}
    return alone + [f"{path}=" for path in struct_paths(row.params) if path not in used]


def _names(row: Method, field: str, begun: str, ask: Ask) -> list[str]:
    """Return the names that the daemon knows for a field which refers to something: `channel`, `mirror`, `run` ..."""
    noun, verb = row.name.split(".")
    if field == "name" and verb != "create":
        field = noun  # what this method is about
    listed = METHODS.get(f"{field}.list")
    if listed is None or any(one.required for one in fields_of(listed.params)):
        return []
    params: dict[str, Any] = {"limit": PAGE if field != "run" else NEWEST}
    channel, colon, _ = begun.partition(":")
    if field == "mirror":
        params |= {"channel": channel} if colon else {}
        return [f"{item['channel']}:{item['name']}" for item in ask(listed.name, params)]
    if begun and "query" in listed.params.__struct_fields__:
        params["query"] = begun[:QUERY]
    return [str(item.get("name", item.get("id", ""))) for item in ask(listed.name, params)]
