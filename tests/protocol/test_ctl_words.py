"""Words of the command line to parameters and back, and what tables look like."""

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol.address import find_socket, unreachable_text
from firth_protocol.ctl.arguments import parameters
from firth_protocol.ctl.exits import UsageError
from firth_protocol.ctl.output import Format, Printer, clean, cut, text_width
from firth_protocol.methods import METHODS
from firth_protocol.types import Package


def words(method: str, *given: str) -> dict[str, Any]:
    """Return the parameters of words that nothing is to be warned about."""
    warned: list[str] = []
    found = parameters(METHODS[method], given, warned.append)
    assert warned == []
    return found


CREATE = ("main", "name=forge", "type=conda", "source=file:///srv/x")
CREATED = {"channel": "main", "name": "forge", "type": "conda", "source": "file:///srv/x"}


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ([], {}),
        (["run_now=true", "check=no"], {"run_now": True, "check": False}),
        (["ca_file=null", "proxy="], {"ca_file": None, "proxy": ""}),
        (["filters.subdirs=linux-64, noarch"], {"filters": {"subdirs": ["linux-64", "noarch"]}}),
        (['filters.subdirs=["a"]', "filters.archive=true"], {"filters": {"subdirs": ["a"], "archive": True}}),
        (['filters={"subdirs":["a"]}'], {"filters": {"subdirs": ["a"]}}),
        (["filters.subdirs=null"], {"filters": {"subdirs": None}}),
        (["schedule=0 0 * * 1"], {"schedule": "0 0 * * 1"}),
        (["credentials=null"], {"credentials": None}),
    ],
)
def test_words_become_values(given: list[str], more: dict[str, Any]) -> None:
    assert words("mirror.create", *CREATE, *given) == CREATED | more


def test_references_are_numbers_or_names() -> None:
    assert words("mirror.get", "12") == {"mirror": 12}
    assert words("mirror.get", "main/dev:a=b") == {"mirror": "main/dev:a=b"}
    assert words("mirror.get", "mirror=main:12") == {"mirror": "main:12"}
    assert words("run.wait", "12", "timeout=0.5") == {"run": 12, "timeout": 0.5}


