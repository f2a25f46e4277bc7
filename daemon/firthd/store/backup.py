"""The only place that copies a state that is in use: the database in steps, the files that it names beside it."""

import shutil
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from firthd.store.disk import sync

STEP_PAGES = 1000
"""Pages of one step; between two steps others write and checkpoint."""
PAUSE_S = 0.01
RESTARTS = 20
"""A step after a change begins from the start: after so many times the rest is copied in one step."""
RESTORED = "restored"
"""The setting by which a daemon knows that its state is a copy: not every file that it names need be there."""

Tell = Callable[[int, int], None]
"""(done, total) in pages; raises to end the copying."""


def copy_database(source: Path, target: Path, tell: Tell) -> None:
    """Copy the database while it is in use; the copy is whole and durable. Blocks; raises sqlite3.Error, OSError."""
    connection = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    copy = sqlite3.connect(target)
    restarts = before = 0

    def step(_: int, remaining: int, total: int) -> None:
        nonlocal restarts, before
        done = total - remaining
        if done < before:
            restarts += 1
        before = done
        tell(done, total)
        if restarts >= RESTARTS:
            raise _TooBusy

    try:
        try:
            connection.backup(copy, pages=STEP_PAGES, progress=step, sleep=PAUSE_S)
        except _TooBusy:
            connection.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.execute("INSERT OR REPLACE INTO setting(key, value) VALUES (?, '1')", (RESTORED,))
        copy.commit()
    finally:
        connection.close()
        copy.close()
    sync(target)


class _TooBusy(Exception):
    """Somebody writes all the time."""


def copy_files(source: Path, target: Path, files: Iterable[Path], tell: Callable[[], None]) -> int:
    """Copy files below one folder to below another, those that are not there yet; return how many. Blocks.

    A file that has gone meanwhile is left out. `tell` is called before each and raises to end the copying.
    """
    copied = 0
    for file in files:
        tell()
        place = target / file.relative_to(source)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(file, place)
        except FileNotFoundError:
            place.unlink(missing_ok=True)
            continue
        sync(place)
        copied += 1
    return copied
