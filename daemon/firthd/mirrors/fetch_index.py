"""The only place that brings a source's index: it drives a family's requests, part by part, and keeps the copies."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from msgspec.structs import replace

from firth_protocol import units
from firth_protocol.errors import Upstream
from firthd.clock import Clock
from firthd.families.base import Answer, Ask, FamilyRules, Form, Known, Listed, Spool
from firthd.families.pieces import AHEAD, PIECES
from firthd.mirrors.asking import not_it, odd, walk
from firthd.mirrors.index import FetchedPart, Index, index_of
from firthd.mirrors.pieces import Bring, PieceReader
from firthd.mirrors.source import Job
from firthd.runs.run import LiveRun
from firthd.store.catalog import SourceIndexRow
from firthd.store.runs import Failure
from firthd.upstream.client import ATTEMPTS, Fetched, Validators
from firthd.upstream.client import Upstream as Upstreams
from firthd.upstream.failures import Unreachable
from firthd.upstream.listing import list_folder
from firthd.upstream.source import is_file
from firthd.upstream.spool import Room

Progress = Callable[[int, int | None], None]
"""(bytes done, bytes in all)"""
LIST_ATTEMPTS = 2
"""How often a list of pieces is asked for: where it does not come the index is read whole, which is tried longer."""
TOLD_MS = 100
"""Between two words of how far a file is: there may be many small ones."""


class Came(Protocol):
    """Hears of a part that has come, or is gone, before it is taken in."""

    async def __call__(self, row: SourceIndexRow, /, *, lists: bool = False) -> None: ...

    async def all(self) -> None:
        """Return once all that it has heard of is written down."""


Marks = Callable[[Spool, Set[str] | None], Awaitable[Mapping[str, Listed]]]
"""Reads a list of parts: what it says of those that are named (None: of all). Raises Upstream for what is none."""
_NOT_YOURS = frozenset({401, 403})
FAILURES_IN_A_ROW = 20
"""Parts of many that cannot be had one after the other before it is their source that fails."""


class IndexFetcher:
    """Brings the index of one source; copies lie in `folder` under names of their own."""

    def __init__(
        self,
        upstream: Upstreams,
        rules: FamilyRules,
        clock: Clock,
        folder: Path,
        *,
        max_part_bytes: int,
        room: Room,
        marks: Marks,
    ) -> None:
        self.marks = marks
        self._upstream = upstream
        self._max_part_bytes = max_part_bytes
        self._room = room
        self._rules = rules
        self._clock = clock
        self._folder = folder

    async def fetch(
        self,
        live: LiveRun,
        job: Job,
        known: Mapping[str, SourceIndexRow],
        tag: str,
        *,
        thorough: bool = False,
        came: Came | None = None,
        current_since: int | None = None,
        pieces: bool = False,
        others: bool = False,
    ) -> Index:
        """Bring each part unless its copy is still the source's; `pieces`: only what has moved of it, if it may be.

        All of it has one deadline. `tag` makes the new copies' names unique; `thorough`: ask also for the parts that
        the source had not; `came` hears of each part that has come; what came since `current_since` (milliseconds) and
        waits for being taken in is not asked for.
        Raises Upstream when the source has no part in any form, with the reason of the first
        refusal if there was one; `others`: it has others, and may have none of these.
        """
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        until = self._upstream.index_deadline()  # one that sends a little now and then would keep the run for days
        usable = await asyncio.to_thread(self._usable, known)
        fetch = _Fetch(self, live, job, known, usable, tag, until, came, current_since)
        lists = thorough or any(row.encoding == PIECES for row in known.values())
        if pieces and lists and self._rules.pieces is not None:
            bring = self._bringing(job, until)
            now, most = self.now_ms(), self._max_part_bytes
            fetch.pieces = PieceReader(self._rules.pieces, bring, live, self._folder, usable, known, now, most)
        seen = {
            name: Known(path=row.url_path, there=_there(row), beside=row.beside, mark=row.mark, copy=name in usable)
            for name, row in known.items()
        }
        answers = await walk(self._rules.requests(seen, job.filters, thorough, job.mode), fetch.ask, fetch.same)
        if came is not None:
            await came.all()
        sides = {part.row.part for part in fetch.parts if part.row.beside is not None}
        answers = [answer for answer in answers if answer.part not in sides]
        there = [answer for answer in answers if answer.form is not None]
        refused = next((answer.refusal for answer in answers if answer.refusal is not None), None)
        if not there and refused is not None and not others:
            raise refused
        if not there and not known and not others:
            raise Upstream(
                "the source has no index in any form that this version reads",
                hint="`mirror.check` tells what stands at the address",
            )
        for answer in answers:
            if answer.refusal is not None and answer.part not in fetch.failed:
                live.log(f"{answer.part}: taken as absent: {answer.refusal.message}", "warning")
        asked = {part.row.part for part in fetch.parts}
        there_now = {answer.part for answer in there} | fetch.as_before
        # That the source had no such part is remembered, with the time of the last look.
        unasked = [
            FetchedPart(row=row, changed=False)
            for name, row in known.items()
            if name not in asked
            and (not _there(row) or row.beside in there_now | {""})
            and not (fetch.pieces is not None and fetch.pieces.lacks(row))
        ]
        every = sorted([*fetch.parts, *unasked], key=lambda part: part.row.part)
        return index_of(every, self._rules, failed=len(fetch.failed), marked=fetch.marked)

    def _bringing(self, job: Job, until: float) -> Bring:
        async def bring(
            path: str, spool: Path, *, validators: Validators | None = None, max_bytes: int, what: Form | None = None
        ) -> Fetched:
            def look(start: bytes, content_type: str) -> bool:
                return what is None or bool(self._rules.encoding(what, start, content_type))

            return await self._upstream.fetch(
                job.source,
                path,
                spool,
                validators=validators,
                max_bytes=max_bytes,
                until=until,
                look=look if what is not None else None,
                room=self._room,
                attempts=ATTEMPTS if what is None else LIST_ATTEMPTS,
            )

        return bring

    def _usable(self, known: Mapping[str, SourceIndexRow]) -> dict[str, SourceIndexRow]:
        """Return the parts whose copy is there in full: copies are not synced, and power may have been lost."""
        return {name: row for name, row in known.items() if row.file is not None and self._has_copy(row.file, row.size)}

    def _has_copy(self, file: str, size: int) -> bool:
        try:
            # There may be ten thousand, for which a Path costs more than the look.
            return os.stat(f"{self._folder}/{file}").st_size == size  # noqa: PTH116 a Path for each of thousands
        except FileNotFoundError:
            return False

    async def bring(
        self,
        job: Job,
        form: Form,
        spool: Path,
        validators: Validators | None,
        until: float,
        progress: Progress,
    ) -> tuple[Fetched, str]:
        """Fetch one form; return what came of it, and how it is encoded."""
        encoding = ""

        def look(start: bytes, content_type: str) -> bool:
            nonlocal encoding
            encoding = self._rules.encoding(form, start, content_type) or ""
            return bool(encoding)

        if form.folder:
            listed = await list_folder(
                self._upstream, job.source, form.path, spool, validators=validators, until=until, room=self._room
            )
            encoding = self._rules.encoding(form, b"", "") or ""
            return listed, encoding
        fetched = await self._upstream.fetch(
            job.source,
            form.path,
            spool,
            validators=validators,
            max_bytes=self._max_part_bytes,
            setting="upstream.max_index_bytes",
            until=until,
            progress=progress,
            accept=form.accept,
            look=look,
            room=self._room,
            small=self.small_parts,
        )
        return fetched, encoding

    @property
    def small_parts(self) -> bool:
        return self._rules.small_parts

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def spool_of(self, row: SourceIndexRow) -> Spool:
        """Return a part whose copy is there, as worker processes read it."""
        return Spool(part=row.part, file=str(self._folder / row.file) if row.file else None, encoding=row.encoding)

    def spool(self, part: str, tag: str, number: int) -> Path:
        """Return where a new copy goes; a part's name may hold slashes."""
        return self._folder / f"{quote(part, safe='')}.{tag}.{number}"


