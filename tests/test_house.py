"""The house rules that neither import-linter nor ruff can hold: who may use what, and what no file may say."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"firthd": ROOT / "daemon", "firth_protocol": ROOT / "protocol", "firth_tui": ROOT / "tui"}
TEXT_SUFFIXES = {
    ".py",
    ".sql",
    ".md",
    ".toml",
    ".html",
    ".css",
    ".tcss",
    ".js",
    ".json",
    ".service",
    ".socket",
    ".conf",
}

LONG_MODULES = {
    "firth_protocol/methods.py": "the method table is one table",
    "firth_protocol/types.py": "the nouns of the protocol are one vocabulary",
}


def modules() -> list[tuple[str, Path]]:
    """Return (path inside its package's root, such as `firthd/store/blobs.py`; file) of every module."""
    return [
        (file.relative_to(root).as_posix(), file)
        for package, root in PACKAGES.items()
        for file in sorted((root / package).rglob("*.py"))
    ]


def our_files() -> list[Path]:
    folders = [ROOT / name for name in ("daemon", "protocol", "tui", "tests", "systemd", ".ci")]
    inner = [file for folder in folders for file in folder.rglob("*") if "__pycache__" not in file.parts]
    top = [file for file in ROOT.iterdir() if file.suffix in TEXT_SUFFIXES or file.name in ("run", "LICENSE")]
    return sorted(file for file in inner + top if file.is_file())


def imports(tree: ast.AST) -> Iterator[str]:
    """Give the dotted name of everything imported, `from a import b` as `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def names_used(tree: ast.AST) -> Iterator[str]:
    """Give every plain name and every dotted name in full, such as `datetime.now`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)


def opens_a_session(tree: ast.AST) -> bool:
    return any(
        name.rpartition(".")[2] in ("ClientSession", "UnixConnector") for name in [*imports(tree), *names_used(tree)]
    )


def asks_the_time(tree: ast.AST) -> bool:
    asking = re.compile(r"(.*\.)?(datetime\.(now|utcnow|today|fromtimestamp)|date\.today|localtime)")
    return "time" in {name.partition(".")[0] for name in imports(tree)} or any(map(asking.fullmatch, names_used(tree)))


def knows_http_requests(tree: ast.AST) -> bool:
    return any(name == "aiohttp.web" or name.startswith(("aiohttp.web.", "aiohttp.web_")) for name in imports(tree))


