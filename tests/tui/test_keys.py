"""Keys that somebody has moved: they work, are shown, and never mean two things."""

from pathlib import Path

import pytest

from firth_tui.action_table import listed, sections
from firth_tui.actions import Place
from firth_tui.keys import WrongKeys, keys_file, read_keys
from firth_tui.widgets.dialogs import Help
from tests.support.fake_daemon import FakeDaemon
from tests.support.tui import NARROW, WIDE, terminal


def written(folder: Path, text: str) -> Path:
    file = folder / "keys.toml"
    file.write_text(text)
    return file


def test_keys_are_read_in_both_spellings_and_by_what_stands_on_them(tmp_path: Path) -> None:
    file = written(tmp_path, '"channel.freeze" = "Z"\nlist.filter = "F /"\n[app]\nhelp = "ctrl+y"\n')
    assert read_keys(file) == {"channel.freeze": "Z", "list.filter": "F,slash", "app.help": "ctrl+y"}
    assert read_keys(tmp_path / "absent.toml") == {}
    assert keys_file({"XDG_CONFIG_HOME": "/c"}, Path("/h")) == Path("/c/firth/keys.toml")
    assert keys_file({}, Path("/h")) == Path("/h/.config/firth/keys.toml")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('"channel.freze" = "Z"', "there is no action channel.freze"),
        ('"channel.freeze" = "d"', "d would mean both channel.freeze and channel.delete"),
        ('"channel.freeze" = 1', "is a text such as"),
        ('"channel.freeze" = ""', "is a text such as"),
        ("[", "keys.toml"),
    ],
)
def test_nonsense_and_two_meanings_are_refused(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(WrongKeys, match=wrong):
        read_keys(written(tmp_path, text))


def test_what_is_listed_can_be_read_back(tmp_path: Path) -> None:
    moved = {"channel.freeze": "Z"}
    assert read_keys(written(tmp_path, "\n".join(listed(moved))))["channel.freeze"] == "Z"


@pytest.mark.parametrize("place", list(Place))
def test_help_has_each_action_once(place: Place) -> None:
    ids = [action.id for _, part in sections(place) for action in part]
    assert len(ids) == len(set(ids))


@pytest.mark.deep
async def test_a_moved_key_works_and_is_shown(tmp_path: Path) -> None:
    async with FakeDaemon(tmp_path / "firth.sock") as daemon:
        daemon.add_channel("main")
        async with terminal(daemon.socket, NARROW, keys={"channel.freeze": "Z"}) as term:
            await term.sees("● connected", "▸main", "Z freeze")
            await term.until(lambda: term.app.session.methods)
            await term.press("z")
            await term.press("Z")
            await term.sees("main is frozen")
            assert len(daemon.called("channel.freeze")) == 1


async def test_help_has_sections_and_finds(tmp_path: Path) -> None:
    async with FakeDaemon(tmp_path / "firth.sock") as daemon:
        daemon.add_channel("main")
        async with terminal(daemon.socket, WIDE) as term:
            await term.sees("● connected", "▸main")
            await term.press("question_mark")
            await term.until(lambda: isinstance(term.app.screen, Help))
            await term.sees("Keys of Channels", "Move", "This place", "New channel")
            await term.press("slash")
            await term.type("freeze")
            await term.sees("While frozen")
            await term.until(lambda: "New channel" not in term.text)
            await term.press("enter", "escape")
            await term.sees("New channel")
            await term.press("escape")
            await term.until(lambda: not isinstance(term.app.screen, Help))
