"""The log: one event a line whatever is in it, priorities for the journal, and a last net for secrets."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firthd import logs


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Give the root logger and put it back as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield root
    logging.captureWarnings(False)
    root.handlers[:], root.level = before


def record(text: str, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("firthd.web", level, __file__, 1, text, None, None)
    made.created = 1_777_593_600.25
    return made


def test_a_line_has_time_level_and_place() -> None:
    line = logs.LineFormatter(journal=False).format(record("serving"))
    assert line == "2026-05-01T00:00:00.250Z INFO    firthd.web: serving"


@pytest.mark.parametrize(
    ("level", "head"),
    [(logging.DEBUG, "<7>"), (logging.INFO, "<6>"), (logging.WARNING, "<4>"), (logging.ERROR, "<3>"), (55, "<2>")],
)
def test_the_journal_gets_priorities(level: int, head: str) -> None:
    assert logs.LineFormatter(journal=True).format(record("x", level)) == f"{head}firthd.web: x"


def test_a_traceback_is_one_line() -> None:
    made = record("run 7 failed", logging.ERROR)
    try:
        raise ValueError("bad\nname")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = logs.LineFormatter(journal=False).format(made)
    assert "\n" not in line
    assert "run 7 failed | Traceback" in line
    assert line.endswith("ValueError: bad | name")


def test_hostile_names_cannot_steer_a_terminal() -> None:
    assert logs.one_line("pkg\x1b[2J\x9b1m\u2028<6>x\r") == "pkg\\x1b[2J\\x9b1m | <6>x"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET https://ann:s3cret@repo.example.org/x", "GET https://***@repo.example.org/x"),
        ("GET https://repo.example.org/t/s3cret/repo/main", "GET https://repo.example.org/t/***/repo/main"),
        ("at https://repo.example.org/t/{token}/repo", "at https://repo.example.org/t/{token}/repo"),
        ("{'Authorization': 'Bearer s3cret99'}", "{'Authorization': 'Bearer ***'}"),
        ("proxy-authorization: Basic czNjcmV0", "proxy-authorization: Basic ***"),
        ("basic settings of https://repo.example.org", "basic settings of https://repo.example.org"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, clean: str) -> None:
    assert logs.one_line(text) == clean


def test_lines_for_the_journal_only_when_the_stream_is_the_journals(tmp_path: Path, root: logging.Logger) -> None:
    file = tmp_path / "log"
    with file.open("w") as stream:
        status = os.fstat(stream.fileno())
        logs.set_up({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, stream)
        root.info("one")
        logs.set_up({"JOURNAL_STREAM": "1:2"}, stream)
        root.info("two")
        root.debug("never")
    first, second = file.read_text().splitlines()
    assert first == "<6>root: one"
    assert second.endswith("INFO    root: two")
