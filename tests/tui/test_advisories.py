"""Known flaws: how old each database is, what a flaw means of the channels, and the way to package and policy."""

from pathlib import Path

import msgspec

from firth_protocol import types as t
from firth_tui.screens.advisories import AdvisoriesScreen, affected_cell, database_lines, score_cell
from firth_tui.screens.advisory import AdvisoryScreen
from firth_tui.screens.package import PackageScreen
from firth_tui.screens.policy import PolicyScreen
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_world import START, rfc3339
from tests.support.tui import NARROW, terminal


def touch(channel: str, package: str, affected: int, *policies: str) -> t.AdvisoryTouch:
    return t.AdvisoryTouch(
        channel=channel,
        family=t.Family.CONDA,
        package=package,
        version="1.3",
        files=41,
        affected=affected,
        policies=list(policies),
    )


def test_an_old_database_is_told_as_one() -> None:
    def database(name: str, days: float) -> t.AdvisoryDatabase:
        return t.AdvisoryDatabase(
            name=name,
            advisories=12_345,
            withdrawn=3,
            modified=rfc3339(START - 86400),
            imported_at=rfc3339(START - days * 86400),
        )

    fresh, old = (
        "".join(text for text, _ in line) for line in database_lines([database("GHSA", 1), database("PYSEC", 9)], START)
    )
    assert " ".join(fresh.split()) == "GHSA 12,345 imported 1 d ago, newest 1 d ago, 3 withdrawn"
    assert "! imported 9 d ago" in old
    many = database_lines([database(f"DB{number}", 1) for number in range(9)], START)
    assert many[-1][0].text == " and 5 more databases with 61,725"


def test_a_flaw_is_graded_in_glyph_and_number() -> None:
    daemon = FakeDaemon(Path("/nowhere"))
    daemon.add_advisory("OWN-1")
    one = daemon.advisories["OWN-1"]
    cells = [
        score_cell(msgspec.structs.replace(one, **fields)).text
        for fields in ({}, {"score": 7.0}, {"score": 3.25}, {"score": None}, {"withdrawn": True})
    ]
    assert cells == ["✗ 9.8", "! 7.0", "○ 3.2", "○ unscored", "– withdrawn"]
    assert [affected_cell(touch("a", "b", number)).text for number in (0, 3)] == ["✓ no file", "! 3 of 41"]


async def test_a_flaw_leads_to_the_package_and_to_the_policy(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("main", packages=3)
    daemon.add_policy("safe", cve={"score": {"op": ">=", "value": 7}})
    async with daemon, terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await term.sees("● connected", "▸main")
        await term.until(lambda: term.app.session.methods)
        await term.press("8")
        await term.sees("No advisory is known", "advisory.import")
        daemon.add_advisory("GHSA-1111", touch("main", "package-000001", 3, "safe"), touch("team", "zlib", 0))
        daemon.add_advisory("PYSEC-2", score=None)
        await term.press("ctrl+r")
        await term.sees("▸GHSA-1111", "✗ 9.8", "package-00000", "GHSA 1", "imported 1 h ago", "2 advisories")
        await term.pilot.resize_terminal(160, 30)
        await term.sees("! 3 of 41", "team zlib ✓ no file")  # the preview
        await term.pilot.resize_terminal(*NARROW)
        await term.press("enter")
        await term.until(lambda: isinstance(term.app.screen, AdvisoryScreen))
        await term.sees("! means 3 files in 1 channel", "▸main", "! 3 of 41", "safe", "Reads past the end")
        await term.press("i")
        await term.until(lambda: isinstance(term.app.screen, PolicyScreen))
        await term.press("escape")
        await term.sees("▸main")
        await term.press("enter")
        await term.until(lambda: isinstance(term.app.screen, PackageScreen))
        await term.press("escape", "escape")
        await term.until(lambda: isinstance(term.app.screen, AdvisoriesScreen))
        await term.press("colon")
        await term.type("pysec")
        await term.sees("advisory PYSEC-2")
        await term.press("enter")
        await term.sees("No channel lists a package that it names", "✓ means no file here")


async def test_a_database_is_imported_from_a_form(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("main", packages=1)
    async with daemon, terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await term.sees("● connected", "▸main")
        await term.until(lambda: term.app.session.methods)
        await term.press("8")
        await term.sees("No advisory is known", "n imports")
        await term.press("n")
        await term.sees("Import advisories", "A path on the daemon's machine")
        await term.press("ctrl+o")
        await term.sees("a path or an address is needed")
        await term.type("/osv")
        await term.press("ctrl+o")
        await term.sees("Reads the advisories", "▸GHSA-1111")
        assert daemon.imported == [("/osv", "osv")]