def writes_sql(tree: ast.AST) -> bool:
    statement = re.compile(r"\s*(SELECT .+|INSERT (OR \w+ )?INTO .+|UPDATE \w+.* SET .+|DELETE FROM .+)", re.DOTALL)
    return any(
        statement.fullmatch(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def leaves_a_task_alone(tree: ast.AST) -> bool:
    """Tell whether a task is started whose end nobody can see: `create_task(…)` as a statement, outside a group."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            if called in ("asyncio.create_task", "asyncio.ensure_future") or called.endswith("loop.create_task"):
                return True
    return False


@pytest.mark.parametrize(
    ("breaks", "package", "allowed"),
    [
        pytest.param(opens_a_session, "firthd/", ("firthd/upstream/",), id="only upstream opens a client session"),
        pytest.param(
            opens_a_session, "firth_protocol/", ("firth_protocol/client.py",), id="only client opens a client session"
        ),
        pytest.param(opens_a_session, "firth_tui/", (), id="the TUI opens no client session"),
        pytest.param(asks_the_time, "firthd/", ("firthd/clock.py",), id="only clock knows the time"),
        pytest.param(
            knows_http_requests,
            "firthd/",
            ("firthd/web/", "firthd/rpc/", "firthd/serving.py"),  # serving puts both on their sockets
            id="only web and rpc know HTTP requests",
        ),
        pytest.param(writes_sql, "firth", ("firthd/store/",), id="only store writes SQL"),
        pytest.param(knows_http_requests, "firth_", (), id="no client serves HTTP"),
        pytest.param(leaves_a_task_alone, "firth", (), id="no task is left alone"),
    ],
)
def test_only_the_owner_does_it(breaks: Callable[[ast.AST], bool], package: str, allowed: tuple[str, ...]) -> None:
    found = [
        name
        for name, file in modules()
        if name.startswith(package)
        and not (allowed and name.startswith(allowed))
        and breaks(ast.parse(file.read_text()))
    ]
    assert found == []


SAID_ONCE = {
    r"SO_PEERCRED": "firthd/access.py",
    r"\b(multiprocessing|subprocess)\b": "firthd/store/scribe.py firthd/workers.py",
    r"\bkillpg\b|\bcreate_subprocess_exec\(\s*\*": "firthd/notify/command.py",
    r"\bLISTEN_FDS\b|\bWATCHDOG_USEC\b": "firthd/systemd.py",
    r"\btomllib\b": "firthd/config.py firthd/mirrors/installation_text.py",  # settings; an installation's document
    r"\bflock\b": "firthd/store/folder.py",
    r"\bprometheus_client\b": "firthd/vitals.py",
    r"\bjinja2\b": "firthd/web/pages/html.py",
    r"^(import html\b(?!\.)|from html import (?!unescape$))": "",  # templates escape; nobody does it by hand
    r"\bsock_sendfile\b|\bos\.sendfile\b": "firthd/web/wire.py",
}
"""What one module of the daemon alone has to do with."""


@pytest.mark.parametrize(("pattern", "owner"), SAID_ONCE.items())
def test_the_only_place_is_the_only_one(pattern: str, owner: str) -> None:
    found = [
        name
        for name, file in modules()
        if name.startswith("firthd/") and re.search(pattern, file.read_text(), re.MULTILINE)
    ]
    assert found == owner.split()


WRITERS = {
    "advisory": {"advisories"},
    "artifact": {"artifacts", "blocks", "copying", "dropped", "hand_over", "pages", "upkeep"},
    "artifact_record": {"artifacts", "blocks", "copying", "dropped", "hand_over", "upkeep"},
    "asked": {"asked"},
    "audit": {"audit", "history"},
    "change_set": {"dropped", "generations", "pages"},
    "channel": {"catalog"},
    "delivered": {"delivered", "upkeep"},
    "event": {"journal"},
    "first_sight": {"policies"},
    "generation": {"dropped", "generations"},
    "generation_family": {"generations"},
    "health": {"journal"},
    "mirror": {"blocks", "catalog", "pages"},
    "offered": {"dropped", "offers"},
    "page": {"pages"},
    "policy": {"policies"},
    "page_span": {"pages", "upkeep"},
    "release": {"policies"},
    "run": {"history", "runs"},
    "run_failure": {"runs"},
    "run_log": {"runs"},
    "setting": {"backup", "journal"},
    "source_index": {"catalog", "marks"},
    "token": {"tokens"},
    "usage": {"usage"},
    "unnamed_file": {"object_files", "objects"},
}
"""Which modules of the store write a table; a run's own file has an `object` and a `package` too."""


def test_a_table_has_few_who_write_it() -> None:
    change = re.compile(r"(?:INSERT (?:OR \w+ )?INTO|UPDATE(?: OR \w+)?|DELETE FROM) (?:main\.)?([a-z_]+)\b")
    found: dict[str, set[str]] = {}
    for name, file in modules():
        for node in ast.walk(ast.parse(file.read_text())):
            if name.startswith("firthd/store/") and isinstance(node, ast.Constant) and isinstance(node.value, str):
                for table in change.findall(node.value):
                    found.setdefault(table, set()).add(file.stem)
    assert {table: by for table, by in found.items() if table in WRITERS} == WRITERS


def test_rows_of_the_store_have_names_of_their_own() -> None:
    names = [
        node.name
        for name, file in modules()
        if name.startswith(("firthd/store/", "firthd/index/"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize(
    ("breaks", "code"),
    [
        (opens_a_session, "import aiohttp\ns = aiohttp.ClientSession()"),
        (opens_a_session, "from aiohttp import ClientSession"),
        (asks_the_time, "import time"),
        (asks_the_time, "from time import monotonic"),
        (asks_the_time, "from datetime import datetime\nx = datetime.now(UTC)"),
        (asks_the_time, "import datetime\nx = datetime.datetime.now()"),
        (knows_http_requests, "from aiohttp import web"),
        (knows_http_requests, "from aiohttp.web_request import BaseRequest"),
        (writes_sql, 'rows = "SELECT id FROM mirror"'),
        (writes_sql, 'change = "UPDATE mirror SET name = 1"'),
        (leaves_a_task_alone, "import asyncio\nasyncio.create_task(f())"),
    ],
)
def test_the_rules_see_what_they_forbid(breaks: Callable[[ast.AST], bool], code: str) -> None:
    assert breaks(ast.parse(code))


def test_the_plan_of_a_mirror_is_pure() -> None:
    pure = {
        "collections",
        "dataclasses",
        "enum",
        "itertools",
        "math",
        "operator",
        "typing",
        "msgspec",
        "firth_protocol",
    }
    tree = ast.parse((ROOT / "daemon/firthd/mirrors/plan.py").read_text())
    assert {name.partition(".")[0] for name in imports(tree)} - pure == set()
    assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(tree))


def test_every_module_says_what_it_is_for() -> None:
    silent = [name for name, file in modules() if not ast.get_docstring(ast.parse(file.read_text()))]
    assert silent == []


def test_modules_are_short() -> None:
    lengths = {name: len(file.read_text().splitlines()) for name, file in modules()}
    long = {name for name, lines in lengths.items() if lines > 500}
    assert long == set(LONG_MODULES)


def test_the_top_folders_hold_packages_only() -> None:
    for package, root in PACKAGES.items():
        modules_there = [file.name for file in root.iterdir() if file.suffix == ".py"]
        assert modules_there == [], f"{root.name}/ holds the package {package} and no module"


def test_every_library_that_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=!~ ;\[]", line)[0].replace("-", "_").lower() for line in project["dependencies"]}
    declared = {"rattler" if name == "py_rattler" else name for name in declared}
    imported = {
        name.partition(".")[0] for _, file in modules() for name in imports(ast.parse(file.read_text()))
    } - sys.stdlib_module_names
    assert imported - set(PACKAGES) == declared


def in_parts(*parts: str) -> str:
    """Join what must not stand in one piece in any file, this one included."""
    return "".join(parts)


PUBLIC_HOSTS = [
    in_parts(name, ".", end)
    for name, end in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("anaconda", "org"),
        ("anaconda", "com"),
        ("prefix", "dev"),
        ("r-project", "org"),
        ("rstudio", "com"),
        ("posit", "co"),
        ("bioconductor", "org"),
        ("crates", "io"),
        ("npmjs", "com"),
        ("npmjs", "org"),
        ("debian", "org"),
        ("pkg.go", "dev"),
    )
]
UNFINISHED = [in_parts("TO", "DO"), in_parts("FIX", "ME"), in_parts("XX", "X:")]
OF_ONE_MACHINE = [in_parts("/wo", "rk/"), in_parts("../", "shared")]


@pytest.mark.parametrize(
    "forbidden",
    [
        pytest.param(PUBLIC_HOSTS, id="hosts of public registries"),
        pytest.param(UNFINISHED, id="unfinished work"),
        pytest.param(OF_ONE_MACHINE, id="paths of one machine"),
    ],
)
def test_no_file_says(forbidden: list[str]) -> None:
    pattern = re.compile(
        "|".join(rf"\b{re.escape(text)}" if text[0].isalpha() else re.escape(text) for text in forbidden)
    )
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for file in our_files()
        if file.suffix in TEXT_SUFFIXES or not file.suffix
        for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        pytest.param("import firthd.__main__, firthd.service", ["textual", "firth_tui"], id="the daemon"),
        pytest.param("import firthd.workers", ["textual", "firth_tui"], id="a worker process"),
        pytest.param("import firth_tui.app", ["firthd", "aiosqlite", "rattler", "croniter"], id="the TUI"),
        pytest.param("import firth_protocol.client", ["firthd", "firth_tui", "textual"], id="the client"),
    ],
)
def test_a_program_loads_only_what_it_needs(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint(*sorted(set({absent!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=9, check=False)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_only_families_know_a_format() -> None:
    words = re.compile(r"\bsubdirs?\b|\.conda\b|repodata|\bnoarch\b")
    daemon = ROOT / "daemon" / "firthd"
    found = [
        f"{file.relative_to(daemon)}:{number}: {line.strip()}"
        for file in daemon.rglob("*.py")
        if file.relative_to(daemon).parts[0] != "families"
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if words.search(line.replace("firthd.families.conda", ""))
    ]
    assert found == []
