"""Worker processes: what goes in, what comes back, and how they end. The tasks are real ones of the conda family."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firth_protocol.errors import TooLarge, Upstream, WorkerLost
from firthd.clock import SystemClock
from firthd.families.base import Spool
from firthd.families.conda.family import CONDA
from firthd.index.messages import ReadParams, ReadResult
from firthd.worker import STAYS_BYTES, TaskProgress, check_task, no_room
from firthd.workers import STANDING_BACK, YIELDING, Workers, memory_for, stand_back
from tests.support.conda import sample_channel
from tests.support.conda_state import CondaState

READ = "firthd.index.read:read_task"
SECRET = "of-the-daemon"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; the test's own time limit ends a wait in vain."""
    while not condition():
        await asyncio.sleep(0.01)


def children_of(parent: int) -> list[int]:
    """Return the ids of a process's children that are not yet reaped."""
    found: list[int] = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def workers_of(parent: int) -> list[int]:
    """Return the children that have come as far as being a worker."""
    found: list[int] = []
    for child in children_of(parent):
        with contextlib.suppress(OSError):
            if b"firthd.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@pytest.fixture
def state(tmp_path: Path) -> CondaState:
    return CondaState(tmp_path)


@pytest.fixture
def workers() -> Workers:
    return Workers(1, SystemClock())


def params(state: CondaState, spool: Path | None, *, db: Path | None = None) -> ReadParams:
    return ReadParams(
        state_db=str(db or state.db),
        run_file=str(state.next_path("run")),
        channel_id=1,
        mirror_id=1,
        formats=CONDA.formats,
        spools=[Spool(part="noarch", file=str(spool) if spool else None, encoding="json")],
    )


@asynccontextmanager
async def stuck(workers: Workers, state: CondaState) -> AsyncIterator[tuple[asyncio.Task[ReadResult], int]]:
    """A task that waits for a pipe nobody writes to, with the id of its process."""
    fifo = state.next_path("fifo")
    os.mkfifo(fifo)
    before = set(workers_of(os.getpid()))
    task = asyncio.create_task(workers.run(READ, params(state, fifo), ReadResult))

    def waiting() -> list[int]:
        new = set(workers_of(os.getpid())) - before
        return [pid for pid in new if os.getpriority(os.PRIO_PROCESS, pid) > 0 and run_file_is_there()]

    def run_file_is_there() -> bool:
        return (state.folder / f"run-{state._serial}").exists()

    try:
        await until(lambda: bool(waiting()))
        yield task, waiting()[0]
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_result_and_progress_come_back(workers: Workers, state: CondaState, tmp_path: Path) -> None:
    channel = sample_channel(tmp_path / "channel")
    told: list[TaskProgress] = []
    asked = params(state, channel.path / "noarch" / "repodata.json")
    result = await workers.run(READ, asked, ReadResult, progress=told.append)
    assert [(part.part, part.added) for part in result.parts] == [("noarch", 4)]
    assert told == [TaskProgress(0, 4, "records", "noarch: 0 of 4 read")]
    assert workers.last_peak_rss_bytes is not None
    assert 10e6 < workers.last_peak_rss_bytes < 200e6


async def test_task_that_needs_too_much_memory_is_told_with_its_setting(state: CondaState, tmp_path: Path) -> None:
    spool = tmp_path / "index"
    with spool.open("wb") as file:  # each record costs a hundred times its own length
        file.write(b'{"packages": {' + b",".join(b'"%d": {}' % number for number in range(3_000_000)) + b"}}")
    small = Workers(1, SystemClock(), memory_bytes=memory_for(0))
    with pytest.raises(TooLarge, match="more memory than the 256") as caught:
        await small.run(READ, params(state, spool), ReadResult)
    assert "upstream.max_index_bytes" in caught.value.hint
    spool.write_text("{}")
    assert (await small.run(READ, params(state, spool), ReadResult)).parts[0].records == 0


async def test_error_of_the_task_is_raised_again(workers: Workers, state: CondaState, tmp_path: Path) -> None:
    spool = tmp_path / "index"
    spool.write_text("<html>")
    with pytest.raises(Upstream) as caught:
        await workers.run(READ, params(state, spool), ReadResult)
    assert caught.value.data == {"subdir": "noarch"}
    assert "damaged" in caught.value.hint
    assert workers_of(os.getpid()) == []


