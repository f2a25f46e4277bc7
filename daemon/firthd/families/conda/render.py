"""The only place that turns a channel's visible conda rows into index files; it runs in a worker process."""

import hashlib
import io
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, pairwise
from operator import attrgetter
from pathlib import Path

import zstandard
from msgspec import Struct

from firthd.families.base import RenderedFile, RenderedPart, RenderParams, RenderResult
from firthd.families.conda.names import KNOWN_SUBDIRS
from firthd.families.conda.owners import NO_CONTEST, Owners, find_owners
from firthd.families.conda.paths import FIRST_SUBDIRS, REPODATA, REPODATA_ZST, SHARD_INDEX
from firthd.families.conda.records import PLAIN_SECTIONS
from firthd.families.conda.repodata import (
    Served,
    repodata_chunks,
    served,
    write_file,
    write_repodata,
    zst_writer,
)
from firthd.families.conda.shards import ShardPack, ShardPacker, read_index, shard_index
from firthd.families.conda.summaries import Summaries
from firthd.store.runfile import RunFile
from firthd.store.worker_reads import ShownRow, WorkerState
from firthd.workers import Report, TaskProgress

FAMILY = "conda"
PACK = "shards.pack"
REPORT_EVERY = 2000


def render_task(params: RenderParams, report: Report) -> RenderResult:
    """Write every variant of each touched subdir below `out_dir`, and shards and package summaries into the run file.

    A subdir is touched when a change set added or closed something in it, or when a name in it changed its owner. A
    package that nothing touched keeps its shard: its hash is taken from the index before. A subdir that was ever
    published stays, empty if need be: clients remember a missing index for ever.
    """
    state = WorkerState(params.state_db)
    with RunFile(params.run_file) as run_file, ThreadPoolExecutor(1) as writer:
        run_file.start_render()
        result = Renderer(params, state, run_file, writer, report).render()
    state.close()
    return result


def empty_subdir(subdir: str) -> dict[str, bytes]:
    """Return every variant of an empty subdir: path -> content. Small: no worker is needed for a new channel."""
    compressed = io.BytesIO()
    writer = zst_writer(compressed)
    chunks = list(repodata_chunks(subdir, {}, {}))
    for chunk in chunks:
        writer.write(chunk)
    writer.flush(zstandard.FLUSH_FRAME)
    return {
        f"{subdir}/{REPODATA}": b"".join(chunks),
        f"{subdir}/{REPODATA_ZST}": compressed.getvalue(),
        f"{subdir}/{SHARD_INDEX}": shard_index(subdir, {}, {}),
    }


class Shown(Struct):
    """The visible records of one subdir, in memory: about its index's size and 250 bytes a record."""

    sections: dict[str, list[Served]]
    by_name: dict[str, list[Served]]  # only names whose shard is to be packed
    names: set[str]
    v3_timestamps: dict[str, list[int | None]]  # section -> of each record
    v3_keys: set[tuple[str, str]]  # (section, key), so that none is written twice
    digest: str = ""
    artifacts: int = 0
    bytes: int = 0


