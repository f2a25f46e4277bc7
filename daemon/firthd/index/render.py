"""The only place that turns a channel's visible rows into the objects of an index; it runs in a worker process."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path

from msgspec import MsgspecError
from msgspec.structs import replace

from firth_protocol.errors import Internal
from firthd.families import load_formats
from firthd.families.base import Formats, GoesOn, InvalidRecordError, PartRenderer, ShownPackage
from firthd.index.messages import FamilyContent, RenderedPart, RenderParams, RenderResult, Share
from firthd.index.outputs import Outputs
from firthd.index.owners import NO_CONTEST, Owners, find_owners, moved_names
from firthd.index.set_hash import EMPTY
from firthd.index.summaries import PartSums, Summaries, read_sums, write_sums
from firthd.store.columns import goes_along
from firthd.store.run_file import RunFile
from firthd.store.worker_reads import ShownRow, SummaryInForce, WorkerState
from firthd.worker import Report, TaskProgress

log = logging.getLogger(__name__)

EVERY_ROW = 2**63 - 1
"""As `proven_above`: no row counts as proven."""
UNWRITABLE = (MsgspecError, ValueError, TypeError, OverflowError, RecursionError)
"""What a family raises for a record that it cannot write."""


def render_task(params: RenderParams, report: Report) -> RenderResult:
    """Write every form of each touched part below `out_dir`, objects and package summaries into the run file.

    A part is touched when a change set added or closed something in it, or when a name in it changed its owner. A part
    that was ever published stays, empty if need be: clients remember a missing index.
    """
    state = WorkerState(params.state_db)
    with RunFile(params.run_file) as run_file:
        result = _render(params, state, run_file, report)
        if result is None:  # a record is not what it was when it was proven: each is looked at, that one is left out
            result = _render(replace(params, proven_above=EVERY_ROW), state, run_file, report)
    state.close()
    if result is None:
        raise Internal("the index cannot be rendered, though each record by itself can", hint="please report it")
    return result


def _render(params: RenderParams, state: WorkerState, run_file: RunFile, report: Report) -> RenderResult | None:
    """Return what one try has made; None when a record could not be written."""
    run_file.start_render()
    try:
        return Renderer(load_formats(params.formats), params, state, run_file, report).render()
    except UNWRITABLE:
        log.exception("a record could not be written")
        return None


_section_of = attrgetter("section")
NOTHING_HIDDEN = "{}"
NOTHING = FamilyContent(state=EMPTY, artifacts=0, packages=0, bytes=0)


class Renderer:
    """Renders one generation's changes of one family."""

    def __init__(
        self,
        formats: Formats,
        params: RenderParams,
        state: WorkerState,
        run_file: RunFile,
        report: Report,
        out: Outputs | None = None,
    ) -> None:
        """`out`: where the objects of each part are already, with all that they show in `params.shares`."""
        self._formats = formats
        self._params = params
        self._state = state
        self._run_file = run_file
        self._report = report
        self._full = params.full
        self._counted = state.published_sets(params.channel_id, params.shows) | set(params.change_sets)
        self._anew = params.full or params.before is None  # every package is summed up, not only what is touched
        self._summaries = Summaries(formats)
        if out is not None:
            out.let_know(self._shown_packages)
        self._out = out or Outputs(
            Path(params.out_dir),
            params.previous,
            state,
            params.channel_id,
            formats.family,
            params.sides,
            self._shown_packages,
            lost=frozenset(map(bytes.fromhex, params.lost)),
            number=params.number,
        )
        self._owners = NO_CONTEST
        self._parts: list[RenderedPart] = []
        self._left_out = 0
        self._gone: set[str] = set()
        state.count_sets(self._counted)

    def render(self) -> RenderResult:
        """Render what is touched."""
        self._owners = self._find_owners()
        shares = read_sums(self._params.shares)
        touched = {part.part: set[str]() for part in shares} if shares and self._anew else self._touched()
        names: set[str] = set().union(*touched.values()) | self._owners.moved
        in_force = self._in_force(names)
        parts = self._parts_to_render(touched)
        summed = None if self._anew else names
        if self._params.share is not None:
            return self._share(self._params.share, parts, touched, summed)
        if shares:
            self._take_shares(shares)
        else:
            for number, part in enumerate(parts):
                self._report(TaskProgress(number, len(parts), "indexes", part))
                self._render_part(part, touched.get(part, set()), summed)
        self._sum_rest(parts, touched, names)
        seen = self._summaries.names()
        gone = {name for name, row in in_force.items() if row.files or row.hidden != NOTHING_HIDDEN} - seen
        self._run_file.packages(self._summaries.rows(gone))
        self._gone = gone
        self._formats.conclude({part.part for part in self._parts}, self._out)
        pack, slices = self._out.finish(self._run_file)
        return RenderResult(
            files=sorted(self._out.files, key=attrgetter("path")),
            pack=pack,
            parts=self._parts,
            content=self._content(in_force),
            changed_packages=len(seen | gone),
            slices_new=slices,
            left_out=self._left_out,
            notes=self._notes(),
        )

    def _content(self, in_force: Mapping[str, SummaryInForce]) -> FamilyContent:
        before, known = (None, dict[str, SummaryInForce]()) if self._anew else (self._params.before, in_force)
        content = self._summaries.content(before, known)
        return replace(content, state=content.state + self._out.beside_rows)

    def _share(
        self, share: Share, parts: list[str], touched: dict[str, set[str]], summed: set[str] | None
    ) -> RenderResult:
        """Make the objects of some parts, and leave what they show for the task that sums all of them up."""
        sums: list[PartSums] = []
        mine = [part for part in parts if (part == share.part) != share.others]
        for number, part in enumerate(mine):
            self._report(TaskProgress(number, len(mine), "indexes", part))
            before = len(self._parts)
            self._render_part(part, touched.get(part, set()), summed)
            shown = self._parts[-1].artifacts if len(self._parts) > before else None
            sums.append(PartSums(part, shown, self._summaries.sums()))
            self._summaries = Summaries(self._formats)
        write_sums(Path(share.sums), sums)
        made = share_of(self._out, self._run_file, self._parts)
        return replace(made, left_out=self._left_out, notes=self._notes())

    def _take_shares(self, shares: list[PartSums]) -> None:
        for part in shares:
            self._summaries.take(part.packages)
            if part.artifacts is not None:
                self._parts.append(RenderedPart(part=part.part, artifacts=part.artifacts))

    def _shown_packages(self) -> dict[str, ShownPackage]:
        """Return each package that the generation to be shows: what was in force, and what is summed up here."""
        channel_id, family, number = self._params.channel_id, self._formats.family, self._params.number
        before = [] if self._anew else self._state.summaries_in_force(channel_id, family, number)
        anew = self._gone | self._summaries.names()
        shown = [*(one for one in before if one[0] not in anew), *self._summaries.shown()]
        if self._state.sole_mirror(channel_id) is not None:
            return {name: ShownPackage(version, parts, None) for name, version, parts in shown}
        offering = dict(self._state.offering(channel_id, family))
        contested = self._owners.contested
        return {
            name: ShownPackage(version, parts, contested.get(name, offering.get(name, frozenset())))
            for name, version, parts in shown
        }

    def _notes(self) -> list[str]:
        told = self._out.notes
        return told if self._left_out <= len(told) else [*told, f"{self._left_out:,} records in all are left out"]

    def _find_owners(self) -> Owners:
        channel_id, family = self._params.channel_id, self._formats.family
        if self._state.sole_mirror(channel_id) is not None:
            return NO_CONTEST
        sources = self._state.sources(channel_id)
        anew = sorted(self._state.names_offered_anew(channel_id, family, self._params.change_sets))
        offers = self._state.offers(channel_id, family, anew)
        moved = moved_names(offers, sources, self._counted, self._counted_before())
        return find_owners(self._state.contested(channel_id, family), sources, moved)

    def _counted_before(self) -> set[int]:
        return self._counted - set(self._params.change_sets)

    def _touched(self) -> dict[str, set[str]]:
        """Return part -> names to take up again."""
        if self._full:
            return {}
        channel_id, family = self._params.channel_id, self._formats.family
        touched = self._state.touched(channel_id, family, self._params.change_sets)
        moved = self._state.parts_of(channel_id, family, sorted(self._owners.moved), self._counted_before())
        for part, names in moved.items():
            touched.setdefault(part, set()).update(names)
        return touched

    def _in_force(self, names: set[str]) -> Mapping[str, SummaryInForce]:
        """Return what the summaries before say of the packages to be summed up anew, of those that they have."""
        channel_id, family, number = self._params.channel_id, self._formats.family, self._params.number
        if not self._anew:
            in_force = self._state.summaries(channel_id, family, number, sorted(names))
            if all(row.digest is not None for row in in_force.values() if row.files):
                return in_force
            self._anew = True
        known = self._state.packages_in_force(channel_id, family, number)
        return self._state.summaries(channel_id, family, number, sorted(known))

    def _parts_to_render(self, touched: dict[str, set[str]]) -> list[str]:
        first = self._formats.first_parts
        if self._full:
            known = self._state.rendered_parts(self._params.channel_id, self._formats.family)
            return sorted({*known, *first})
        return sorted(touched.keys() | {part for part in first if not self._renderer(part, None).published})

    def _renderer(self, part: str, touched: set[str] | None) -> PartRenderer:
        return self._formats.renderer(part, touched, self._out)

    def _render_part(self, part: str, touched: set[str], summed: set[str] | None) -> None:
        renderer = self._renderer(part, None if self._full else touched)
        artifacts, seen = 0, False
        going_on: GoesOn | None = None
        if summed is not None and isinstance(renderer, GoesOn) and renderer.goes_on():
            going_on = renderer
            pages = self._changed_rows(part, going_on, summed)
        else:
            pages = self._state.shown_rows(self._params.channel_id, self._formats.family, part)
        for page in pages:
            rows = self._take(part, page, touched, summed)
            artifacts, seen = artifacts + count_of(rows), seen or bool(rows)
            for row in rows:
                renderer.add(row)
        if not seen and not renderer.published and part not in self._formats.first_parts:
            return
        renderer.finish(self._tell)
        if going_on is not None:
            artifacts = going_on.shown
        self._parts.append(RenderedPart(part=part, artifacts=artifacts))

    def _changed_rows(self, part: str, renderer: GoesOn, names: set[str]) -> Iterator[list[ShownRow]]:
        """Yield the visible rows of every file that a package in `names` has in a part, or had before.

        A file may have rows of other packages too, of which one may be the newest now.
        """
        channel_id, family = self._params.channel_id, self._formats.family
        files = self._state.filenames_of(channel_id, family, part, sorted(names), self._counted_before())
        renderer.replace(files)
        return self._state.rows_at(channel_id, family, part, sorted(files))

    def _take(self, part: str, page: list[ShownRow], touched: set[str], summed: set[str] | None) -> list[ShownRow]:
        """Return the rows of a page that are served, and sum up those of the names in `summed` (None: of all)."""
        served = once(self._owners.shown(page) if self._owners.contested else page)
        if self._unproven(served):
            served = [row for row in served if self._writable(part, row, touched)]
        self._summaries.add(part, served if summed is None else [row for row in served if row.name in summed])
        if self._owners.contested:
            for row in page:
                if (summed is None or row.name in summed) and not self._owners.shows(row.name, row.mirror_id):
                    self._summaries.hide(row)
        return served

    def _unproven(self, rows: list[ShownRow]) -> bool:
        proven_above = self._params.proven_above
        return bool(proven_above) and any(row.id <= proven_above for row in rows)

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

    def _sum_rest(self, rendered: list[str], touched: dict[str, set[str]], names: set[str]) -> None:
        """Sum up what lies in parts that are not rendered: of the names that are touched elsewhere, or of all."""
        channel_id, family = self._params.channel_id, self._formats.family
        if set(self._state.parts(channel_id, family)) <= set(rendered):
            return
        if not self._anew:
            for part, rows in self._state.rows_of(channel_id, family, sorted(names), rendered):
                self._take(part, rows, touched.get(part, set()), None)
        elif not self._full:
            for part in self._state.parts(channel_id, family):
                if part not in rendered:
                    for page in self._state.shown_rows(channel_id, family, part):
                        self._take(part, page, set(), None)


def share_of(out: Outputs, run_file: RunFile, parts: list[RenderedPart]) -> RenderResult:
    """Return what one of several tasks has rendered; what all of it shows, the task knows that sums it up."""
    pack, slices = out.finish(run_file)
    return RenderResult(
        files=sorted(out.files, key=attrgetter("path")),
        pack=pack,
        parts=parts,
        content=NOTHING,
        changed_packages=0,
        slices_new=slices,
        notes=out.notes,
    )


def count_of(rows: Sequence[ShownRow]) -> int:
    """Return how many of these rows are files that people count."""
    along = {section for section in set(map(_section_of, rows)) if goes_along(section)}
    return sum(row.section not in along for row in rows) if along else len(rows)


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
