"""The documents in step with the code: settings, methods, commands, roles and files that they name."""

import ast
import re
from enum import StrEnum
from pathlib import Path

import pytest

from firth_protocol.ctl.exits import Exit
from firth_protocol.events import Fact
from firth_protocol.methods import METHODS
from firth_protocol.types import Cause, MirrorMode, OnUpstreamRemoval, Privacy, Role, RunKind, RunState, StepName
from firthd.config import Flags, describe, load
from firthd.families import families
from firthd.runs.steps import STEPS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SEMANTICS = (ROOT / "protocol" / "semantics.md").read_text()
DOCUMENTS = ["README.md", "CHANGELOG.md", "protocol/README.md", "protocol/semantics.md", "daemon/README.md"]


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no section {title}"
    return found.group(1)


def test_the_reference_lists_every_setting_with_its_default() -> None:
    told = dict(re.findall(r"^\| `([a-z_.]+)` \| `?([^|`]+)`? \|", section("Configuration"), re.MULTILINE))
    there = {name: value for name, value, _ in describe(load(Flags(), {"HOME": "/nowhere"}, 1000)) if "." in name}
    assert told == there


def test_the_example_of_a_configuration_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", section("Configuration"), re.DOTALL)
    assert example
    file = tmp_path / "firth.toml"
    file.write_text(example.group(1))
    assert load(Flags(config=str(file)), {"HOME": "/"}, 1000).settings.access.default_role is Role.READER


def test_the_roles_are_those_of_the_protocol() -> None:
    told = re.findall(r"^\| `([a-z]+)` \|", section("Roles"), re.MULTILINE)
    assert told == [role.value for role in Role if role is not Role.NONE]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_methods_and_events_that_are_named_exist(document: str) -> None:
    groups = "|".join(sorted({name.partition(".")[0] for name in METHODS}))
    named = re.findall(rf"(?<![\w./])((?:{groups})\.[a-z_]+)\b(?!\.)", (ROOT / document).read_text())
    settings = {name for name, _, _ in describe(load(Flags(), {"HOME": "/nowhere"}, 1000))}
    assert sorted(set(named) - set(METHODS) - set(Fact) - settings) == []


def sentences(file: Path) -> list[str]:
    """Return the texts of a module that hold a blank, docstrings aside."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    docs = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in docs]
    return [text for text in texts if isinstance(text, str) and " " in text]


def test_sentences_of_the_daemon_name_methods_that_exist() -> None:
    groups = "|".join({name.partition(".")[0] for name in METHODS} | {"store", "policy", "advisory", "config"})
    settings = {name for name, _, _ in describe(load(Flags(), {"HOME": "/nowhere"}, 1000))}
    files = [file for file in (ROOT / "daemon" / "firthd").rglob("*.py") if file.parent.name != "store"]  # SQL is there
    named = [
        (file.name, name)
        for file in files
        for text in sentences(file)
        for name in re.findall(rf"\b((?:{groups})\.[a-z_]+)\b", text)
    ]
    assert [one for one in named if one[1] not in {*METHODS, *Fact, *settings}] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_run_that_are_named_exist(document: str) -> None:
    script = (ROOT / "run").read_text()
    cases = script[script.index("case $what in") :]
    there = {word.strip() for line in re.findall(r"^([a-z| -]+)\)", cases, re.MULTILINE) for word in line.split("|")}
    named = set(re.findall(r"\./run ([a-z]+)", (ROOT / document).read_text()))
    assert named <= there
    assert {"demo", "test", "check"} <= there


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    linked = [(ROOT / document).parent / target for target in re.findall(r"\]\((?!https?:)([^)#]+)", text)]
    named = [ROOT / name for name in re.findall(r"`((?:daemon|protocol|tui|systemd|tests)/[\w./-]*)`", text)]
    assert [str(file.relative_to(ROOT)) for file in linked + named if not file.exists()] == []


def test_installed_files_of_the_service_exist() -> None:
    named = re.findall(r"(?<![\w/])(systemd/[\w.-]+)", section("As a service"))
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_lines_for_clients_are_those_of_the_families() -> None:
    told = section("Clients")
    for rules in families().values():
        for one in rules.set_up("http://packages.example.org/repo/main"):
            assert [line for line in one.lines.splitlines() if line not in told] == [], one.client


@pytest.mark.parametrize("words", [Cause, MirrorMode, OnUpstreamRemoval, Privacy, Role, RunKind, RunState, StepName])
def test_every_word_of_the_wire_has_its_meaning(words: type[StrEnum]) -> None:
    assert [word for word in words if f"`{word}`" not in SEMANTICS] == []


def test_the_steps_are_told_in_their_order() -> None:
    assert re.findall(r"^\| [1-8] \| `([a-z_]+)` \|", SEMANTICS, re.MULTILINE) == list(StepName)
    kinds = dict(re.findall(r"^\| `([a-z]+)` \|.*\| ([^|]+) \|$", SEMANTICS, re.MULTILINE))
    written = {(1, 2, 3, 4, 5, 6, 7, 8): "all eight", (1, 2, 3, 4, 5): "1 to 5", (7, 8): "7, 8"}
    for kind, steps in STEPS.items():
        assert kinds[kind] == written[tuple(list(StepName).index(step) + 1 for step in steps)]


def test_the_exit_statuses_are_those_of_the_programs() -> None:
    (told,) = re.findall(r"^\| `firthctl` \| (.*) \|$", SEMANTICS, re.MULTILINE)
    assert [int(text.split()[0]) for text in told.split(" · ")] == list(Exit)
