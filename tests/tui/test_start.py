"""How firth starts: what it needs first, and what it says where it cannot."""

import subprocess
import sys

import pytest

from firth_tui.theme import DARK, SIXTEEN, fitting


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_first_paint_waits_for_no_client() -> None:
    loaded = python("import sys, firth_tui.app; print(*sorted(sys.modules))").split()
    late = {"aiohttp", "firth_protocol.client", "firth_protocol.methods", "firth_tui.screens.run", "uvloop", "firthd"}
    assert late & set(loaded) <= {"firth_protocol.methods"}
    assert "textual.app" in loaded


def test_the_command_line_loads_nothing_to_answer_help() -> None:
    begin = "import sys, firth_tui.__main__ as m"
    code = f"{begin}\ntry: m.main(['--help'])\nexcept SystemExit: print('textual' in sys.modules)"
    shown = python(code)
    assert "--read-only" in shown
    assert shown.endswith("False\n")


def test_without_a_terminal_it_says_what_to_use() -> None:
    done = subprocess.run([sys.executable, "-m", "firth_tui"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 3
    assert "firthctl" in done.stderr
    assert "Traceback" not in done.stderr


def test_modules_that_decide_know_no_textual() -> None:
    names = "model, rows, format, actions, action_table, reasons, link"
    loaded = python(f"import sys; from firth_tui import {names}; print(*sys.modules)").split()
    assert "textual" not in loaded


@pytest.mark.parametrize(
    ("colorterm", "theme"), [("truecolor", DARK), ("24bit", DARK), ("", SIXTEEN), (None, SIXTEEN), ("yes", SIXTEEN)]
)
def test_colours_are_those_that_the_terminal_announces(colorterm: str | None, theme: str) -> None:
    assert fitting({} if colorterm is None else {"COLORTERM": colorterm}) == theme
