"""What an event changes in what is shown."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol.events import PROGRESS, Fact
from firth_protocol.types import Event, LogLine, RunState, StepName, StepState
from firth_tui.model import History, Live, LogLines, progress_of, touched, with_progress, worst_first
from tests.support.fake_daemon import FakeDaemon


@pytest.fixture
def world() -> FakeDaemon:
    daemon = FakeDaemon(Path("/nowhere"))
    daemon.add_channel("main")
    return daemon


def event(kind: str, ids: dict[str, Any], data: dict[str, Any] | None = None) -> Event:
    return Event(time="2026-11-22T12:00:00.000Z", topic=kind.split(".")[0], type=kind, ids=ids, data=data or {})


def progress(run: int, mirror: int, **data: Any) -> Event:
    return event(PROGRESS, {"run": run, "mirror": mirror, "channel": "main"}, {"name": "download", **data})


def test_progress_is_known_by_run_and_by_mirror(world: FakeDaemon) -> None:
    mirror = world.add_mirror("main", "forge")
    run = world.begin_run(mirror.id)
    live = Live()
    live.apply(progress(run.id, mirror.id, done=3, total=9, rate_bytes_s=5.0))
    found = live.of_mirror(world.mirrors[mirror.id])
    assert found is not None
    assert (found.name, found.done, found.total) == (StepName.DOWNLOAD, 3, 9)
    assert live.of_run(run.id) == found
    assert live.rate_bytes_s == 5.0


def test_a_finished_run_has_no_progress(world: FakeDaemon) -> None:
    mirror = world.add_mirror("main", "forge")
    run = world.begin_run(mirror.id)
    live = Live()
    live.apply(progress(run.id, mirror.id, done=3))
    live.apply(event(Fact.RUN_FINISHED, {"run": run.id, "mirror": mirror.id}))
    assert live.of_run(run.id) is None
    assert live.of_mirror(world.mirrors[mirror.id]) is None


def test_progress_of_an_older_run_is_not_the_mirrors(world: FakeDaemon) -> None:
    mirror = world.add_mirror("main", "forge")
    first = world.begin_run(mirror.id)
    live = Live()
    live.apply(progress(first.id, mirror.id, done=3))
    second = world.begin_run(mirror.id)
    world.finish(second.id)
    assert live.of_mirror(world.mirrors[mirror.id]) is None


@pytest.mark.parametrize("data", [{"name": "no such step"}, {"done": "many"}, {"name": 7}])
def test_progress_that_cannot_be_read_is_left_out(data: dict[str, Any]) -> None:
    assert progress_of(data) is None


def test_ids_of_an_unexpected_kind_count_as_absent() -> None:
    about = touched(event("run.step", {"run": "many", "mirror": None, "channel": 5}))
    assert (about.run, about.mirror, about.channel) == (None, None, None)


def test_a_run_takes_over_its_progress(world: FakeDaemon) -> None:
    run = world.begin_run(world.add_mirror("main", "forge").id)
    told = progress_of({"name": "filter", "state": "running", "done": 5, "total": 10, "rate_bytes_s": 2.0})
    assert told is not None
    after = with_progress(run, told)
    step = next(step for step in after.steps if step.name is StepName.FILTER)
    assert (step.state, step.done, step.total) == (StepState.RUNNING, 5, 10)
    assert after.step is StepName.FILTER


def test_progress_that_comes_late_does_not_wake_an_ended_run(world: FakeDaemon) -> None:
    run = world.begin_run(world.add_mirror("main", "forge").id)
    ended = msgspec.structs.replace(run, state=RunState.FAILED)
    told = progress_of({"name": "filter", "done": 5})
    assert told is not None
    assert with_progress(ended, told) is ended


@pytest.mark.parametrize(
    ("kind", "channels", "mirrors", "content"),
    [
        (Fact.CHANNEL_FROZEN, True, False, True),
        (Fact.CHANNEL_PUBLISHED, True, False, True),
        (Fact.MIRROR_CREATED, True, True, False),
        (Fact.RUN_STEP, False, False, False),
        (Fact.RUN_FINISHED, True, False, False),
    ],
)
def test_what_a_fact_makes_stale(kind: Fact, channels: bool, mirrors: bool, content: bool) -> None:
    about = touched(event(kind, {"channel": "main"}))
    assert (about.changes_channels, about.changes_lists_of_mirrors, about.changes_content) == (
        channels,
        mirrors,
        content,
    )


def line(number: int, text: str = "x") -> LogLine:
    return LogLine(number=number, time="2026-11-22T12:00:00.000Z", level="info", step=None, text=text)


def test_a_log_takes_each_line_once() -> None:
    log = LogLines()
    assert log.add([line(1), line(2)]) == 2
    assert log.add([line(2), line(3)]) == 1
    assert [each.number for each in log.lines] == [1, 2, 3]


def test_a_search_goes_round() -> None:
    log = LogLines()
    log.add([line(1, "Alpha"), line(2, "beta"), line(3, "ALPHA again")])
    assert log.find("alpha", -1) == 0
    assert log.find("alpha", 0) == 2
    assert log.find("alpha", 2) == 0
    assert log.find("gamma", -1) is None


def test_history_keeps_the_newest() -> None:
    history = History(most=3)
    for value in (1.0, 2.0, 3.0, -4.0):
        history.add(value)
    assert history.last(2) == [3.0, 0.0]
    assert history.last(9) == [2.0, 3.0, 0.0]


def test_failed_mirrors_come_first_then_those_without_success_for_long(world: FakeDaemon) -> None:
    well = world.add_mirror("main", "well", state=RunState.COMPLETED, last_success_age_s=10.0)
    stale = world.add_mirror("main", "stale", state=RunState.COMPLETED, last_success_age_s=9e6)
    failed = world.add_mirror("main", "failed", state=RunState.FAILED)
    lacking = world.add_mirror("main", "lacking", state=RunState.INCOMPLETE)
    assert worst_first([well, stale, failed, lacking]) == [failed, lacking, stale, well]