async def test_unforeseen_error_is_a_lost_worker_whose_words_go_to_the_log(
    workers: Workers, state: CondaState, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(WorkerLost, match="exit code 1") as caught:
        await workers.run(READ, params(state, None, db=tmp_path / "absent.db"), ReadResult)
    assert "absent.db" not in str(caught.value.wire())
    (lost,) = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert "unable to open database file" in lost.getMessage()


async def test_killed_worker_is_lost_and_the_next_one_works(workers: Workers, state: CondaState) -> None:
    async with stuck(workers, state) as (task, pid):
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLost, match="SIGKILL"):
            await task
    result = await workers.run(READ, params(state, None), ReadResult)
    assert result.parts[0].records == 0


async def test_cancelling_kills_the_process_at_once(workers: Workers, state: CondaState) -> None:
    async with stuck(workers, state) as (task, pid):
        task.cancel()
        async with asyncio.timeout(1):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not Path(f"/proc/{pid}").exists(), "dead and reaped"


async def test_slots_bound_how_many_work_at_once(workers: Workers, state: CondaState) -> None:
    async with stuck(workers, state) as (first, pid):
        told: list[TaskProgress] = []
        second = asyncio.create_task(workers.run(READ, params(state, None), ReadResult, progress=told.append))
        for _ in range(20):
            await asyncio.sleep(0)
        assert workers_of(os.getpid()) == [pid]
        assert [one.description for one in told] == ["waits for a free place: another run's index task is at work"]
        first.cancel()
        assert (await second).parts[0].records == 0


async def test_child_has_no_sockets_and_little_environment(
    workers: Workers, state: CondaState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRTH_SECRET", SECRET)
    with socket.socket(socket.AF_UNIX) as held:
        held.set_inheritable(True)
        held.bind(str(state.folder / "socket"))
        async with stuck(workers, state) as (_, pid):
            open_files = {number.name: str(number.readlink()) for number in Path(f"/proc/{pid}/fd").iterdir()}
            environment = Path(f"/proc/{pid}/environ").read_text()
            niceness = os.getpriority(os.PRIO_PROCESS, pid)
    ours = {number for number, target in open_files.items() if int(number) > 2 and target.startswith("socket:")}
    assert ours == set()
    assert SECRET not in environment
    assert niceness == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 15)


@pytest.mark.parametrize("wanted", [YIELDING, STANDING_BACK])
async def test_a_worker_with_less_to_do_stands_further_back(wanted: int) -> None:
    process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, start_new_session=True)
    try:
        before = os.getpriority(os.PRIO_PROCESS, process.pid)
        while not await asyncio.to_thread(stand_back, process.pid, wanted):
            pass  # a moment after another worker
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == (YIELDING if wanted == YIELDING else before)
        shared_out = Path(f"/proc/{process.pid}/autogroup")
        assert not shared_out.exists() or shared_out.read_text().split()[-1] == str(wanted)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def one_ready(workers: Workers, state: CondaState) -> AsyncIterator[int]:
    """A process that waits for a task, behind one that is done."""
    keeping = asyncio.create_task(workers.keep_ready())
    try:
        await workers.run(READ, params(state, None), ReadResult)
        await until(lambda: len(workers_of(os.getpid())) == 1)
        yield workers_of(os.getpid())[0]
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
    assert workers_of(os.getpid()) == []


async def test_the_process_that_did_a_small_task_does_the_next_ones(workers: Workers, state: CondaState) -> None:
    async with one_ready(workers, state) as waiting:
        for _ in range(3):
            open_files = sorted(Path(f"/proc/{waiting}/fd").iterdir())
            assert (await workers.run(READ, params(state, None), ReadResult)).parts[0].records == 0
            await until(lambda: workers_of(os.getpid()) == [waiting])
            assert sorted(Path(f"/proc/{waiting}/fd").iterdir()) == open_files


async def test_one_that_failed_does_no_other_task_and_another_one_waits(
    workers: Workers, state: CondaState, tmp_path: Path
) -> None:
    spool = tmp_path / "index"
    spool.write_text("<html>")
    async with one_ready(workers, state) as waiting:
        with pytest.raises(Upstream):
            await workers.run(READ, params(state, spool), ReadResult)
        assert not Path(f"/proc/{waiting}").exists(), "it is reaped"
        assert (await workers.run(READ, params(state, None), ReadResult)).parts[0].records == 0
        await until(lambda: len(workers_of(os.getpid())) == 1)


