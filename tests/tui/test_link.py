"""The link: survives whatever the daemon does, and tells it in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firth_protocol.client import DaemonUnreachable
from firth_protocol.events import Fact
from firth_protocol.types import Channel, DaemonStatus, Event
from firth_tui.link import Link
from firth_tui.model import Connection, Listener, Stage
from tests.support.fake_daemon import FakeDaemon


class Ear(Listener):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.notes: list[str] = []
        self.fresh = 0
        self.methods: frozenset[str] = frozenset()
        self.events: list[Event] = []

    def link_changed(self, connection: Connection) -> None:
        self.stages.append(connection.stage)
        self.notes.append(connection.note)

    def link_fresh(self, status: DaemonStatus) -> None:
        self.fresh += 1

    def link_methods(self, methods: frozenset[str]) -> None:
        self.methods = methods

    def link_event(self, event: Event) -> None:
        self.events.append(event)


@asynccontextmanager
async def linked(socket: Path) -> AsyncIterator[tuple[Link, Ear]]:
    ear = Ear()
    link = Link(socket, ear, now=lambda: 0.0)
    task = asyncio.create_task(link.run())
    try:
        yield link, ear
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def daemon(tmp_path: Path) -> FakeDaemon:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("main")
    return daemon


async def test_it_connects_tells_the_methods_and_follows(daemon: FakeDaemon) -> None:
    async with daemon, linked(daemon.socket) as (link, ear):
        await until(lambda: "channel.list" in ear.methods)
        daemon.tell(Fact.CHANNEL_FROZEN, {"channel": "main"})
        await until(lambda: ear.events)
        assert ear.events[0].ids == {"channel": "main"}
        page = await link.page(Channel, "channel.list", query=None)
        assert [channel.name for channel in page.items] == ["main"]
    assert ear.stages == [Stage.CONNECTED]


async def test_a_restart_is_survived_and_no_fact_is_missed(daemon: FakeDaemon) -> None:
    async with linked(daemon.socket) as (_, ear):
        await daemon.start()
        await until(lambda: ear.methods)
        daemon.tell(Fact.CHANNEL_FROZEN, {"channel": "main"})
        await until(lambda: ear.events)
        await daemon.stop()
        await until(lambda: ear.stages[-1] is Stage.LOST)
        daemon.tell(Fact.CHANNEL_UNFROZEN, {"channel": "main"})  # while nobody listens
        await daemon.start()
        await until(lambda: len(ear.events) == 2)
        assert [event.type for event in ear.events] == [Fact.CHANNEL_FROZEN, Fact.CHANNEL_UNFROZEN]
        assert ear.fresh == 2
        await daemon.stop()


async def test_while_the_daemon_is_away_only_the_change_is_told(daemon: FakeDaemon) -> None:
    async with linked(daemon.socket) as (link, ear):
        await until(lambda: ear.stages)
        first = link.connection
        await until(lambda: link.connection is not first)  # another try
        assert ear.stages == [Stage.LOST]
        assert "cannot be reached" in link.connection.text


async def test_pauses_grow(daemon: FakeDaemon) -> None:
    async with linked(daemon.socket) as (link, _):
        pauses: list[float] = []

        def another() -> bool:
            pause = link.connection.retry_at
            if pause is not None and pause not in pauses:
                pauses.append(pause)
            return len(pauses) == 3

        await until(another)
    assert pauses == [0.25, 0.5, 1.0]


async def test_another_state_folder_is_read_anew(daemon: FakeDaemon) -> None:
    async with linked(daemon.socket) as (_, ear):
        await daemon.start()
        await until(lambda: ear.methods)
        await daemon.stop()
        daemon.epoch = "another"  # the cursor is foreign now
        await daemon.start()
        await until(lambda: ear.fresh >= 3)
        daemon.tell(Fact.CHANNEL_FROZEN, {"channel": "main"})
        await until(lambda: ear.events)
        await daemon.stop()


async def test_another_version_is_told_in_one_sentence(daemon: FakeDaemon) -> None:
    daemon.api = 2
    async with daemon, linked(daemon.socket) as (_, ear):
        await until(lambda: ear.stages)
        assert ear.stages == [Stage.CONNECTED]
        assert "bring firth up to date" in ear.notes[0]
        assert ear.notes[0].count(". ") == 0


async def test_a_call_without_a_daemon_fails_at_once(tmp_path: Path) -> None:
    link = Link(tmp_path / "nowhere", Ear(), now=lambda: 0.0)
    with pytest.raises(DaemonUnreachable):
        await link.call("channel.list")


async def test_a_reply_of_another_kind_is_an_error_and_no_crash(daemon: FakeDaemon) -> None:
    async with daemon, linked(daemon.socket) as (link, ear):
        await until(lambda: ear.methods)
        with pytest.raises(Exception, match="not what this firth expects"):
            await link.ask(DaemonStatus, "rpc.discover")
