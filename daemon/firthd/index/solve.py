"""The only place that has a solver asked whether what a policy allows can be installed, in a process of its own.

A solver may want any amount of time and memory, and ends its process where it gets none. Whatever becomes of it, the
run that asks goes on, and says truthfully what was not looked at.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from firthd.families import load_policing
from firthd.families.base import Entry
from firthd.worker import Report, TaskProgress
from firthd.workers import apart

SOLVED_RECORDS = 60_000
"""More records are not given to a solver: it would need more time and memory than the rest of the run."""
SOLVED_SPECS = 100
MEMORY_BYTES = 1500 * 1000**2
"""Of addresses; what a solver really uses is less."""
TIMEOUT_S = 30.0
"""A solver keeps to limits of its own; this one is for what does not heed them."""
NOT_ASKED = "whether what is allowed can be installed was not looked at"
SOLVE = "firthd.index.solve:solve_task"
LENGTH_BYTES = 4

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, str, str, bytes]).decode


class SolveParams(Struct, frozen=True, kw_only=True):
    """What a solver is asked."""

    policing: str  # "package.module:name" of the family's Policing
    kept: str  # the file with all records
    wanted: list[tuple[str, str]]  # specs with platforms


class SolveResult(Struct, frozen=True, kw_only=True):
    """What it says."""

    sentences: list[str]  # one for each spec on a platform that cannot be installed
    unasked: int  # for how many there was no time


class Solver:
    """Takes note of what is kept, and asks in the end. `folder`: where there is room; None: where temporary files lie.

    The file that this writes goes when it is closed.
    """

    def __init__(self, folder: Path | None) -> None:
        self._why = ""  # nothing is asked any more
        self._count = 0
        self._file: BinaryIO | None = None
        self._path = Path()
        self._folder = folder

    def keep(self, part: str, entry: Entry) -> None:
        """Take note of a record that is kept."""
        if self._why:
            return
        self._count += 1
        if self._count > SOLVED_RECORDS:
            self._give_up("too much is allowed")
            return
        try:
            if self._file is None:
                fd, path = tempfile.mkstemp(prefix="firth-kept-", dir=self._folder)
                self._file, self._path = os.fdopen(fd, "wb"), Path(path)
            said = _encode((part, entry.section, entry.filename, bytes(entry.raw)))
            self._file.write(len(said).to_bytes(LENGTH_BYTES))
            self._file.write(said)
        except OSError as error:
            self._give_up(f"there is no room for it: {error.strerror}")

    def _give_up(self, why: str) -> None:
        self._why = why
        self.close()

    def close(self) -> None:
        """Take the file away."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what was not written yet may find no room
                file.close()
            self._path.unlink(missing_ok=True)

    def ask(self, policing: str, pairs: Sequence[tuple[str, str]], report: Report) -> tuple[list[str], str]:
        """Return what of (spec, platform) cannot be installed, and what was not looked at, "" for nothing. Blocks."""
        if not self._why and len(pairs) > SOLVED_SPECS:
            self._give_up("too much is allowed")
        if self._file is not None:
            try:
                self._file.flush()
            except OSError as error:
                self._give_up(f"there is no room for it: {error.strerror}")
        if self._why or self._file is None:
            return [], f"{NOT_ASKED}: {self._why or 'nothing is kept'}"
        params = SolveParams(policing=policing, kept=str(self._path), wanted=list(pairs))
        report(TaskProgress(0, len(pairs), "specs", "asks whether what is allowed can be installed"))
        found = apart(SOLVE, params, SolveResult, memory_bytes=MEMORY_BYTES, timeout_s=TIMEOUT_S)
        self.close()
        if found is None:
            return [], f"{NOT_ASKED}: that takes more time or memory than there is"
        if not found.unasked:
            return found.sentences, ""
        return (
            found.sentences,
            f"whether {found.unasked:,} of {len(pairs):,} can be installed was not found out: no time",
        )


def solve_task(params: SolveParams, report: Report) -> SolveResult:
    """Ask a family's solver about records that lie in a file."""
    found = load_policing(params.policing).unsolved(list(_records(Path(params.kept))), params.wanted)
    return SolveResult(sentences=found.sentences, unasked=found.unasked)


def _records(path: Path) -> Iterator[tuple[str, Entry]]:
    with path.open("rb") as file:
        while head := file.read(LENGTH_BYTES):
            part, section, filename, raw = _decode(file.read(int.from_bytes(head)))
            yield part, Entry(filename, section, raw)
