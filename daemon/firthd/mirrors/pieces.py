"""The only place that reads parts of an index in pieces: of a part that was read whole, those that have moved since.

What the rows are is told by a list of pieces that is no newer than they: it was asked for before the part was read
whole, or all that differs from the one before it was taken in. So a piece is asked for once more rather than missed.
Whatever is wrong with a list or a piece, the part is read whole.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from msgspec import Struct

from firth_protocol import units
from firth_protocol.errors import FirthError, NoSpace, Upstream
from firthd.families.base import Form, Spool
from firthd.families.pieces import PIECES, Moved, Piece, Pieces
from firthd.runs.run import LiveRun
from firthd.store.catalog import SourceIndexRow
from firthd.store.pieces import Pieced, write_header
from firthd.upstream.client import Fetched, Validators
from firthd.upstream.failures import http_date_ms

MOST = 2_000
"""Pieces of a part that are asked for one by one; where more have moved the part is read whole."""
AT_ONCE = 16
WHOLE_MS = 7 * 86_400_000
"""How long a part is read in pieces before it is read whole once more."""
SLACK_MS = 600_000
"""By how much a list may be newer than the index it goes with: servers write one after the other."""
GONE_PERCENT = 20


class Bring(Protocol):
    """Fetches a file of the source, see `Upstream.fetch`."""

    async def __call__(
        self, path: str, spool: Path, *, validators: Validators | None = None, max_bytes: int, what: Form | None = None
    ) -> Fetched: ...


class InPieces(Struct, frozen=True, kw_only=True):
    """What came of a part that was asked for in pieces."""

    changed: bool
    spool: Spool | None = None  # what has moved; None: nothing has
    row: SourceIndexRow | None = None  # of the list, as it is when this is taken in


class PieceReader:
    """Asks for the pieces of one source's parts in one run."""

    def __init__(
        self,
        pieces: Pieces,
        bring: Bring,
        live: LiveRun,
        folder: Path,
        usable: Mapping[str, SourceIndexRow],
        known: Mapping[str, SourceIndexRow],
        now_ms: int,
        max_part_bytes: int,
    ) -> None:
        """`folder` holds the copies; `usable`: what was read before and has its copy, `known`: all of it."""
        self._pieces = pieces
        self._bring = bring
        self._live = live
        self._folder = folder
        self._usable = usable
        self._known = known
        self._now_ms = now_ms
        self._max_part_bytes = max_part_bytes
        self._offered: bool | None = None  # whether the source has any list; the first part that is asked for tells
        self._given_up = False  # the first list that was asked for did not come: the others are not waited for
        self._absent: set[str] = set()
        self._lists: dict[str, SourceIndexRow] = {}  # part -> its list, asked for in this run before the part
        self._moved: dict[str, list[str]] = {}

    async def part(self, part: str) -> InPieces | None:
        """Return what has moved of a part; None: it is to be read whole."""
        had = self._known.get(part)
        if self._offered is False or self._given_up or (had is not None and had.file is None and had.settled):
            return None
        path = self._pieces.list_path(part)
        before = self._usable.get(path)
        if before is not None and not before.settled:
            before = None
        try:
            return await self._ask(part, path, before)
        except NoSpace:
            raise
        except (FirthError, ValueError) as error:
            reason = error.message if isinstance(error, FirthError) else f"{path}: {error}"
            self._live.note(f"{reason}; {part} is read whole")
            self._given_up = self._offered is None
            return None

    async def _ask(self, part: str, path: str, before: SourceIndexRow | None) -> InPieces | None:
        validators = None if before is None else Validators(etag=before.etag, last_modified=before.last_modified)
        new = self._folder / f"{quote(path, safe='')}.{self._live.id}"
        fetched = await self._bring(
            path, new, validators=validators, max_bytes=self._pieces.list_max_bytes, what=Form(path)
        )
        self._offered = self._offered or fetched.status != "absent"
        if fetched.status == "absent":
            self._absent.add(path)
            return None
        if fetched.status == "not_modified":
            self._moved[part] = []
            return InPieces(changed=False) if self._goes_on(part) else None
        row = SourceIndexRow(
            part=path,
            url_path=path,
            encoding=PIECES,
            etag=fetched.validators.etag,
            last_modified=fetched.validators.last_modified,
            file=new.name,
            size=fetched.bytes,
            records=0,
            base_url=None,
            read_at=self._now_ms,
            settled=self._live.id,
            beside=part,
        )
        moved = await self._differences(part, before, new)
        self._lists[part] = row
        if before is None:
            return None
        self._moved[part] = [*(piece.name for piece in moved.pieces), *moved.gone]
        if not self._goes_on(part):
            return None
        if not self._moved[part]:
            return InPieces(changed=False)
        if len(moved.pieces) > MOST or len(moved.gone) * 100 > moved.before * GONE_PERCENT:
            self._live.log(f"{part}: {len(self._moved[part]):,} packages have moved: it is read whole")
            return None
        del self._lists[part]  # should a piece fail, what the rows are is told by the list before
        size = await self._fetch(part, moved, pieced := new.with_name(f"{new.name}.pieces"))
        self._live.log(f"{part}: {len(self._moved[part]):,} packages have moved, {units.size(size)}")
        base_url = None if part not in self._known else self._known[part].base_url
        spool = Spool(part=part, file=str(pieced), encoding=PIECES, base_url=base_url)
        return InPieces(changed=True, spool=spool, row=row)

    def _goes_on(self, part: str) -> bool:
        """Tell whether a part can be gone on from: it was read whole, not long ago, and nothing else hangs on that."""
        had = self._usable.get(part)
        return had is not None and bool(had.settled) and not had.signed and self._now_ms - had.read_at < WHOLE_MS

    async def _differences(self, part: str, before: SourceIndexRow | None, new: Path) -> Moved:
        def compared() -> Moved:
            old = None if before is None or before.file is None else (self._folder / before.file).read_bytes()
            return self._pieces.moved(part, old, new.read_bytes())

        return await asyncio.to_thread(compared)

    async def _fetch(self, part: str, moved: Moved, into: Path) -> int:
        """Bring the pieces, each proven by its digest, into one file; return their bytes. Raises Upstream."""
        places = asyncio.Semaphore(AT_ONCE)
        done = size = 0

        async def one(number: int, piece: Piece) -> Path:
            nonlocal done, size
            async with places:
                file = into.with_name(f"{into.name}.{number}")
                fetched = await self._bring(piece.path, file, max_bytes=self._pieces.piece_max_bytes)
                if fetched.status != "fetched":
                    raise Upstream(f"the source lacks a piece of {part} that it lists", hint="look at the source")
                size += fetched.bytes
                if size > self._max_part_bytes:
                    raise Upstream(f"the pieces of {part} have more than {self._max_part_bytes:,} bytes")
                done += 1
                self._live.progress(
                    f"{part}: {done:,} / {len(moved.pieces):,} packages", done=done, total=len(moved.pieces)
                )
                return file

        numbered = [into.with_name(f"{into.name}.{number}") for number in range(len(moved.pieces))]
        try:
            async with asyncio.TaskGroup() as group:
                for number, piece in enumerate(moved.pieces):
                    group.create_task(one(number, piece))
            if not await asyncio.to_thread(_join, into, moved, numbered):
                raise Upstream(f"a piece of {part} is not what its list says", hint="look at the source")
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            await asyncio.shield(asyncio.to_thread(_delete, numbered))
        return size

    # --- what a part that is read whole leaves -----------------------------------------------------------------

    def list_of(self, part: str, whole: SourceIndexRow) -> SourceIndexRow | None:
        """Return the list that tells what the rows are when `whole` is taken in; None: the one before still does.

        One that is much newer than the index may say what that does not hold yet: a cache between had an older one.
        """
        found = self._lists.get(part)
        if found is None:
            return None
        written, listed = http_date_ms(whole.last_modified), http_date_ms(found.last_modified)
        if written is not None and listed is not None and listed - written > SLACK_MS:
            return None
        return found

    def lacks(self, row: SourceIndexRow) -> bool:
        """Tell whether a row is of a list that the source does not have any more."""
        return row.encoding == PIECES and (row.part in self._absent or self._offered is False)

    def moved_of(self, part: str) -> list[str] | None:
        """Return the packages that may differ from what was read of a part before; None when nobody can tell."""
        had = self._known.get(part)
        return self._moved.get(part) if had is not None and had.settled else None


def _join(into: Path, moved: Moved, files: list[Path]) -> bool:
    """Write pieces into one file; False: one of them is not what its digest says."""
    header: list[Pieced] = [(piece.name, file.stat().st_size) for piece, file in zip(moved.pieces, files, strict=True)]
    with into.open("wb") as out:
        out.write(write_header([*header, *((name, None) for name in moved.gone)]))
        for piece, file in zip(moved.pieces, files, strict=True):
            content = file.read_bytes()
            if hashlib.sha256(content).digest() != piece.sha256:
                return False
            out.write(content)
    return True


def _delete(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def tell_disagreement(live: LiveRun, part: str, count: int, first: str) -> None:
    """Warn of what a whole index has and the pieces read before had not said."""
    live.note(f"{part}: {count:,} files are not what its pieces said, such as {first}; its whole index was believed")
