"""The only place that turns a channel's visible rows into the objects of an index; it runs in a worker process."""

import hashlib
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path

from msgspec import Struct

from firthd.families import load_formats
from firthd.families.base import Formats, InvalidRecordError, PartRenderer
from firthd.index.messages import RenderedPart, RenderParams, RenderResult
from firthd.index.outputs import Outputs
from firthd.index.owners import NO_CONTEST, Owners, find_owners
from firthd.index.summaries import Summaries
from firthd.store.run_file import RunFile
from firthd.store.worker_reads import ShownRow, WorkerState
from firthd.workers import Report, TaskProgress


def render_task(params: RenderParams, report: Report) -> RenderResult:
    """Write every form of each touched part below `out_dir`, objects and package summaries into the run file.

    A part is touched when a change set added or closed something in it, or when a name in it changed its owner. A part
    that was ever published stays, empty if need be: clients remember a missing index.
    """
    state = WorkerState(params.state_db)
    with RunFile(params.run_file) as run_file:
        run_file.start_render()
        result = Renderer(load_formats(params.formats), params, state, run_file, report).render()
    state.close()
    return result


class Totals(Struct):
    """What the visible rows of one part come to."""

    names: set[str]
    artifacts: int = 0
    bytes: int = 0


class Renderer:
    """Renders one generation's changes of one family."""

    def __init__(
        self, formats: Formats, params: RenderParams, state: WorkerState, run_file: RunFile, report: Report
    ) -> None:
        self._formats = formats
        self._params = params
        self._state = state
        self._run_file = run_file
        self._report = report
        self._full = params.full
        self._counted = state.published_sets(params.channel_id, params.shows) | set(params.change_sets)
        self._before = state.packages_in_force(params.channel_id, formats.family, params.number)
        self._summaries = Summaries(formats)
        self._out = Outputs(
            Path(params.out_dir),
            params.previous,
            state,
            params.channel_id,
            formats.family,
            lost=frozenset(map(bytes.fromhex, params.lost)),
        )
        self._owners = NO_CONTEST
        self._parts: list[RenderedPart] = []
        self._left_out = 0
        state.count_sets(self._counted)

    def render(self) -> RenderResult:
        """Render what is touched."""
        self._owners = self._find_owners()
        touched = self._touched()
        changed_names: set[str] = set().union(*touched.values())
        parts = self._parts_to_render(touched)
        for number, part in enumerate(parts):
            self._report(TaskProgress(number, len(parts), "indexes", part))
            self._render_part(part, touched.get(part, set()), None if self._full else changed_names)
        self._formats.conclude({part.part for part in self._parts}, self._out)
        packages, changed = self._sum_up(parts, changed_names)
        pack, slices = self._out.finish(self._run_file)
        return RenderResult(
            files=sorted(self._out.files, key=attrgetter("path")),
            pack=pack,
            parts=self._parts,
            packages=packages,
            changed_packages=changed,
            slices_new=slices,
            shadowed=self._owners.shadowed,
            notes=self._notes(),
        )

    def _notes(self) -> list[str]:
        told = self._out.notes
        return told if self._left_out <= len(told) else [*told, f"{self._left_out:,} records in all are left out"]

    def _find_owners(self) -> Owners:
        channel_id = self._params.channel_id
        if self._state.one_mirror_only(channel_id):
            return NO_CONTEST
        before = self._counted - set(self._params.change_sets)
        return find_owners(self._state.offers(channel_id, self._formats.family), self._counted, before)

    def _touched(self) -> dict[str, set[str]]:
        """Return part -> names to take up again."""
        if self._full:
            return {}
        touched = self._state.touched(self._params.channel_id, self._formats.family, self._params.change_sets)
        for part, names in self._owners.moved.items():
            touched.setdefault(part, set()).update(names)
        return touched

    def _parts_to_render(self, touched: dict[str, set[str]]) -> list[str]:
        first = self._formats.first_parts
        if self._full:
            known = self._state.parts(self._params.channel_id, self._formats.family)
            return sorted({*known, *first})
        return sorted(touched.keys() | {part for part in first if not self._renderer(part, None).published})

    def _renderer(self, part: str, touched: set[str] | None) -> PartRenderer:
        return self._formats.renderer(part, touched, self._out)

    def _render_part(self, part: str, touched: set[str], summed: set[str] | None) -> None:
        renderer = self._renderer(part, None if self._full else touched)
        totals = Totals(set())
        digest = hashlib.sha256()
        for page in self._state.shown_rows(self._params.channel_id, self._formats.family, part):
            rows = [row for row in once(self._owners.shown(page)) if self._writable(part, row, touched)]
            digest.update("".join(map(digest_line, rows)).encode())
            for row in rows:
                renderer.add(row)
                totals.names.add(row.name)
                totals.bytes += row.size or 0
                if summed is None or row.name in summed:
                    self._sum(row.name, row.version, part, row.filename, row.size, row.raw)
            totals.artifacts += len(rows)
        if not totals.artifacts and not renderer.published and part not in self._formats.first_parts:
            return
        renderer.finish(self._tell)
        self._parts.append(
            RenderedPart(
                part=part,
                digest=digest.hexdigest(),
                artifacts=totals.artifacts,
                names=len(totals.names),
                bytes=totals.bytes,
            )
        )

    def _writable(self, part: str, row: ShownRow, touched: set[str]) -> bool:
        """Tell whether a row can be shown; one that was read before that was proven is left out if it cannot.

        It must not stop what is beside it. The records of a package that nothing touched were published before.
        """
        if row.id > self._params.proven_above or not (self._full or row.name in touched):
            return True
        try:
            self._formats.writable(row)
        except InvalidRecordError as error:
            self._left_out += 1
            self._out.note(f"{part}/{row.filename} is left out: {error}")
            return False
        return True

    def _tell(self, what: str, done: int, total: int) -> None:
        self._report(TaskProgress(done, total, "objects", what))

    def _sum(self, name: str, version: str, part: str, filename: str, size: int | None, raw: bytes) -> None:
        self._summaries.add(name, version, self._formats.platform(part, filename), size, raw)

    def _sum_up(self, rendered: list[str], changed_names: set[str]) -> tuple[int, int]:
        """Write the summaries of changed names; return how many names the generation shows, and how many changed."""
        if self._full:
            changed_names = self._before
        elif changed_names:
            rest = self._state.summary_rows(
                self._params.channel_id, self._formats.family, sorted(changed_names), rendered
            )
            for row in rest:
                if self._owners.shows(row.name, row.mirror_id):
                    self._sum(row.name, row.version, row.part, row.filename, row.size, row.raw)
        seen = self._summaries.names()
        gone = changed_names - seen
        self._run_file.packages(self._summaries.rows(gone & self._before))
        shows = seen if self._full else (self._before - gone) | seen
        return len(shows), len(seen | (gone & self._before))


def once(rows: list[ShownRow]) -> list[ShownRow]:
    """Return the rows, which come by file name, less those that cannot be served beside another one.

    An address has one file: of all rows that a file name has, the newest says which bytes lie there. Those of other
    bytes are left out, and so is all but the newest of each section, so that no key is written twice.
    """
    if all(one.filename != following.filename for one, following in pairwise(rows)):
        return rows
    kept: list[ShownRow] = []
    for _, group in groupby(rows, key=attrgetter("filename")):
        same = list(group)
        newest = max(same, key=attrgetter("id"))
        by_section = {row.section: row for row in sorted(same, key=attrgetter("id")) if row.sha256 == newest.sha256}
        kept += [row for row in same if by_section.get(row.section) is row]
    return kept


def digest_line(row: ShownRow) -> str:
    """Return one entry of a part's digest. A digest that we found ourselves does not count: another daemon may not
    have seen the file yet."""
    declared = row.sha256 if row.declared == 2 else row.md5 if row.declared == 1 else None
    return f"{row.filename} {row.section} {row.fingerprint.hex()} {declared.hex() if declared else ''}\n"
