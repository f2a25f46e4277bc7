"""The page about the inside of the daemon in step with the code: every room, path, name, contract, test and table."""

import importlib
import re
import sqlite3
import tomllib
from pathlib import Path

import pytest

from firthd.families.base import FamilyRules, Formats
from firthd.store.opening import migrate

ROOT = Path(__file__).parent.parent
DAEMON = ROOT / "daemon" / "firthd"
PAGE = (ROOT / "daemon" / "README.md").read_text()
COLUMNS = {"since", "until", "shows", "generation"}
"""Columns that the page names beside their tables."""
WORDS = {"firthd", "daemon/firthd/"}
PACKAGES = ("firthd", "firth_protocol")


def named() -> list[str]:
    """Return every text between backticks, code blocks and links aside."""
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    return sorted(set(re.findall(r"`([^`\n]+)`", prose)))


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"daemon/README.md has no section {title}"
    return found.group(1)


def rooms() -> set[str]:
    """Return folders (`web/`) and loose modules (`clock`) of the daemon."""
    folders = {f"{entry.name}/" for entry in DAEMON.iterdir() if (entry / "__init__.py").exists()}
    return folders | {file.stem for file in DAEMON.glob("*.py")} - {"__init__"}


def contracts() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"] for contract in project["tool"]["importlinter"]["contracts"]}


def names_of_tests() -> set[str]:
    files = (file for folder in ("tests", "tests/daemon") for file in (ROOT / folder).rglob("test_*.py"))
    return {
        name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
    }


def tables(folder: Path) -> set[str]:
    file = folder / "state.sqlite"
    migrate(file, 0)
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        found = {row[0] for row in rows}
    connection.close()
    return found


def state_files() -> set[str]:
    """Return what may lie below the state folder: folders (`blobs/`) and files (`firth.sqlite`) that the code names."""
    texts = {text for file in DAEMON.rglob("*.py") for text in re.findall(r'"([a-z]+(?:\.[a-z]+)?)"', file.read_text())}
    return {text if "." in text else f"{text}/" for text in texts}


def is_path(name: str) -> bool:
    return (DAEMON / name).exists() or (ROOT / name).exists()


def is_dotted(name: str) -> bool:
    """Tell whether a dotted name, given from below the daemon's package or in full, leads to something."""
    full = name if name.startswith(PACKAGES) else f"firthd.{name}"
    parts = full.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(thing, part):
                return False
            thing = getattr(thing, part)
        return True
    return False


def test_everything_that_is_named_exists(tmp_path: Path) -> None:
    interface = {*FamilyRules.__struct_fields__, *(name for name in dir(Formats) if not name.startswith("_"))}
    plain = rooms() | contracts() | names_of_tests() | tables(tmp_path) | interface | COLUMNS | WORDS
    plain |= state_files()
    missing = [
        name
        for name in named()
        if name not in plain
        and not ("/" in name and is_path(name))
        and not is_path(f"families/{name}")
        and not (re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", name) and is_dotted(name))
        and name not in {"FamilyRules", "Formats", "Formats.renderer"}
    ]
    assert missing == []


def test_every_room_is_on_the_map() -> None:
    told = set(re.findall(r"`([\w/]+)`", "".join(re.findall(r"^\| (.*?) \|", section("Rooms"), re.MULTILINE))))
    assert told == rooms()


def test_rooms_stand_in_the_order_of_the_contract() -> None:
    lines = [
        set(re.findall(r"`(\w+)/?`", line)) for line in re.findall(r"^\| (`.*?) \|", section("Rooms"), re.MULTILINE)
    ]
    place = {room: number for number, line in enumerate(lines) for room in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = (one["layers"] for one in project["tool"]["importlinter"]["contracts"] if one["id"] == "layers")
    order = [[place[room] for room in re.findall(r"\w+", layer) if room in place] for layer in layers]
    assert [numbers for numbers in order if len(set(numbers)) > 1] == [], "one layer, one line"
    heights = [numbers[0] for numbers in order if numbers]
    assert heights == sorted(heights)


def test_every_table_has_its_sentence(tmp_path: Path) -> None:
    assert tables(tmp_path) - set(re.findall(r"`(\w+)`", section("State"))) == set()


def test_every_member_of_the_interface_is_told() -> None:
    told = set(re.findall(r"`(\w+)`", section("A family")))
    members = {*FamilyRules.__struct_fields__, *(name for name in dir(Formats) if not name.startswith("_"))}
    assert members - {"family"} - told == set()


def test_it_is_read_in_one_sitting() -> None:
    assert len(PAGE.splitlines()) <= 150


@pytest.mark.parametrize("name", ["channels.publish.Publisher._swich", "store.nowhere", "firthd.web.app.Fronts"])
def test_a_name_that_leads_nowhere_is_seen(name: str) -> None:
    assert not is_dotted(name)