class _Fetch:
    """One reading of an index: what is asked, and what came."""

    def __init__(
        self,
        fetcher: IndexFetcher,
        live: LiveRun,
        job: Job,
        known: Mapping[str, SourceIndexRow],
        usable: Mapping[str, SourceIndexRow],
        tag: str,
        until: float,
        came: Came | None,
        current_since: int | None,
    ) -> None:
        self._came = came
        self._current_since = current_since
        self._fetcher = fetcher
        self._live = live
        self._job = job
        self._had = {name: row for name, row in known.items() if _there(row)}
        self._known = known
        self._first = not known
        self._usable = usable
        self._tag = tag
        self._until = until
        self.pieces: PieceReader | None = None
        self.parts: list[FetchedPart] = []
        self.as_before: set[str] = set()
        self.failed: set[str] = set()
        self.marked: dict[str, str] = {}
        self._in_a_row = 0
        self._told_ms = 0

    def same(self, parts: Sequence[str]) -> None:
        """Take it from a list of parts that the copies of these are still the source's."""
        self.parts += [FetchedPart(row=self._usable[part], changed=False) for part in parts]
        self.as_before.update(parts)

    async def ask(self, asked: Ask) -> Answer:
        """Bring the first form of a part that is there; a file beside the index that cannot be had stays as it was."""
        if asked.lists:
            return await self._list(asked)
        if asked.beside is None:
            if self.pieces is not None:
                return await self._in_pieces(asked, self.pieces)
            return await self._ask(asked) if not self._fetcher.small_parts else await self._one_of_many(asked)
        try:
            return await self._ask(asked)
        except Upstream as error:
            self._live.log(f"{asked.part}: {error.message}; it stays as it was", "warning")
        before = self._known.get(asked.part)
        row = before or replace(_row(asked.part, asked.forms[0].path, 0, beside=asked.beside), settled=self._live.id)
        self.parts.append(FetchedPart(row=row, changed=False))
        return Answer(part=asked.part, form=None, changed=False)

    async def _in_pieces(self, asked: Ask, pieces: PieceReader) -> Answer:
        """Bring what has moved of a part, or all of it."""
        found = await pieces.part(asked.part)
        had = self._known.get(asked.part)
        if found is None or had is None:
            answer = await self._ask(asked)
            part = self.parts.pop()
            lists, moved = pieces.list_of(asked.part, part.row), pieces.moved_of(asked.part)
            self.parts.append(replace(part, taken=lists, moved=moved))
            return answer
        self.parts.append(FetchedPart(row=had, changed=found.changed, pieces=found.spool, taken=found.row))
        form = next((form for form in asked.forms if form.path == had.url_path), asked.forms[0])
        return Answer(part=asked.part, form=form, size=had.size, changed=found.changed)

    async def _list(self, asked: Ask) -> Answer:
        """Bring a list of parts; one that is none counts as absent where it is not needed."""
        answer = await self._ask(asked)
        part = self.parts.pop()
        if answer.form is not None and answer.changed:
            try:
                marks = await self._fetcher.marks(self._fetcher.spool_of(part.row), asked.names)
            except Upstream as error:
                if asked.names is None:
                    raise
                self._live.log(f"{error.message}; each page is asked for without it", "warning")
                row = _row(asked.part, asked.forms[0].path, self._fetcher.now_ms())
                self.parts.append(FetchedPart(row=replace(row, settled=self._live.id), changed=False, lists=True))
                return Answer(part=asked.part, form=None)
            answer = replace(answer, marks=marks)
        self.parts.append(replace(part, lists=True))
        return answer

    async def _one_of_many(self, asked: Ask) -> Answer:
        """Bring a part that is one of many: if it cannot be had it stays as it was, and the others go on.

        A host that cannot be reached, or that fails many times in a row, fails the run.
        """
        try:
            answer = await self._ask(asked)
        except Upstream as error:
            self._in_a_row += 1
            if isinstance(error, Unreachable) or self._in_a_row >= FAILURES_IN_A_ROW:
                raise
            self.failed.add(asked.part)
            failure = Failure(part=asked.part, filename="", reason=error.message, attempts=1)
            self._live.fail_artifact(failure)
            self._live.log(f"{asked.part}: {error.message}; it stays as it was", "error")
            if (before := self._known.get(asked.part)) is not None:
                self.parts.append(FetchedPart(row=replace(before, mark=None), changed=False))
            return Answer(part=asked.part, form=None, changed=False, refusal=error)
        self._in_a_row = 0
        return answer

    async def _ask(self, asked: Ask) -> Answer:
        had = self._usable.get(asked.part)
        if had is not None and not had.settled and self._current_since is not None:
            form = next((form for form in asked.forms if form.path == had.url_path), None)
            if form is not None and had.read_at >= self._current_since:
                self._live.log(f"{form.path}: came before the interruption")
                self.parts.append(FetchedPart(row=had, changed=False))
                return Answer(part=asked.part, form=form, size=had.size, changed=False)
        # The form it had before comes first, so that a validator helps; a folder's list costs more than any file.
        on_disk = is_file(self._job.source)
        there = (form for form in asked.forms if form.in_folder in {None, on_disk})
        forms = sorted(there, key=lambda form: had is None or form.folder or form.path != had.url_path)
        refusal: Upstream | None = None
        statuses: list[int] = []
        for number, form in enumerate(forms):
            same = had is not None and had.url_path == form.path
            validators = Validators(etag=had.etag, last_modified=had.last_modified) if had and same else None
            spool = self._fetcher.spool(asked.part, self._tag, number)
            try:
                fetched, encoding = await self._fetcher.bring(
                    self._job, form, spool, validators, self._until, self._progress(form.path)
                )
            except Upstream as error:
                if error.data.get("status") != 401:
                    raise
                refusal = refusal or error
                continue
            answered = fetched.answered
            statuses.append(answered)
            if fetched.status == "not_modified" and had is not None:
                self._say(asked, f"{form.path}: not changed")
                if had.mark == AHEAD:  # the source has it no other way: it counts, whatever pieces said
                    row = replace(had, mark=None, settled=0, read_at=self._fetcher.now_ms())
                    self.parts.append(FetchedPart(row=row, changed=True))
                    return Answer(part=asked.part, form=form, size=had.size)
                if asked.mark is not None and asked.mark != had.mark:
                    had = replace(had, mark=asked.mark)
                    self.marked[asked.part] = asked.mark
                self.parts.append(FetchedPart(row=had, changed=False))
                return Answer(part=asked.part, form=form, size=had.size, changed=False)
            if fetched.status == "fetched":
                new = "" if self._first or asked.part in self._had else ", new at the source"
                self._say(asked, f"{form.path}: {units.size(fetched.bytes)}{new}")
                await self._take(asked, form, encoding, spool.name, fetched)
                return Answer(part=asked.part, form=form, size=fetched.bytes)
            if answered in _NOT_YOURS:
                refusal = refusal or Upstream(
                    f"the source answered {answered} for {form.path}",
                    hint="check the credentials" if self._job.source.credentials else "the source may want credentials",
                    status=answered,
                )
        gone = asked.part in self._had
        if gone and self._fetcher.small_parts and (said := odd(statuses)) is not None:
            raise refusal or not_it(asked.part, said)
        if gone:
            self._live.log(f"{asked.part}: the source has it no more", "warning")
        row = _row(asked.part, asked.forms[0].path, self._fetcher.now_ms(), beside=asked.beside)
        if gone:
            await self._changed(row)
        else:
            self.parts.append(FetchedPart(row=replace(row, settled=self._live.id), changed=False))
        return Answer(part=asked.part, form=None, refusal=refusal, changed=gone)

    def _say(self, asked: Ask, text: str) -> None:
        """Write into the run's log; of parts that are many only what is wrong with one is told."""
        if asked.lists or not self._fetcher.small_parts:
            self._live.log(text)

    async def _take(self, asked: Ask, form: Form, encoding: str, file: str, fetched: Fetched) -> None:
        now, size, validators = self._fetcher.now_ms(), fetched.bytes, fetched.validators
        row = _row(asked.part, form.path, now, encoding, file, size, validators, asked.beside)
        await self._changed(replace(row, mark=asked.mark), fetched.landed, lists=asked.lists)

    async def _changed(self, row: SourceIndexRow, landed: str | None = None, *, lists: bool = False) -> None:
        """Note a part that is not what it was; where its files are is known by what was read of it before."""
        before = self._had.get(row.part)
        if before is not None:
            row = replace(row, records=before.records, base_url=before.base_url, signed=before.signed)
            row = replace(row, refused=before.refused)
        if self._fetcher.small_parts:
            row = replace(row, base_url=landed)
        if self._came is not None:
            await self._came(row, lists=lists)
        self.parts.append(FetchedPart(row=row, changed=True))

    def _progress(self, path: str) -> Progress:
        came = 0

        def tell(done: int, total: int | None) -> None:
            nonlocal came
            self._live.received(max(0, done - came))
            came = done
            now_ms = self._fetcher.now_ms()
            if 0 <= now_ms - self._told_ms < TOLD_MS:
                return
            self._told_ms = now_ms
            of = f" / {units.size(total)}" if total else ""
            self._live.progress(f"{path} {units.size(done)}{of}", done=done, total=total, unit="bytes")

        return tell


def _there(row: SourceIndexRow) -> bool:
    """Tell whether a part counts as the source's; one that is gone does until that is taken in."""
    return row.file is not None or not row.settled


def _row(
    part: str,
    path: str,
    now_ms: int,
    encoding: str = "",
    file: str | None = None,
    size: int = 0,
    validators: Validators | None = None,
    beside: str | None = None,
) -> SourceIndexRow:
    return SourceIndexRow(
        part=part,
        url_path=path,
        encoding=encoding,
        etag=validators.etag if validators else None,
        last_modified=validators.last_modified if validators else None,
        file=file,
        size=size,
        records=0,
        base_url=None,
        read_at=now_ms,
        beside=beside,
    )
