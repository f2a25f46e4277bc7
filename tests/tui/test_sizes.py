"""Every place at four sizes of terminal: nothing leaves the screen, and no word is cut without saying so.

What a place says with all the room it wants is the dictionary: at a smaller size each word must be in it, or end in an
ellipsis. An ellipsis at the end of a line that has room left is a fault too.
"""

import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest

from firth_protocol import types as t
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_policies import excluded
from tests.support.fake_world import rfc3339
from tests.support.tui import Terminal, terminal
from tests.tui.test_pictures import fill

ROOM = (260, 110)
SIZES = ((200, 60), (120, 40), (80, 24), (60, 20))
MAIN = ("slash", *"main", "enter", "enter")
FORGE = ("2", "slash", *"conda.example.org/forge", "enter")
WAYS: dict[str, Sequence[str]] = {
    "channels": (),
    "packages": MAIN,
    "channel mirrors": (*MAIN, "M"),
    "subchannels": ("slash", *"bio", "enter", "enter", "B"),
    "generations": (*MAIN, "V"),
    "changes": (*MAIN, "C"),
    "use it": (*MAIN, "U"),
    "package": (*MAIN, "enter"),
    "mirrors": ("2",),
    "mirror": (*FORGE, "enter"),
    "runs": ("3",),
    "run": ("3", "enter"),
    "health": ("4",),
    "audit log": ("5",),
    "tokens": ("6",),
    "policies": ("7",),
    "policy": ("7", "enter"),
    "advisories": ("8",),
    "advisory": ("8", "enter"),
    "kept out": (*FORGE, "x"),
    "explanation": (*MAIN, "w"),
    "channel form": (*MAIN, "e"),
    "mirror form": (*FORGE, "e"),
    "policy form": ("7", "e"),
    "token form": ("6", "n"),
    "delete": (*FORGE, "d"),
    "actions": (*FORGE, "a"),
    "help": ("question_mark",),
}
QUICK = {"health"}
"""What is looked at each time; the other places when there is time."""
CUT = "…"
WORD = re.compile(r"[^\s│┤├┌┐└┘─▔▁█░▏▎▍▌▋▊▉]+")
EDGES = 4
"""Cells of a line that are not for words; a word that is longer than the others is broken anywhere."""
COMES = {"mirror form": ("index 62.9 MB", "the source has linux-64"), "health": ("sources",), "package": ("fetched",)}
"""What is read from the daemon once a place stands."""


@pytest.fixture
async def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeDaemon]:
    monkeypatch.chdir(tmp_path)  # a short name of the socket
    daemon = FakeDaemon(Path("firth.sock"))
    fill(daemon)
    daemon.add_policy("no-gpl", licenses={"not_in": ["GPL"]})
    daemon.channels["main"] = msgspec.structs.replace(daemon.channels["main"], policy="no-gpl")
    daemon.assign()
    daemon.left_out = [excluded("readline", "licenses", "GPL-3.0-only is GPL3")]
    daemon.add_advisory(
        "GHSA-2222-3333",
        t.AdvisoryTouch(
            channel="main",
            family=t.Family.CONDA,
            package="zstd",
            version="1.6.0",
            files=96,
            affected=12,
            policies=["no-gpl"],
        ),
    )
    daemon.upstreams = [
        t.UpstreamHost(
            host="conda.example.org",
            rate_bytes_s=41e6,
            answers=311,
            failures=2,
            answered_at=rfc3339(daemon.now - 3),
            status=200,
            failed_at=rfc3339(daemon.now - 7200),
            failure="conda.example.org refuses connections",
            fails=True,
        )
    ]
    daemon._do_token_create("build-farm", channels=["statistics"])
    async with daemon:
        yield daemon


def words_of(lines: Sequence[str]) -> set[str]:
    return {word for line in lines for word in WORD.findall(line)}


def faults_of(lines: Sequence[str], size: tuple[int, int], known: set[str]) -> list[str]:
    """Return what is wrong with a screen: too wide, a word cut, an ellipsis where there is room."""
    width, height = size
    found = [f"too wide: {line}" for line in lines if len(line) > width]
    if len(lines) > height:
        found.append(f"{len(lines)} lines")
    for line in lines:
        strange = [word for word in WORD.findall(line) if CUT not in word and word not in known]
        strange = [word for word in strange if not any(len(each) >= width - EDGES and word in each for each in known)]
        found += [f"cut: {word!r} in {line}" for word in strange]
        if line.endswith(CUT) and len(line) < width - 3:
            found.append(f"room is left: {line}")
    return found


def test_what_is_wrong_with_a_screen_is_found() -> None:
    known = {"Nothing", "is", "wrong"}
    assert faults_of(["Nothing is wrong"], (20, 1), known) == []
    assert faults_of(["Nothing is wro"], (14, 1), known) == ["cut: 'wro' in Nothing is wro"]
    assert faults_of(["Nothing is wr…"], (14, 1), known) == []
    assert faults_of(["Nothing i…"], (40, 1), known) == ["room is left: Nothing i…"]


def shown(term: Terminal) -> list[str]:
    """Return the lines of the screen; of a dialog those inside its frame."""
    dialogs = term.app.screen.query(".dialog")
    if not dialogs:
        return term.lines
    x, y, width, height = dialogs.first().region
    return ["", *(line[x + 1 : x + width - 1].rstrip() for line in term.lines[y + 1 : y + height - 1])]


def width_of(term: Terminal) -> int:
    dialogs = term.app.screen.query(".dialog")
    return dialogs.first().region.width - 2 if dialogs else term.app.size.width


async def settled(term: Terminal) -> list[str]:
    """Return the lines of the screen when it has stopped changing."""
    before: list[str] = []
    for _ in range(100):
        await term.pilot.pause(0.05)
        now = shown(term)
        if now == before and "Reading" not in term.text and "reading" not in term.text:
            return now
        before = now
    return before


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=[] if place in QUICK else [pytest.mark.deep]) for place in WAYS]
)
async def test_nothing_is_cut_where_there_is_room(daemon: FakeDaemon, place: str) -> None:
    async with terminal(Path("firth.sock"), ROOM, now=lambda: daemon.now) as term:
        await term.sees("● connected", "attic")
        await term.until(lambda: term.app.session.methods)
        for key in WAYS[place]:
            await term.press(key)
            await term.pilot.pause(0.05)
        await term.sees(*COMES.get(place, ()))
        known = words_of(await settled(term))
        found = []
        for size in SIZES:
            await term.pilot.resize_terminal(*size)
            lines = await settled(term)
            found += [
                f"{size}: {fault}" for fault in faults_of(lines[1:], (width_of(term), size[1]), known)
            ]  # below the header
        assert found == [], "\n".join([*found, term.text])
