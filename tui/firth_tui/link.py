"""The only place of the terminal UI that talks to the daemon: calls, events resumed from their cursor, reconnection.

A link never gives up: when the daemon goes away it tries again with growing pauses, at most one try in five seconds,
and tells the application only when the connection's stage changes.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, TypeVar, get_origin

from firth_protocol import API
from firth_protocol.client import Client, DaemonUnreachable
from firth_protocol.errors import CursorExpired, FirthError, Forbidden, Internal
from firth_protocol.types import DaemonStatus, Json, Page
from firth_tui.model import Connection, Listener, Stage

T = TypeVar("T")

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 5.0


class Link:
    """One application's connection; `run` lives as long as the application does."""

    def __init__(
        self,
        socket: Path,
        listener: Listener,
        *,
        now: Callable[[], float],
    ) -> None:
        self.socket = socket
        self.connection = Connection(stage=Stage.CONNECTING, since=now())
        self._listener = listener
        self._now = now
        self._client: Client | None = None
        self._cursor: str | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Keep the connection until cancelled."""
        pause = FIRST_PAUSE_S
        async with Client(self.socket) as client:
            self._client = client
            while True:
                try:
                    await self._greet()
                    pause = FIRST_PAUSE_S
                    await self._follow(client)
                except CursorExpired:
                    self._cursor = None  # events were missed: everything is read anew
                except (DaemonUnreachable, FirthError) as error:
                    self._gone(error, pause)
                    await self._pause(pause)
                    pause = min(pause * 2, LONGEST_PAUSE_S)

    async def call(self, method: str, /, **params: Any) -> Any:
        """Call a method; raises FirthError, or DaemonUnreachable at once while there is no connection."""
        if self._client is None:
            raise DaemonUnreachable("the daemon does not answer yet")
        return await self._client.call(method, **params)

    async def ask(self, kind: type[T], method: str, /, **params: Any) -> T:
        """Call a method whose result is a `kind`."""
        result = await self.call(method, **params)
        if not isinstance(result, get_origin(kind) or kind):
            raise Internal(f"the daemon's reply to {method} is not what this firth expects")
        return result

    async def page(self, kind: type[T], method: str, /, **params: Any) -> Page[T]:
        """Read a page of `kind`."""
        page = await self.call(method, **{name: value for name, value in params.items() if value is not None})
        if not isinstance(page, Page) or not all(isinstance(item, kind) for item in page.items[:1]):
            raise Internal(f"the daemon's reply to {method} is not what this firth expects")
        return page

    def retry_now(self) -> None:
        """Try to connect at once."""
        self._wake.set()

    async def _greet(self) -> None:
        status = await self.ask(DaemonStatus, "daemon.status")
        self._set(Connection(stage=Stage.CONNECTED, since=self._now(), note=_version_note(status)))
        self._cursor = self._cursor or status.as_of
        self._listener.link_fresh(status)
        document: Json = await self.ask(dict, "rpc.discover")
        offered = document.get("methods")
        if isinstance(offered, list):
            names = [row.get("name") for row in offered if isinstance(row, dict)]
            self._listener.link_methods(frozenset(name for name in names if isinstance(name, str)))

    async def _follow(self, client: Client) -> None:
        async with aclosing(client.follow(after=self._cursor)) as events:
            async for event in events:
                self._cursor = event.cursor or self._cursor
                self._listener.link_event(event)

    def _gone(self, error: DaemonUnreachable | FirthError, pause: float) -> None:
        stage = Stage.LOST
        if isinstance(error, FirthError) and not error.retryable:
            stage = Stage.REFUSED if isinstance(error, Forbidden) else Stage.FOREIGN
        text = f"{error}: {error.hint}" if isinstance(error, FirthError) and error.hint else str(error)
        since = self.connection.since if self.connection.stage is stage else self._now()
        self._set(Connection(stage=stage, since=since, text=text, retry_at=self._now() + pause))

    def _set(self, connection: Connection) -> None:
        changed = connection.stage is not self.connection.stage or connection.note != self.connection.note
        self.connection = connection
        if changed:
            self._listener.link_changed(connection)

    async def _pause(self, seconds: float) -> None:
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()


def _version_note(status: DaemonStatus) -> str:
    """Return one sentence when daemon and terminal speak different protocols."""
    if status.api == API:
        return ""
    older = "firth" if status.api > API else "firthd"
    return (
        f"firthd speaks protocol {status.api}, this firth speaks {API}: bring {older} up to date; what both know works."
    )
