"""A daemon for tests: inside the test's own loop, or as a real process that can be killed and started again."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from firth_protocol.client import Client, DaemonUnreachable
from firth_protocol.errors import FirthError
from firth_protocol.types import Family, Run
from firthd.clock import Clock, SystemClock
from firthd.config import RunSettings, Settings, StoreSettings, UpstreamSettings, WebSettings
from firthd.families import families as all_families
from firthd.families.base import FamilyRules
from firthd.service import Daemon, running
from tests.support.bound import ends_with


class HastyClock(SystemClock):
    """The machine's clock, but pauses between attempts last a hundredth of their time; `shift_ms` moves the date."""

    def __init__(self) -> None:
        self.shift_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.shift_ms

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds / 100)


class Running(Struct, frozen=True, kw_only=True):
    """A daemon that works inside the test's loop."""

    daemon: Daemon
    client: Client
    socket: Path
    url: str
    state: Path

    async def run(self, mirror: int | str, **params: object) -> Run:
        """Run a mirror and wait for the end."""
        reply = await self.client.call("mirror.run", mirror=mirror, **params)
        return await self.ended(reply.run.id)

    async def ended(self, run: int) -> Run:
        """Wait for a run to end."""
        found: Run = await self.client.call("run.wait", run=run, timeout=60)
        assert found.state.ended, found
        return found


def settings_in(folder: Path, *, runs: RunSettings | None = None, upstream: UpstreamSettings | None = None) -> Settings:
    """Return settings for a daemon that lives in a folder and listens on a free port; it uses the disk to the end."""
    return Settings(
        state=folder / "state",
        socket=folder / "firth.sock",
        web=WebSettings(listen="127.0.0.1:0"),
        store=StoreSettings(floor_percent=0),
        runs=runs or RunSettings(),
        upstream=upstream or UpstreamSettings(timeout_s=5),
    )


@asynccontextmanager
async def in_process_daemon(
    folder: Path,
    *,
    settings: Settings | None = None,
    clock: Clock | None = None,
    families: Callable[[], Mapping[Family, FamilyRules]] = all_families,
) -> AsyncIterator[Running]:
    """Give a daemon with a connected client; both end with the block."""
    settings = settings or settings_in(folder)
    async with (
        running(settings, clock=clock or HastyClock(), families=families) as daemon,
        Client(settings.socket) as client,
    ):
        yield Running(daemon=daemon, client=client, socket=settings.socket, url=daemon.base_url(), state=settings.state)


class DaemonProcess:
    """firthd as a process of its own, in a folder; stderr is kept in `log`.

    `settings` is what stands in firth.toml. `within` is a command that runs the one that follows it, such as a shell
    that sets a limit first; `module` is what the interpreter runs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environ: dict[str, str] | None = None,
        settings: str | None = None,
        within: tuple[str, ...] = (),
        module: str = "firthd",
    ) -> None:
        self._module = module
        self.folder = folder
        self.socket = folder / "firth.sock"
        self.state = folder / "state"
        self.log = folder / "firthd.log"
        self._environ = environ or {}
        self._within = within
        self._clients: list[Client] = []
        if settings is not None:
            (folder / "firth.toml").write_text(settings)
            self._environ["FIRTH_CONFIG"] = str(folder / "firth.toml")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def launch(self) -> None:
        """Start the process, and wait for nothing."""
        environ = {
            **os.environ,
            "FIRTH_STATE": str(self.state),
            "FIRTH_SOCKET": str(self.socket),
            "FIRTH_LISTEN": "127.0.0.1:0",
            **self._environ,
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._within,
                sys.executable,
                "-m",
                self._module,
                env=environ,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                preexec_fn=ends_with(os.getpid()),
            )

    async def start(self) -> Client:
        """Start the process and wait until it answers; return an entered client that the caller closes."""
        await self.launch()
        assert self._process is not None
        async with asyncio.timeout(30):
            while True:
                if self._process.returncode is not None:
                    raise AssertionError(f"firthd ended: {self.log.read_text('utf-8')[-2000:]}")
                client = await Client(self.socket).__aenter__()
                try:
                    await client.call("daemon.status")
                except (DaemonUnreachable, FirthError, OSError):
                    await client.__aexit__(None, None, None)
                    await asyncio.sleep(0.02)  # a condition of another process: there is nothing to wait on
                else:
                    self._clients.append(client)
                    return client

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def url(self, client: Client) -> str:
        status = await client.call("daemon.status")
        return str(status.addresses[0])

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def terminate(self) -> int:
        """SIGTERM; return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            return await self._process.wait()

    async def __aenter__(self) -> "DaemonProcess":
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:  # those that a failed test has left open
            await client.close()
        if self.alive:
            await self.kill()
