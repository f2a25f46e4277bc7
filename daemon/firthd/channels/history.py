"""The only place that decides how long what has happened is remembered: runs, logs, audit, generations of old."""

from firthd.clock import Clock
from firthd.config import StoreSettings
from firthd.store import catalog, dropped, history
from firthd.store.database import Database

DAY_MS = 86_400_000
LOOK_MS = DAY_MS
"""How often it is looked through what generations have left: it reads what was closed and is not forgotten yet."""


class History:
    """Forgets what is older than the settings say."""

    def __init__(self, db: Database, clock: Clock, settings: StoreSettings) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._look_at = 0

    def _before(self, days: int) -> int:
        return self._clock.now_ms() - days * DAY_MS

    async def forget_logs(self) -> None:
        await history.forget_logs(self._db, self._before(self._settings.logs_days))

    async def forget_runs(self) -> None:
        await history.forget_runs(self._db, self._before(self._settings.runs_days))

    async def forget_audit(self) -> None:
        await history.forget_audit(self._db, self._before(self._settings.audit_days))

    async def forget_generations(self) -> None:
        """Let go, once a day, of what only generations that are no longer kept showed, and of their lines."""
        now = self._clock.now_ms()
        if now < self._look_at:
            return
        # A file in its grace period is found by the generation that retired it.
        listed = self._before(max(self._settings.runs_days, self._settings.grace_days + 1))
        for channel in await self._db.read(catalog.all_channels):
            await dropped.forget_rows(self._db, channel.id, now - self._settings.grace_ms)
            await dropped.forget_generations(self._db, channel.id, listed)
        self._look_at = now + LOOK_MS
