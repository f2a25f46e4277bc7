"""Sheets and sentences: what is long goes on below, and what runs and plans say of themselves."""

from pathlib import Path

import msgspec
import pytest

from firth_protocol import types as t
from firth_tui.format import Cell, Tone
from firth_tui.screens.channel_lists import nothing_offered
from firth_tui.screens.mirror import detail_lines, failure_lines, labelled
from firth_tui.screens.mirrors import missing_of, state_of
from firth_tui.screens.package import newest_first
from firth_tui.screens.run import counts_cells, plan_words
from firth_tui.widgets.progress import amount, outcome, pieces, step_lines, step_note
from firth_tui.widgets.sheet import wrapped
from firth_tui.widgets.tones import length
from firth_tui.wording import for_people
from firthd.mirrors import probe
from tests.support.fake_daemon import FakeDaemon


@pytest.fixture
def run() -> t.Run:
    daemon = FakeDaemon(Path("/nowhere"))
    daemon.add_channel("main")
    return daemon.begin_run(daemon.add_mirror("main", "forge").id)


def test_a_long_line_goes_on_below_its_beginning() -> None:
    lines = wrapped(labelled("platforms", Cell("linux-64 1, " * 12)), 60)
    assert len(lines) > 2
    assert all(length(line) <= 60 for line in lines)
    assert lines[1][0].text.strip() == ""
    assert len(lines[1][0].text) == length(lines[0][:-1])


def test_a_short_line_stays_as_it_is() -> None:
    line = labelled("state", Cell("well", Tone.OK))
    assert wrapped(line, 60) == [line]


def test_a_line_whose_end_is_far_to_the_right_goes_on_under_its_second_piece() -> None:
    line = labelled("store", Cell("#" * 20 + "  "), Cell("62.9 GB in 40,112 files, "), Cell("812 GB free", Tone.WARN))
    first, second = wrapped(line, 54)
    assert "".join(text for text, _ in first) == " store         ####################  62.9 GB in 40,112"
    assert "".join(text for text, _ in second) == " " * 15 + "files, 812 GB free"
    assert second[-1] == Cell("812 GB free", Tone.WARN)
    assert [length(each) for each in wrapped(labelled("path", Cell("x" * 100)), 60)] == [60, 60, 25]


@pytest.mark.parametrize(
    ("unit", "done", "total", "text"),
    [
        ("bytes", 31_200_000, 64_000_000, "31.2 MB / 64.0 MB"),
        ("artifacts", 412_000, 700_000, "412,000 / 700,000"),
        ("files", 12, None, "12 files"),
        ("bytes", 12, None, "12 B"),
        ("artifacts", 412_000, 400_000, "412,000 / 412,000"),
    ],
)
def test_how_far_a_step_is(unit: str, done: int, total: int | None, text: str) -> None:
    step = t.Step(
        number=2, name=t.StepName.FILTER, title="x", state=t.StepState.RUNNING, done=done, total=total, unit=unit
    )
    assert amount(step) == text


def test_a_finished_step_tells_all_it_has_to_say(run: t.Run) -> None:
    step = msgspec.structs.replace(run.steps[0], state=t.StepState.DONE, description="word " * 30)
    lines = step_lines(step, run, 0.0, 80)
    assert 2 <= len(lines) <= 3
    assert all(length(line) <= 80 for line in lines)


def test_a_download_tells_bytes_rate_and_what_is_left_before_the_name(run: t.Run) -> None:
    step = msgspec.structs.replace(
        run.steps[5], state=t.StepState.RUNNING, done=311, total=1204, description="numpy.conda"
    )
    told = msgspec.structs.replace(run, bytes_done=5 * 10**8, bytes_total=2 * 10**9, rate_bytes_s=4.1e7, eta_s=38.0)
    assert "500 MB / 2.0 GB" in pieces(step_lines(step, told, 0.0, 80)[0])
    assert step_note(step, told) == "311 of 1,204 files · 41.0 MB/s · about 38 s left · numpy.conda"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (t.RunState.COMPLETED, "Completed: 1,204 added, 17 removed, 3 unchanged · generation 7"),
        (t.RunState.INCOMPLETE, "Incomplete: 2 files could not be had; 1,204 added, 17 removed, 3 unchanged"),
        (t.RunState.FAILED, "Failed: the source answers 503"),
        (t.RunState.STOPPED, "Stopped. What was verified stays stored"),
    ],
)
def test_what_came_of_a_run(run: t.Run, state: t.RunState, says: str) -> None:
    counts = t.RunCounts(added=1_204, removed=17, unchanged=3, failed=2)
    error = t.RunError(kind="upstream", message="the source answers 503")
    ended = msgspec.structs.replace(run, state=state, counts=counts, error=error, generation=7)
    assert pieces(outcome(ended)).startswith(says)


