"""The only place that makes backups: where they may lie, what is in them, and that a half one is never left."""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Event

import msgspec

from firth_protocol import API, units
from firth_protocol.errors import Conflict, Invalid
from firth_protocol.types import StepName
from firthd import __version__, sandbox
from firthd.clock import Clock, rfc3339
from firthd.runs.run import LiveRun, Outcome
from firthd.store import backup

PART = ".part"
DATABASE = "firth.sqlite"
_OURS = frozenset({"sources", "rendered", "settings.json", "backup.json"})
"""What lies in a backup beside the database and its helpers."""


class Backups:
    """Executes runs of kind backup."""

    def __init__(self, state: Path, clock: Clock, settings: bytes, export_dirs: Sequence[str]) -> None:
        self._state = state
        self._clock = clock
        self._settings = settings
        self._roots = [state / "out", *map(Path, export_dirs)]
        self._at_work: set[Path] = set()

    def place(self, path: str) -> Path:
        """Return the folder that a backup is to be made in; raise Invalid for one elsewhere, Conflict for one there is.

        A relative path is one below the state's folder out/. Blocks.
        """
        try:
            wanted = self._wanted(path)
            self._check(wanted)
            if any(os.path.lexists(there) for there in (wanted, wanted.with_name(wanted.name + PART))):
                raise Conflict(f"{wanted} is there already", hint="name a folder that is not there yet", path="$.path")
            wanted.with_name(wanted.name + PART).lstat()  # says so now where no such name can be
        except FileNotFoundError:
            return wanted
        except (OSError, ValueError, RuntimeError) as error:  # NUL, too long, a circle of links, a folder that is shut
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise Invalid(f"no backup can be made there: {why}", hint="name another folder", path="$.path") from None
        return wanted

    def _wanted(self, path: str) -> Path:
        asked = Path(path)
        return (asked if asked.is_absolute() else self._roots[0] / asked).resolve()

    def clear(self, paths: Sequence[str]) -> None:
        """Take away what backups left that were to go to these places and were cut off by kill -9. Blocks."""
        for path in paths:
            wanted = self._wanted(path)
            part = wanted.with_name(wanted.name + PART)
            inside = any(part.is_relative_to(root.resolve()) for root in self._roots)
            if not inside or part in self._at_work or part.is_symlink() or not part.is_dir():
                continue
            if all(file.name in _OURS or file.name.startswith(DATABASE) for file in part.iterdir()):
                shutil.rmtree(part, ignore_errors=True)

    def _check(self, wanted: Path) -> None:
        """Raise Invalid for a folder that is elsewhere, or out of the service's reach."""
        if not any(wanted != root.resolve() and wanted.is_relative_to(root.resolve()) for root in self._roots):
            places = ", ".join(map(str, self._roots))
            raise Invalid(f"a backup goes below {places}", hint="`store.export_dirs` names more folders", path="$.path")
        mounts = sandbox.here()
        if own := sandbox.private_folder(wanted, mounts):
            raise Invalid(
                f"{own} is the service's own here (PrivateTmp): nobody else would see a backup in {wanted}",
                hint="name another folder",
                path="$.path",
            )
        if forbidden := sandbox.hides(wanted, mounts, write=True) or sandbox.forbids(wanted, mounts):
            raise Invalid(f"{wanted} cannot be written", hint=forbidden, path="$.path")

    async def backup(self, live: LiveRun) -> Outcome:
        """Copy what a daemon needs to go on elsewhere; the folder gets its name when all of it is durable."""
        async with live.step(StepName.PLAN, "looks where the backup goes"):
            target = await asyncio.to_thread(self.place, str(live.row.params["path"]))
            live.progress(f"to {target}")
        part = target.with_name(target.name + PART)
        stopped = Event()
        shown = [""]

        def tell(text: str) -> None:
            if stopped.is_set():
                raise InterruptedError("not wanted any more")
            shown[0] = text

        self._at_work.add(part)
        async with live.step(StepName.CLEAN, "copies the state"):
            work = asyncio.ensure_future(asyncio.to_thread(self._copy, part, target, tell))
            try:
                while not work.done():
                    await asyncio.wait({work}, timeout=0.5)
                    live.progress(shown[0])
                size = await asyncio.shield(work)
            except BaseException:
                stopped.set()
                await asyncio.wait({work})
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, part, ignore_errors=True))
                raise
            finally:
                self._at_work.discard(part)
            live.progress(f"{units.size(size)} in {target}")
        return Outcome(result={"path": str(target), "bytes": size})

    def _copy(self, part: Path, target: Path, tell: Callable[[str], None]) -> int:
        """Copy files, the database, and the files that came meanwhile: whatever the copy names is there. Blocks."""
        part.mkdir(parents=True, mode=0o750)
        for again in (False, True):
            for folder in ("sources", "rendered"):
                root = self._state / folder
                files = root.glob("[0-9a-f][0-9a-f]/*/*") if folder == "rendered" else root.rglob("*")
                named = (file for file in files if file.is_file())
                backup.copy_files(self._state, part, named, partial(tell, f"copies {folder}/"))
            if not again:
                backup.copy_database(
                    self._state / DATABASE,
                    part / DATABASE,
                    lambda done, total: tell(f"copies the database, {done:,} / {total:,} pages"),
                )
        (part / "settings.json").write_bytes(self._settings)
        told = {"version": __version__, "api": API, "time": rfc3339(self._clock.now_ms())}
        (part / "backup.json").write_bytes(msgspec.json.encode(told))
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        part.rename(target)
        return size
