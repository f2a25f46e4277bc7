"""The only place that reads which keys somebody has moved: `~/.config/firth/keys.toml`, by action id."""

import tomllib
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from textual.keys import _character_to_key

from firth_tui.action_table import ACTIONS, BY_ID
from firth_tui.actions import NAMED_KEYS, key_of

Keys = Mapping[str, str]
"""Keys by action id, those of one action with commas between."""


class WrongKeys(ValueError):
    """What is wrong with the file, in one sentence."""


def keys_file(environment: Mapping[str, str], home: Path) -> Path:
    """Return where the file is, if there is one."""
    folder = environment.get("XDG_CONFIG_HOME", "")
    return (Path(folder) if folder else home / ".config") / "firth" / "keys.toml"


def read_keys(file: Path) -> Keys:
    """Return the keys that a file moves, none when it is not there; raise WrongKeys for nonsense or two meanings."""
    try:
        given = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WrongKeys(f"{file}: {error}") from None
    moved: dict[str, str] = {}
    for name, value in _flat(given):
        if name not in BY_ID:
            raise WrongKeys(f"{file}: there is no action {name}; `firth --keys` lists them")
        if not isinstance(value, str) or not value.strip():
            raise WrongKeys(f'{file}: the key of {name} is a text such as "R" or "ctrl+r"')
        moved[name] = ",".join(_name(part) for part in value.split(" ") if part)
    _check(file, moved)
    return moved


def _flat(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ids with their values: `mirror.run = "R"` makes a table in TOML, `"mirror.run" = "R"` does not."""
    for name, value in given.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _name(key: str) -> str:
    for name, shown in NAMED_KEYS.items():
        if key == shown:
            return name
    return _character_to_key(key) if len(key) == 1 else key


def _check(file: Path, moved: Keys) -> None:
    """Raise WrongKeys when a key would mean two things in one place."""
    for one, other in combinations(ACTIONS, 2):
        if not {one.id, other.id} & moved.keys() or not one.places & other.places:
            continue
        both = set(key_of(one, moved).split(",")) & set(key_of(other, moved).split(",")) - {""}
        if both:
            raise WrongKeys(f"{file}: {min(both)} would mean both {one.id} and {other.id}")
