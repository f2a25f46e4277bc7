"""firth and a terminal that goes away: nothing of it is left behind."""

import asyncio
import signal
from pathlib import Path

import pytest

from firth_tui.hangup import STATUS
from tests.support.fake_daemon import FakeDaemon
from tests.support.pseudo import Pseudo, firth_on_pty

pytestmark = [pytest.mark.e2e]


async def ended(term: Pseudo) -> int:
    async with asyncio.timeout(10):
        return await term.process.wait()


async def test_it_ends_with_its_terminal(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("main", generation=4)
    async with daemon, firth_on_pty(daemon.socket) as term:
        await term.sees("● connected", "▸main")
        term.hang_up()
        assert await ended(term) == STATUS


async def test_it_ends_in_the_middle_of_drawing(tmp_path: Path) -> None:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    for number in range(100):
        daemon.add_channel(f"c{number:03}", generation=4)
    async with daemon, firth_on_pty(daemon.socket) as term:
        await term.sees("● connected", "▸c000")
        term.write("Gg?\x1b" * 100)
        term.hang_up()
        assert await ended(term) == STATUS


async def test_it_ends_before_it_has_drawn(tmp_path: Path) -> None:
    async with firth_on_pty(tmp_path / "nobody.sock") as term:
        term.hang_up()
        assert await ended(term) in {STATUS, 3}  # 3: there was no terminal any more when it looked for one


async def test_a_signal_ends_it(tmp_path: Path) -> None:
    async with firth_on_pty(tmp_path / "nobody.sock") as term:
        await term.sees("Firth")
        term.process.send_signal(signal.SIGHUP)
        assert await ended(term) == -signal.SIGHUP