async def test_one_that_had_much_memory_does_no_other_task(workers: Workers, state: CondaState, tmp_path: Path) -> None:
    spool = tmp_path / "index"
    with spool.open("wb") as file:
        file.write(b'{"info": {"note": "' + b"x" * STAYS_BYTES + b'"}}')
    async with one_ready(workers, state) as waiting:
        await workers.run(READ, params(state, spool), ReadResult)
        assert workers.last_peak_rss_bytes is not None
        assert workers.last_peak_rss_bytes > STAYS_BYTES
        assert not Path(f"/proc/{waiting}").exists()
        await workers.run(READ, params(state, None), ReadResult)
        assert workers.last_peak_rss_bytes < STAYS_BYTES


async def test_one_that_stands_further_back_does_no_other_task(workers: Workers, state: CondaState) -> None:
    async with one_ready(workers, state) as waiting:
        await workers.run(READ, params(state, None), ReadResult, yielding=True)
        assert not Path(f"/proc/{waiting}").exists()


async def test_a_process_is_made_ready_behind_a_task_that_takes_long(workers: Workers, state: CondaState) -> None:
    fifo = state.next_path("fifo")
    os.mkfifo(fifo)
    async with one_ready(workers, state) as waiting:
        task = asyncio.create_task(workers.run(READ, params(state, fifo), ReadResult))
        await until(lambda: len(workers_of(os.getpid())) == 2)
        task.cancel()
        await asyncio.wait([task])
        assert not Path(f"/proc/{waiting}").exists()
        assert len(workers_of(os.getpid())) == 1


async def test_where_the_process_that_waited_is_lost_another_one_does_the_task(
    workers: Workers, state: CondaState
) -> None:
    async with one_ready(workers, state) as waiting:
        os.kill(waiting, signal.SIGKILL)
        while alive(waiting):  # nobody in this process is told yet
            continue
        assert (await workers.run(READ, params(state, None), ReadResult)).parts[0].records == 0


async def test_child_dies_with_the_daemon(state: CondaState) -> None:
    fifo = state.next_path("fifo")
    os.mkfifo(fifo)
    code = f"""
import asyncio
from firthd.clock import SystemClock
from firthd.families.base import Spool
from firthd.families.conda.family import CONDA
from firthd.index.messages import ReadParams, ReadResult
from firthd.workers import Workers
params = ReadParams(state_db={str(state.db)!r}, run_file={str(state.folder / "orphan.run")!r}, channel_id=1,
                    mirror_id=1, formats={CONDA.formats!r},
                    spools=[Spool(part="noarch", file={str(fifo)!r}, encoding="json")])
async def both():
    workers = Workers(1, SystemClock())
    await asyncio.gather(workers.keep_ready(), workers.run({READ!r}, params, ReadResult))
asyncio.run(both())
"""
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    try:
        await until(lambda: (state.folder / "orphan.run").exists())
        await until(lambda: len(workers_of(daemon.pid)) == 2)  # one is at work, one waits
        started = workers_of(daemon.pid)
        daemon.kill()
        await until(lambda: not any(map(alive, started)))
    finally:
        with contextlib.suppress(ProcessLookupError):
            daemon.kill()
        await daemon.wait()


@pytest.mark.parametrize("task", ["os:system", "firthd.workers:main", "firthd.index.read", "firthd.store.x:y:z"])
def test_only_tasks_of_families_and_store_are_run(task: str) -> None:
    with pytest.raises(ValueError, match="no worker task"):
        check_task(task)


def test_a_worker_loads_little() -> None:
    modules = "firthd.worker, firthd.index.read, firthd.index.render, firthd.families.conda.formats"
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=9)
    heavy = {"aiohttp", "uvloop", "textual", "aiosqlite", "croniter", "asyncio", "ssl", "rattler"}
    assert set(done.stdout.split()) & heavy == set()


def test_a_child_whose_parent_is_another_by_now_ends_at_once() -> None:
    environ = {**os.environ, "FIRTHD_PID": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "firthd.worker", READ], env=environ, input=b"{}", capture_output=True, timeout=8
    )
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_task_that_a_full_disk_ends_says_so() -> None:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as small:
        small.execute("PRAGMA max_page_count = 1")
        try:
            try:
                small.execute("CREATE TABLE t (a)")
            finally:
                small.execute("COMMIT")  # as whoever closes a file does, and fails as well
        except sqlite3.OperationalError as error:
            found = no_room(error)
    assert found is not None
    assert found.message == "the disk is full"
    assert no_room(OSError(errno.EDQUOT, "quota")) is not None
    assert no_room(OSError(errno.EIO, "broken")) is None
