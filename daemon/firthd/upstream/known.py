"""The only place that remembers how each host answered: how often, how fast, and what went wrong last."""

from msgspec import Struct

from firth_protocol.errors import Upstream
from firthd.clock import Clock
from firthd.upstream.rate import Meter

HOSTS_KEPT = 200
"""Redirects name hosts too: those that were asked longest ago are forgotten."""
_FAILED_FROM, _TOO_MANY = 500, 429


class HostMeter(Meter):
    """Counts the bytes of one host, and all of them for the meter of all hosts."""

    def __init__(self, clock: Clock, all_hosts: Meter) -> None:
        super().__init__(clock)
        self._all_hosts = all_hosts

    def add(self, size: int) -> None:
        super().add(size)
        self._all_hosts.add(size)


class Told(Struct, frozen=True, kw_only=True):
    """What is known of a host; times are milliseconds."""

    host: str
    rate_bytes_s: float
    answers: int
    failures: int
    answered_at: int | None
    status: int | None
    failed_at: int | None
    failure: str
    fails: bool  # the last thing that it did


class Known:
    """What became of asking one host."""

    def __init__(self, host: str, clock: Clock, all_hosts: Meter) -> None:
        self._host = host
        self._clock = clock
        self.meter = HostMeter(clock, all_hosts)
        self._answers = self._failures = 0
        self._answered_at: int | None = None
        self._status: int | None = None
        self._failed_at: int | None = None
        self._failure = ""
        self._fails = False

    def answered(self, status: int) -> None:
        """Count an answer."""
        self._answers += 1
        self._fails = False
        self._status, self._answered_at = status, self._clock.now_ms()
        if failing(status):
            self._fail(f"{self._host} answered {status}")

    def broke(self, error: Upstream) -> None:
        """Count what was no answer, or broke off; an answer whose status is the trouble has been counted."""
        if error.data.get("status") is None:
            self._fail(error.message)

    def _fail(self, text: str) -> None:
        self._failures += 1
        self._fails = True
        self._failure, self._failed_at = text, self._clock.now_ms()

    @property
    def told(self) -> Told:
        return Told(
            host=self._host,
            rate_bytes_s=self.meter.bytes_s(),
            answers=self._answers,
            failures=self._failures,
            answered_at=self._answered_at,
            status=self._status,
            failed_at=self._failed_at,
            failure=self._failure,
            fails=self._fails,
        )


class KnownHosts:
    """Every host that was asked lately."""

    def __init__(self, clock: Clock, all_hosts: Meter) -> None:
        self._clock = clock
        self._all_hosts = all_hosts
        self._hosts: dict[str, Known] = {}  # that asked longest ago first

    def asking(self, host: str) -> Known:
        """Return what is known of a host that is asked now."""
        known = self._hosts.pop(host, None) or Known(host, self._clock, self._all_hosts)
        self._hosts[host] = known
        if len(self._hosts) > HOSTS_KEPT:
            self._hosts.pop(next(iter(self._hosts)))
        return known

    def told(self) -> list[Told]:
        """Return what is known: hosts that failed last come first, then those asked last."""
        found = [known.told for known in reversed(self._hosts.values())]
        return sorted(found, key=lambda one: not one.fails)


def failing(status: int) -> bool:
    """Tell whether a status says that the host is not well, and not that it lacks what was asked for."""
    return status >= _FAILED_FROM or status == _TOO_MANY
