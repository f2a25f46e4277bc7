"""The only place that follows a run to its end, in one line on stderr."""

from collections.abc import Callable
from typing import Any, TextIO

from firth_protocol.ctl.exits import Exit, Unreachable
from firth_protocol.ctl.output import clean, cut
from firth_protocol.ctl.transport import Daemon
from firth_protocol.describe import fields_of
from firth_protocol.errors import FirthError, Unavailable
from firth_protocol.methods import METHODS
from firth_protocol.types import RunState, StepName
from firth_protocol.units import rate

POLL_S = 1.0
PATIENCE_S = 30.0
"""How long the daemon may be away while a run is followed: it may be restarted meanwhile."""

_FOLLOWED = ("run", "runs")

Run = dict[str, Any]


class Line:
    """The line that tells a run's progress: rewritten on a terminal, else written when there is news."""

    def __init__(self, stream: TextIO, width: int | None) -> None:
        self._stream = stream
        self._width = width
        self._told = ""
        self._open = False

    def show(self, text: str, news: str) -> None:
        """Show progress; without a terminal only when `news` differs from the last time."""
        if self._width is not None:
            self._stream.write(f"\r{cut(clean(text), self._width - 1)}\x1b[K")
            self._open = True
        elif news != self._told:
            self._stream.write(clean(text) + "\n")
        self._told = news
        self._stream.flush()

    def end(self, text: str) -> None:
        """Show the outcome and go to the next line."""
        self._stream.write(f"\r\x1b[K{clean(text)}\n" if self._open else f"{clean(text)}\n")
        self._open = False
        self._stream.flush()


def follow(daemon: Daemon, run_id: int, line: Line, sleep: Callable[[float], None]) -> Run:
    """Return the run once it has ended; raise Unreachable when the daemon stays away, and the tree's errors."""
    away = 0.0
    while True:
        try:
            run: Run = daemon.call("run.wait", {"run": run_id, "timeout": POLL_S})
        except (Unreachable, Unavailable) as error:
            if away >= PATIENCE_S:
                raise Unreachable(f"{error}; run {run_id} was not seen to its end") from error
            line.show(f"run {run_id}: the daemon is away, waiting for it", "away")
            sleep(POLL_S)
            away += POLL_S
            continue
        away = 0.0
        state = RunState(run["state"])
        if state.ended:
            line.end(outcome_text(run))
            return run
        line.show(progress_text(run), f"{state} {run.get('step')}")


def refresh(daemon: Daemon, result: dict[str, Any], say: Callable[[str], None]) -> None:
    """Put the objects of a reply as they are now in the place of those that stood there before its run."""
    for name, before in result.items():
        getter = METHODS.get(f"{name}.get")
        if getter is None or name in _FOLLOWED or not isinstance(before, dict):
            continue
        ref = next(field for field in fields_of(getter.params) if field.required)
        try:
            now = daemon.call(getter.name, {ref.name: before["id" if ref.takes_number else "name"]})
        except FirthError as error:
            say(f"{name} is told as it was before the run: {error.message}")
        else:
            result[name] = {key: now.get(key, value) for key, value in before.items()}


def exit_of(runs: list[Run]) -> Exit:
    """Return the exit status that runs lead to: the worst of them."""
    states = {RunState(run["state"]) for run in runs}
    if states & {RunState.FAILED, RunState.STOPPED}:
        return Exit.ERROR
    if not all(state.ended for state in states):
        return Exit.UNFINISHED
    return Exit.INCOMPLETE if RunState.INCOMPLETE in states else Exit.DONE


def progress_text(run: Run) -> str:
    """Return one line about a run that has not ended."""
    parts = [f"run {run['id']}", _subject(run)]
    if run["state"] == RunState.PENDING:
        parts.append(f"waits for {run['waiting_for']}" if run.get("waiting_for") else "waits")
        return "  ".join(parts)
    if run["state"] == RunState.STOPPING:
        parts.append("stopping")
    step = next((step for step in run.get("steps", []) if step["name"] == run.get("step")), None)
    if step is not None:
        parts.append(f"{step['number']}/{len(StepName)} {step['description'] or step['title']}")
    if run.get("rate_bytes_s"):
        parts.append(rate(run["rate_bytes_s"]))
    if run.get("eta_s") is not None:
        parts.append(f"{_duration(run['eta_s'])} left")
    return "  ".join(parts)


def outcome_text(run: Run) -> str:
    """Return one line about a run that has ended: how, what it did, and what to do when it went wrong."""
    counts = run.get("counts", {})
    numbers = [f"{counts[name]} {name}" for name in ("added", "removed", "failed") if counts.get(name)]
    if run.get("generation"):
        numbers.append(f"generation {run['generation']}")
    text = f"run {run['id']}  {_subject(run)}  {run['state']}"
    if numbers:
        text += f": {', '.join(numbers)}"
    error = run.get("error")
    if error:
        text += f"; {error.get('message', '')}" + (f" ({error['hint']})" if error.get("hint") else "")
    return text


def _subject(run: Run) -> str:
    mirror = run.get("mirror_name")
    return f"{run['channel']}:{mirror}" if mirror else str(run["channel"])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
