"""The only place that ends all open runs of what is about to be deleted, and refuses while one goes on."""

from collections.abc import Callable
from typing import Protocol

from firth_protocol.errors import WrongState
from firth_protocol.types import Run
from firthd.store import runs
from firthd.store.database import Database
from firthd.store.runs import RunRow

STOP_S = 5.0
"""Seconds within which a run stops."""


class Stoppable(Protocol):
    """The queue of runs."""

    async def stop(self, run_id: int) -> tuple[Run, int]:
        """Ask a run to end; raise WrongState when it has."""

    async def wait(self, run_id: int, timeout_s: float | None = None) -> Run:
        """Wait for a run's end, or for so long."""


async def halt(db: Database, queue: Stoppable, meant: Callable[[RunRow], bool], timeout_s: float = STOP_S) -> None:
    """End every open run that is meant, those that wait as well; raise WrongState when one has not ended in time."""
    # Read in the writer's turn: a run queued a moment ago may not be committed yet, a later one is refused.
    for run in await db.write(runs.open_runs):
        if not meant(run):
            continue
        try:
            await queue.stop(run.id)
        except WrongState:
            continue
        if not (await queue.wait(run.id, timeout_s=timeout_s)).state.ended:
            raise WrongState(f"run {run.id} has not stopped yet", hint="try again in a moment", run=run.id)