def test_an_at_sign_can_be_meant(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_text("two\nlines\r\n")
    assert words("channel.create", "main", "description=@@home") == {"name": "main", "description": "@home"}
    assert words("channel.create", "main", f"description=@{file}") == {"name": "main", "description": "two\nlines"}


@pytest.mark.parametrize(
    ("method", "given", "text"),
    [
        ("mirror.create", ["chanel=main"], "mirror.create has no field 'chanel'; did you mean channel?"),
        ("mirror.create", ["filters.subdir=a"], "no field 'filters.subdir'; did you mean subdirs?"),
        ("mirror.create", ["name.x=a"], "name is text and has no fields of its own"),
        ("mirror.create", ["main", "channel=main"], "channel is given twice"),
        ("mirror.create", ["filters.archive=yes", "filters.archive=no"], "filters.archive is given twice"),
        ("mirror.create", ["filters=null", "filters.archive=yes"], "filters is given as a whole and in parts"),
        ("mirror.create", ["type=condo"], "type: 'condo' is not one of its values; did you mean conda?"),
        ("mirror.create", ["run_now=maybe"], "run_now: 'maybe' is neither true nor false"),
        ("mirror.create", ["filters=x"], "filters: 'x' is no JSON"),
        ("mirror.create", ["main"], "mirror.create needs name, type, source"),
        ("mirror.update", ["1", "mode=active"], "mode is fixed after creation: a new mirror can have another one"),
        ("mirror.update", ["1", "channel=b"], "channel is fixed after creation"),
        ("mirror.update", ["1", "run_now=true"], "mirror.update has no field 'run_now'"),
        ("mirror.update", [], "mirror.update needs mirror; see"),
        ("channel.create", ["-", "description=@-"], "standard input can be the value of one field only"),
        ("mirror.create", ["main", "name=@-", "source=-"], "standard input can be the value of one field only"),
        ("mirror.create", ["source=@/no/such/file"], "/no/such/file cannot be read: No such file or directory"),
        ("run.get", ["twelve"], "run: 'twelve' is no whole number; it is integer >= 1"),
        ("run.get", ["0"], "run: expected `int` >= 1"),
        ("run.wait", ["1", "timeout=nan"], "timeout: 'nan' is no number"),
        ("mirror.list", ["main"], "mirror.list needs no 'main'"),
        ("channel.list", ["limit=5000"], "limit: expected `int` <= 1000"),
    ],
)  # fmt: skip
def test_nonsense_is_told(method: str, given: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        words(method, *given)
    assert text in str(caught.value)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_goes_through_unchanged(text: str) -> None:
    written = f"@{text}" if text.startswith("@") else text
    if written == "-":
        return  # standard input, on purpose
    assert words("channel.create", "main", f"description={written}")["description"] == text


@given(st.lists(st.text(alphabet="abc01-", min_size=1), min_size=1), st.booleans())
def test_lists_go_through_unchanged(items: list[str], as_json: bool) -> None:
    written = msgspec.json.encode(items).decode() if as_json else ",".join(items)
    if written == "-":
        return  # standard input, on purpose
    assert words("mirror.create", *CREATE, f"filters.subdirs={written}")["filters"] == {"subdirs": items}


def test_a_secret_on_the_command_line_is_warned_about() -> None:
    for word in ("credentials.token=abc", 'credentials={"token":"abc"}', "credentials.token=@@abc"):
        warned: list[str] = []
        parameters(METHODS["mirror.create"], [*CREATE, word], warned.append)
        assert len(warned) == 1
        assert "abc" not in warned[0]


# --- where the socket is --------------------------------------------------------------------------------


def test_the_socket_that_is_looked_for(tmp_path: Path) -> None:
    system = tmp_path / "system.sock"
    runtime = {"XDG_RUNTIME_DIR": "/run/user/5", "HOME": "/home/kim"}
    user = Path("/run/user/5/firth/firth.sock")
    assert find_socket("/a", {"FIRTH_SOCKET": "/b"}, system) == Path("/a")
    assert find_socket(None, {"FIRTH_SOCKET": "/b"}, system) == Path("/b")
    system.touch()
    assert find_socket(None, runtime, system) == system
    home = {"XDG_STATE_HOME": str(tmp_path)}
    mine = tmp_path / "firth/firth.sock"
    mine.parent.mkdir()
    mine.touch()
    assert find_socket(None, home, system) == system
    system.unlink()
    assert find_socket(None, home, system) == mine
    assert find_socket(None, runtime, system) in (user, system)  # root without any is told of the system's


def test_silence_is_explained() -> None:
    assert "it does not answer in time; start it" in unreachable_text("/s", TimeoutError())
    assert "Connection refused; start it" in unreachable_text("/s", ConnectionRefusedError(111, "x"))
    assert "ValueError; start it" in unreachable_text("/s", ValueError())


def test_who_may_not_connect_is_told_of_the_group_and_not_to_start_the_daemon(tmp_path: Path) -> None:
    socket = tmp_path / "firth.sock"
    socket.touch()
    told = unreachable_text(socket, PermissionError(13, "x"))
    assert f"Permission denied; an administrator lets you in by making you a member of group {socket.group()}" in told
    hidden = unreachable_text(tmp_path / "none", PermissionError(13, "x"))
    assert "its socket lies in a folder that you may not enter" in hidden
    assert "start it" not in told + hidden


# --- tables ---------------------------------------------------------------------------------------------


def table(items: list[dict[str, Any]], width: int | None, kind: Any = None) -> list[str]:
    stream = io.StringIO()
    Printer(stream, Format.TABLE, width).items([items], kind)
    return stream.getvalue().splitlines()


PACKAGES = [
    {"name": "numpy", "version": "2.1.3", "versions": 4, "files": 12, "stored": 3, "bytes": 31_200_000,
     "downloads": 7, "platforms": ["linux-64", "noarch"], "family": "conda"},
    {"name": "zlib", "version": "1.3", "versions": 1, "files": 1, "stored": 0, "bytes": 999, "downloads": 0,
     "platforms": [], "family": "conda"},
]  # fmt: skip


def test_a_table_shows_sizes_and_lists_for_people() -> None:
    assert table(PACKAGES, None, Package) == [
        "NAME   VERSION  VERSIONS  FILES  STORED  BYTES    DOWNLOADS  PLATFORMS         FAMILY",
        "numpy  2.1.3           4     12       3  31.2 MB          7  linux-64, noarch  conda",
        "zlib   1.3             1      1       0    999 B          0  -                 conda",
    ]


@given(st.integers(min_value=20, max_value=90))
def test_a_table_fits_the_terminal(width: int) -> None:
    lines = table(PACKAGES, width, Package)
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)
    assert lines[1].startswith("numpy")


def test_a_table_of_what_is_not_known() -> None:
    assert table([{"a": 1, "b": {"c": 2}}, {"a": None, "b": None}], 80) == ["A", "1", "-"]
    assert table([], 80) == []


@given(st.text())
def test_clean_text_is_one_harmless_line(text: str) -> None:
    shown = clean(text)
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown)
    assert clean(shown) == shown


@given(st.text(alphabet="aä語", max_size=30), st.integers(min_value=1, max_value=20))
def test_cut_text_fits(text: str, width: int) -> None:
    assert text_width(cut(text, width)) <= width
    if text_width(text) <= width:
        assert cut(text, width) == text