def test_a_run_that_ended_tells_its_numbers_once(run: t.Run) -> None:
    counts = t.RunCounts(added=5, failed=2)
    assert "5 added" in pieces(counts_cells(msgspec.structs.replace(run, counts=counts)))
    ended = msgspec.structs.replace(run, counts=counts, state=t.RunState.COMPLETED)
    assert pieces(counts_cells(ended)) == "2 failed"


def test_a_plan_says_what_a_run_would_do_and_what_speaks_against_it() -> None:
    result = {"adds": 1204, "removes": 0, "bytes": 0, "bytes_all": 2_100_000_000, "warnings": ["too little space"]}
    assert plan_words(result) == "add 1,204, remove 0, download now 0 B, hold in all 2.1 GB, too little space"


def test_the_newest_files_come_first() -> None:
    daemon = FakeDaemon(Path("/nowhere"))
    daemon.add_channel("main", packages=3)
    detail: t.PackageDetail = daemon._do_package_get("main", "package-000001")
    old, new = detail.files[0], msgspec.structs.replace(detail.files[1], version="9.0")
    for versions in (["9.0", old.version], [old.version, "9.0"]):
        both = msgspec.structs.replace(detail, files=[old, new], versions=versions, version="9.0")
        assert newest_first(both) == [new, old]


def test_a_list_that_is_cut_tells_how_many_there_are() -> None:
    failed = [t.FailedArtifact(part="noarch", filename=f"f{n}.conda", reason="404", attempts=3) for n in range(1000)]
    details = t.MirrorDetails(
        mirror=1,
        run=1,
        counts=t.RunCounts(failed=3_691),
        artifacts=9_000,
        stored=0,
        on_demand=9_000,
        bytes=1,
        bytes_stored=0,
        parts={"noarch": 9_000},
        failed=failed,
        failed_total=3_691,
        failed_reasons=[
            t.FailedReason(reason="the source says 404", count=3_000),
            t.FailedReason(reason="nothing came for 30 s", count=600),
        ],
        shadowed=[f"conda/p{n}" for n in range(1000)],
        shadowed_total=2_004,
        notes=[],
    )
    shown = "\n".join("".join(cell.text for cell in line) for line in [*detail_lines(details), *failure_lines(details)])
    before, _ = shown.split("f0.conda")
    assert "    3,000  the source says 404\n         600  nothing came for 30 s\n          91  for other" in before
    assert "3,691 files could not be had" in shown
    assert "and 3,491 more" in shown
    assert "2,004 names: conda/p0, " in shown
    assert "1,000" not in shown


def test_a_mirror_of_thousands_of_projects_shows_the_first() -> None:
    details = t.MirrorDetails(
        mirror=1,
        run=1,
        counts=t.RunCounts(),
        artifacts=9_000,
        stored=0,
        on_demand=9_000,
        bytes=1,
        bytes_stored=0,
        parts={f"p{number:04}": 1 for number in range(9_000)},
        failed=[],
        failed_total=0,
        shadowed=[],
        shadowed_total=0,
        notes=[],
    )
    shown = "\n".join("".join(cell.text for cell in line) for line in detail_lines(details, python=True))
    assert "projects" in shown
    assert "platforms" not in shown
    assert "p0011 1 and 8,988 more" in shown


def test_a_mirror_in_a_list_tells_how_many_files_are_missing() -> None:
    daemon = FakeDaemon(Path("/nowhere"))
    daemon.add_channel("main")
    run = daemon.begin_run(daemon.add_mirror("main", "forge").id)
    daemon.runs[run.id] = msgspec.structs.replace(run, counts=t.RunCounts(failed=3_691))
    daemon.finish(run.id, t.RunState.INCOMPLETE)
    (mirror,) = daemon.mirrors.values()
    assert (state_of(mirror).text, missing_of(mirror)) == ("! incomplete", "3,691 missing")


def test_a_frozen_channel_says_what_waits_not_that_there_is_nothing() -> None:
    daemon = FakeDaemon(Path("/nowhere"))
    draft = t.Draft(change_sets=1, added=61, removed=0)
    frozen = daemon.add_channel("main", frozen=True, draft=draft)
    assert nothing_offered(frozen).startswith("The channel is frozen with nothing in it; 61 files wait.")
    assert "no package yet" not in nothing_offered(msgspec.structs.replace(frozen, draft=None))
    assert "no package yet" in nothing_offered(daemon.add_channel("other"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (probe.UNCHECKED, "saving again takes the address without asking"),
        ("`store.scrub` reads every file", "Scrub (s) reads every file"),
        ("look at the address", "look at the address"),
    ],
)
def test_advice_speaks_of_what_is_on_the_screen(said: str, told: str) -> None:
    assert for_people(said) == told