class Renderer:
    """Renders one generation's changes."""

    def __init__(
        self,
        params: RenderParams,
        state: WorkerState,
        run_file: RunFile,
        writer: ThreadPoolExecutor,
        report: Report,
    ) -> None:
        self._params = params
        self._state = state
        self._run_file = run_file
        self._writer = writer
        self._report = report
        self._full = params.full or params.shows < params.number - 1
        self._counted = state.published_sets(params.channel_id, params.shows) | set(params.change_sets)
        self._before = state.packages_in_force(params.channel_id, FAMILY, params.number - 1)
        self._published_subdirs = {path.partition("/")[0] for path in params.previous}
        self._summaries = Summaries(FAMILY)
        self._packer = ShardPacker()
        self._pack = ShardPack(Path(params.out_dir) / PACK, state, params.channel_id)
        self._owners = NO_CONTEST
        self._files: list[RenderedFile] = []
        self._parts: list[RenderedPart] = []
        state.count_sets(self._counted)

    def render(self) -> RenderResult:
        """Render what is touched."""
        self._owners = self._find_owners()
        touched = self._touched()
        changed_names: set[str] = set().union(*touched.values())
        wanted = None if self._full else changed_names
        subdirs = self._subdirs(touched)
        for number, subdir in enumerate(subdirs):
            self._tell(number, len(subdirs), f"{subdir}/{REPODATA}")
            self._render_subdir(subdir, touched.get(subdir, set()), wanted)
        packages, changed = self._sum_up(subdirs, changed_names)
        pack, places = self._pack.finish()
        self._run_file.shards(places)
        return RenderResult(
            files=self._files,
            pack=pack,
            parts=self._parts,
            packages=packages,
            changed_packages=changed,
            shards_new=len(places),
            shadowed=self._owners.shadowed,
        )

    def _tell(self, done: int, total: int, description: str) -> None:
        self._report(TaskProgress(done, total, "indexes", description))

    def _find_owners(self) -> Owners:
        channel_id = self._params.channel_id
        if self._state.one_mirror_only(channel_id):
            return NO_CONTEST
        before = self._counted - set(self._params.change_sets)
        return find_owners(self._state.offers(channel_id, FAMILY), self._counted, before)

    def _touched(self) -> dict[str, set[str]]:
        """Return subdir -> names to take up again."""
        if self._full:
            return {}
        touched = self._state.touched(self._params.channel_id, FAMILY, self._params.change_sets)
        for subdir, names in self._owners.moved.items():
            touched.setdefault(subdir, set()).update(names)
        return touched

    def _subdirs(self, touched: dict[str, set[str]]) -> list[str]:
        if not self._full:
            return sorted(touched.keys() | (set(FIRST_SUBDIRS) - self._published_subdirs))
        known = self._state.subdirs(self._params.channel_id, FAMILY)
        return sorted({*known, *FIRST_SUBDIRS, *self._published_subdirs})

    def _render_subdir(self, subdir: str, touched: set[str], summed: set[str] | None) -> None:
        kept_hashes = self._kept_hashes(subdir, touched)
        shown = self._load(subdir, kept_hashes, summed)
        if not shown.artifacts and subdir not in self._published_subdirs and subdir not in FIRST_SUBDIRS:
            return
        folder = Path(self._params.out_dir) / subdir
        folder.mkdir()
        chunks = repodata_chunks(subdir, shown.sections, shown.v3_timestamps)
        written: Future[list[RenderedFile]] = self._writer.submit(write_repodata, folder, subdir, chunks)
        hashes = self._pack_shards(subdir, shown, kept_hashes)
        index = shard_index(subdir, hashes, shown.v3_timestamps)
        index_file = write_file(f"{subdir}/{SHARD_INDEX}", folder / SHARD_INDEX, index)
        self._files += [*written.result(), index_file]
        self._parts.append(
            RenderedPart(
                subdir=subdir,
                digest=shown.digest,
                artifacts=shown.artifacts,
                names=len(shown.names),
                bytes=shown.bytes,
            )
        )

    def _kept_hashes(self, subdir: str, touched: set[str]) -> dict[str, bytes]:
        """Return name -> hash of the shards that need no packing: those in the index before that nothing touched."""
        previous = self._params.previous.get(f"{subdir}/{SHARD_INDEX}")
        if self._full or previous is None:
            return {}
        try:
            hashes = read_index(Path(previous.file).read_bytes())
        except (OSError, ValueError):  # everything derived can be made again
            return {}
        return {name: value for name, value in hashes.items() if name not in touched}

    def _load(self, subdir: str, kept_hashes: dict[str, bytes], summed: set[str] | None) -> Shown:
        """Read the visible rows of a subdir; add the files of the names in `summed` (None: all) to the summaries."""
        shown = Shown({}, {}, set(), {}, set())
        digest = hashlib.sha256()
        for page in self._state.shown_rows(self._params.channel_id, FAMILY, subdir):
            rows = once(self._owners.shown(page))
            digest.update("".join(map(digest_line, rows)).encode())
            for row in rows:
                self._take(shown, subdir, row, row.name not in kept_hashes, summed is None or row.name in summed)
        shown.digest = digest.hexdigest()
        return shown

    def _take(self, shown: Shown, subdir: str, row: ShownRow, packed: bool, summed: bool) -> None:
        record = served(row.section, row.filename, row.name, row.version, row.build, row.raw)
        if row.section not in PLAIN_SECTIONS:  # there a key can come of the record, and two files come to the same one
            if (row.section, record.key) in shown.v3_keys:
                return
            shown.v3_keys.add((row.section, record.key))
            shown.v3_timestamps.setdefault(row.section, []).append(row.timestamp)
        shown.sections.setdefault(row.section, []).append(record)
        shown.names.add(row.name)
        shown.artifacts += 1
        shown.bytes += row.size or 0
        if packed:
            shown.by_name.setdefault(row.name, []).append(record)
        if summed:
            self._summaries.add(row.name, row.version, subdir, row.size, row.raw)

    def _pack_shards(self, subdir: str, shown: Shown, kept_hashes: dict[str, bytes]) -> dict[str, bytes]:
        hashes = {name: value for name, value in kept_hashes.items() if name in shown.names}
        total = len(shown.by_name)
        for number, (name, records) in enumerate(shown.by_name.items()):
            if number % REPORT_EVERY == 0:
                self._report(TaskProgress(number, total, "shards", f"{subdir}/{SHARD_INDEX}"))
            hashes[name] = self._pack.add(self._packer.pack(records))
        return hashes

    def _sum_up(self, rendered: list[str], changed_names: set[str]) -> tuple[int, int]:
        """Write the summaries of changed names; return how many names the generation shows, and how many changed."""
        if self._full:
            changed_names = self._before
        elif changed_names:
            rest = self._state.summary_rows(self._params.channel_id, FAMILY, sorted(changed_names), rendered)
            for row in rest:
                if self._owners.shows(row.name, row.mirror_id):
                    self._summaries.add(row.name, row.version, row.subdir, row.size, row.raw)
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
    """Return one entry of a subdir's digest. A digest that we found ourselves does not count: another daemon may not
    have seen the file yet."""
    declared = row.sha256 if row.declared == 2 else row.md5 if row.declared == 1 else None
    return f"{row.filename} {row.section} {row.fingerprint.hex()} {declared.hex() if declared else ''}\n"


def absent_index(path: str) -> bytes | None:
    """Return the empty shard index of a subdir that the channel does not have (yet), None for every other path.

    rattler remembers a missing shard index for ever, so a known subdir has one from the first day on; its other
    indexes are absent, which every client takes as empty.
    """
    subdir, _, name = path.partition("/")
    if name != SHARD_INDEX or subdir not in KNOWN_SUBDIRS:
        return None
    return empty_subdir(subdir)[path]
