"""The only place that decides when somebody outside is told: gathered, at a bounded rate, beside all other work."""

import logging
import platform
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from firth_protocol.errors import FirthError, Invalid, Upstream
from firth_protocol.types import HealthProblem, NotifyTest
from firthd.clock import Clock, rfc3339
from firthd.config import NotifySettings
from firthd.notify import command, message
from firthd.notify.message import Item, Kind, Notification
from firthd.store import journal
from firthd.store.database import Database, Tx
from firthd.store.runs import RunRow
from firthd.upstream.post import post

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds between two looks at health; what happens in between is told together."""
WAITING_MOST = 100
"""Things that wait to be told; the oldest are counted only."""
BACKOFF_MOST_S = 3600.0
SUBJECT = "notify"
"""The subject in health of a hook that fails; nobody is notified of it."""
_TOLD = "notified of"

OnEnd = Callable[[Tx, RunRow], Awaitable[None]]


class Notifications:
    """Tells what runs and health have come to. `problems` gives health as it is."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        settings: NotifySettings,
        problems: Callable[[], Awaitable[Sequence[HealthProblem]]],
    ) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._problems = problems
        self._host = platform.node()
        self._waiting: deque[Item] = deque()
        self._more = 0
        self._known: frozenset[str] = frozenset()  # what is wrong as far as it has been told, or is about to be
        self._failures = 0
        self._failing: HealthProblem | None = None
        self._next = 0.0

    @property
    def wanted(self) -> bool:
        return bool(self._settings.command) or self._settings.url is not None

    def problem(self) -> HealthProblem | None:
        """Return what is to be said of a hook that fails, None when it works."""
        return self._failing

    def beside(self, on_end: OnEnd) -> OnEnd:
        """Return what is told of the end of a run: `on_end`, and this, once the end is written down."""

        async def ended(tx: Tx, row: RunRow) -> None:
            await on_end(tx, row)
            item = message.of_run(row) if self.wanted else None
            if item is not None:
                tx.after_commit(lambda: self._add(item))

        return ended

    async def serve(self) -> None:
        """Tell what there is to be told, until cancelled."""
        if not self.wanted:
            return
        known = False
        while True:
            await self._clock.sleep(LOOK_S)
            try:
                if not known:
                    told = await self._db.read(lambda r: journal.setting(r, _TOLD))
                    self._known = frozenset(msgspec.json.decode(told, type=list[str])) if told else frozenset()
                    known = True
                await self._look()
                if self._waiting and self._clock.monotonic() >= self._next:
                    await self._tell()
            except FirthError as error:
                log.warning("notifications: %s", error.message)
            except Exception:  # a hook is no reason to end the daemon
                log.exception("notifications failed unforeseen")

    async def test(self) -> NotifyTest:
        """Send a notification for a try, and say what became of it. Raises Invalid where there is no hook."""
        if not self.wanted:
            raise Invalid("nobody is notified: neither notify.command nor notify.url is set", hint="see firth.toml")
        now = self._clock.now_ms()
        item = Item(kind=Kind.TEST, time=rfc3339(now), subject="test", text="this is a test of notifications")
        began = self._clock.monotonic()
        try:
            await self._send(message.notification([item], more=0, host=self._host, now_ms=now))
        except Upstream as error:
            ok, text = False, error.message
        else:
            ok, text = True, "the notification was taken"
        return NotifyTest(ok=ok, text=text, seconds=round(self._clock.monotonic() - began, 3))

    # --- gathering

    def _add(self, item: Item) -> None:
        self._waiting.append(item)
        while len(self._waiting) > WAITING_MOST:
            self._waiting.popleft()
            self._more += 1

    async def _look(self) -> None:
        problems = [one for one in await self._problems() if one.subject != SUBJECT]
        for item in message.of_health(self._known, problems, self._clock.now_ms()):
            self._add(item)
        self._known = frozenset(one.subject for one in problems)

    # --- telling

    async def _tell(self) -> None:
        items, more, known = list(self._waiting), self._more, self._known
        now = self._clock.now_ms()
        try:
            await self._send(message.notification(items, more=more, host=self._host, now_ms=now))
        except Upstream as error:
            self._failed(error)
            return
        for item in items:
            if self._waiting and self._waiting[0] is item:
                self._waiting.popleft()
        self._more -= more
        self._failures, self._failing = 0, None
        self._next = self._clock.monotonic() + self._settings.every_s
        # Behind the telling: what a crash comes before is told again by the next daemon.
        value = msgspec.json.encode(sorted(known)).decode()
        await self._db.write(partial(journal.set_setting, key=_TOLD, value=value))

    def _failed(self, error: Upstream) -> None:
        """Say once that the hook fails; what was to be told waits."""
        pause = min(self._settings.every_s * 2**self._failures, BACKOFF_MOST_S)
        self._failures = min(self._failures + 1, 20)
        self._next = self._clock.monotonic() + pause
        text = f"notifications cannot be sent: {error.message}"
        if self._failing is None:
            log.warning(text)
        since = rfc3339(self._clock.now_ms()) if self._failing is None else self._failing.since
        hint = "look at [notify] in firth.toml; `notify.test` tries it"
        self._failing = HealthProblem(subject=SUBJECT, text=text, hint=hint, since=since)

    async def _send(self, told: Notification) -> None:
        settings = self._settings
        if settings.url is not None:
            body, media_type = message.body(told, settings.template)
            await post(settings.url, body, media_type, settings.timeout_s)
        else:
            await command.run(settings.command, msgspec.json.encode(told), settings.timeout_s)
