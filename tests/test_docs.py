"""The documents and the texts that users meet, in step with the code: settings, methods, commands, roles, files."""

import ast
import re
import shlex
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

from firth_protocol.ctl.arguments import has_column, parameters
from firth_protocol.ctl.exits import Exit
from firth_protocol.describe import listed_in, struct_of
from firth_protocol.events import Fact
from firth_protocol.methods import METHODS
from firth_protocol.types import Cause, MirrorMode, OnUpstreamRemoval, Privacy, Role, RunKind, RunState, StepName
from firthd.config import Flags, describe, load
from firthd.families import families
from firthd.runs.steps import STEPS
from tests.support.documents import blocks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SEMANTICS = (ROOT / "protocol" / "semantics.md").read_text()
DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    "protocol/README.md",
    "protocol/semantics.md",
    "protocol/scripting.md",
    "daemon/README.md",
]


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


GROUPS = {*(name.partition(".")[0] for name in METHODS), "policy", "store", "advisory", "snapshot", "export", "python"}
COLUMNS = re.compile(r"--columns \S+")
NAMED = re.compile(rf"(?<![\w./])((?:{'|'.join(sorted(GROUPS))})\.[a-z_]+)\b(?![.:(]\w|/)")
FILES = {"run.sqlite"}


def promised(text: str) -> set[str]:
    """Return what a text names that looks like a method and is neither a method, nor an event, nor a setting."""
    settings = {name for name, _, _ in describe(load(Flags(), {"HOME": "/nowhere"}, 1000))}
    return set(NAMED.findall(text)) - set(METHODS) - set(Fact) - settings - FILES


def sentences(tree: ast.AST) -> Iterator[str]:
    """Give the texts of a module that hold a space, what is formatted into them left out; no docstrings."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    silent = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield from [node.value] if " " in node.value else []


@pytest.mark.parametrize("document", [*DOCUMENTS, "protocol/openrpc.json"])
def test_methods_and_events_that_are_named_exist(document: str) -> None:
    assert promised(COLUMNS.sub("", (ROOT / document).read_text())) == set()


@pytest.mark.parametrize("package", ["daemon/firthd", "protocol/firth_protocol", "tui/firth_tui"])
def test_no_text_names_a_method_that_does_not_exist(package: str) -> None:
    found = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sorted((ROOT / package).rglob("*.py"))
        for text in sentences(ast.parse(file.read_text()))
        for name in sorted(promised(text))
    ]
    assert found == []


def test_a_promise_is_seen() -> None:
    code = 'raise NotFound(f"{name} is gone", hint=f"`mirror.heal` mends {name}, `mirror.run` runs it")'
    assert set().union(*map(promised, sentences(ast.parse(code)))) == {"mirror.heal"}
    assert promised("set store.size_limit in firth.toml, see store.py") == {"store.size_limit", "store.py"}


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
    assert len(named) >= 2
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
    written = {(1, 2, 3, 4, 5, 6, 7, 8): "all eight", (1, 2, 3, 4, 5): "1 to 5"}
    for kind, steps in STEPS.items():
        numbers = tuple(list(StepName).index(step) + 1 for step in steps)
        assert kinds[kind] == written.get(numbers, ", ".join(map(str, numbers)))


CALLS = re.compile(
    r"""(?:^|[\s(!;])(?:firthctl|\./run ctl) ([a-z]+\.[a-z_]+(?:'[^'\n]*'|"[^"\n]*"|[^`'"\n|;)&<>#])*)""", re.MULTILINE
)


@pytest.mark.parametrize("document", ["README.md", "protocol/scripting.md"])
def test_calls_that_are_shown_are_understood(document: str) -> None:
    text = (ROOT / document).read_text()
    code = "\n".join([*blocks(text), *blocks(text, "sh")]).replace("\\\n", " ")
    code = re.sub(r"\$\(date[^)]*\)", "1", code)
    found = CALLS.findall(code)
    assert len(found) > 8
    for call in found:
        method, *words = shlex.split(COLUMNS.sub("", call), comments=True)
        listed = listed_in(METHODS[method].result)
        kind = listed[1] if listed is not None else struct_of(METHODS[method].result)
        for chosen in COLUMNS.findall(call):
            assert kind is not None
            assert all(has_column(kind, column) for column in chosen.split()[1].split(",")), call
        words = [re.sub(r"(^|=)@[\w./:]+", r"\1{}", re.sub(r"\$\w+", "1", word)) for word in words]
        given = [word for word in words if not word.startswith("--") and word != "2"]  # what is left of 2>
        assert isinstance(parameters(METHODS[method], given, print), dict), call


@pytest.mark.parametrize(("page", "module"), [("firth.1", "firth_tui"), ("firthd.8", "firthd")])
def test_the_manual_pages_tell_every_option(page: str, module: str) -> None:
    told = (ROOT / "man" / page).read_text().replace("\\-", "-")
    there = (ROOT / {"firth_tui": "tui", "firthd": "daemon"}[module] / module / "__main__.py").read_text()
    options = re.findall(r'add_argument\(\s*"(--[a-z-]+)"', there)
    assert len(options) >= 3
    assert [option for option in options if f" {option}" not in told and f"{option}\n" not in told] == []
    assert [code for code in re.findall(r"^_EX_\w+ = (\d+)", there, re.MULTILINE) if f"\n.B {code}\n" not in told] == []


def test_the_exit_statuses_are_those_of_the_programs() -> None:
    (told,) = re.findall(r"^\| `firthctl` \| (.*) \|$", SEMANTICS, re.MULTILINE)
    assert [int(text.split()[0]) for text in told.split(" · ")] == list(Exit)
