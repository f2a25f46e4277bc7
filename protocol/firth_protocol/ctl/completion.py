"""The only place that completes command lines: candidates from the table, and the shells' scripts that ask for them."""

import shlex

from firth_protocol.ctl.arguments import struct_paths
from firth_protocol.describe import fields_of
from firth_protocol.events import Topic
from firth_protocol.methods import METHODS

SHELLS = ("bash", "zsh", "fish")
COMMANDS = ("call", "watch", "discover", "completion")
OPTIONS = ("--socket", "--wait", "--limit", "--table", "--json", "--csv", "--help", "--version")

_SCRIPTS = {
    # bash takes `=` and `:` for the end of a word, so that it wants only what comes after the last of them.
    "bash": """\
_firthctl() {
  local cur="${COMP_WORDS[COMP_CWORD]}" IFS=$'\\n'
  COMPREPLY=($(firthctl __complete bash "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
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
}
compdef _firthctl firthctl
""",
    "fish": """\
complete -c firthctl -f -a '(firthctl __complete fish (commandline -cp) 2>/dev/null)'
""",
}


def script(shell: str) -> str:
    """Return the completion script of a shell; raise KeyError for one that we do not know."""
    return _SCRIPTS[shell]


def complete(shell: str, line: str) -> list[str]:
    """Return what may stand at the end of a command line, as the shell wants it."""
    *before, current = _words(line)
    found = [candidate for candidate in _candidates(before[1:], current) if candidate.startswith(current)]
    if shell == "bash":
        cut = max(current.rfind("="), current.rfind(":")) + 1
        return [candidate[cut:] for candidate in found]
    return found


def _words(line: str) -> list[str]:
    """Return the words of a line, the last one perhaps empty or unfinished; quotes may still be open."""
    for end in ("", "'", '"'):
        try:
            words = shlex.split(line + end)
        except ValueError:
            continue
        return [*words, ""] if not words or (line[-1:].isspace() and not end) else words
    return line.split()


def _candidates(before: list[str], current: str) -> list[str]:
    if current.startswith("-"):
        return list(OPTIONS)
    words = [word for word in before if not word.startswith("-")]
    if before[-1:] == ["--socket"]:
        return []
    if not words:
        return [*METHODS, *COMMANDS]
    match words[0]:
        case "completion":
            return list(SHELLS)
        case "call":
            return list(METHODS) if len(words) == 1 else []
        case "watch":
            return [topic.value for topic in Topic]
    return _of_method(words[0], words[1:], current)


def _of_method(name: str, given: list[str], current: str) -> list[str]:
    row = METHODS.get(name)
    if row is None:
        return []
    key, equals, _ = current.partition("=")
    if equals:
        return [f"{key}={value}" for field in fields_of(row.params) if field.name == key for value in field.values]
    used = {word.partition("=")[0] for word in given}
    if given and "=" not in given[0]:
        used |= {next((field.name for field in fields_of(row.params) if field.required), "")}
    return [f"{path}=" for path in struct_paths(row.params) if path not in used]
