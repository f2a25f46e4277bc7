"""The only place that compares a conda source's index with a mirror's rows; it runs in a worker process."""

from collections.abc import Iterator
from operator import attrgetter

from firth_protocol.errors import Invalid
from firthd.families.base import InvalidRecord, Part, PartResult, ReadParams, ReadResult
from firthd.families.conda.document import Document, Entry, entries, known_bucket, read_document
from firthd.families.conda.names import valid_subdir
from firthd.families.conda.records import InvalidRecordError, columns, fingerprint, printable
from firthd.store.runfile import AddRow, CloseRow, RunFile
from firthd.store.worker_reads import LiveRow, WorkerState
from firthd.workers import Report, TaskProgress

FAMILY = "conda"
INVALID_LISTED = 1000
REPORT_EVERY = 20_000
GONE, REPLACED, FILTERED = "gone", "replaced", "filtered"


def read_task(params: ReadParams, report: Report) -> ReadResult:
    """Read each part's spool file and write into the run file what to add and to close.

    Parts are read in the order of their subdirs. Records keep their bytes. Two records are the same when their
    fingerprints are: a hotfix closes a row and adds another. The source's `removed`, `signatures` and `base_url` are
    not kept in rows: a removed file is not offered, a signature is not served, and `base_url` is in the result.
    """
    for part in params.parts:
        if not valid_subdir(part.subdir):
            raise Invalid(f"{printable(part.subdir, 64)!r} is no conda subdir.")
    state = WorkerState(params.state_db)
    state.count_sets(state.lasting_sets(params.channel_id))
    results: list[PartResult] = []
    with RunFile(params.run_file) as run_file:
        run_file.start_read()
        parts = [part for part in params.parts if params.subdirs is None or part.subdir in params.subdirs]
        for part in sorted(parts, key=attrgetter("subdir")):
            reader = PartReader(params, part, state, run_file, report)
            results.append(reader.read())
        if params.subdirs is not None:
            for subdir in state.subdirs(params.channel_id, FAMILY):
                if subdir not in params.subdirs:
                    results.extend(close_subdir(params, subdir, state, run_file))
    state.close()
    return ReadResult(parts=results)


def close_subdir(params: ReadParams, subdir: str, state: WorkerState, run_file: RunFile) -> list[PartResult]:
    """Close all live rows of a subdir that the mirror's filter does not name; nothing to tell when there are none."""
    rows = list(state.live_rows(params.channel_id, params.mirror_id, FAMILY, subdir))
    run_file.close_rows((row.id, FAMILY, subdir, row.name, FILTERED) for row in rows)
    nothing = PartResult(
        subdir=subdir, records=0, kept=0, before=len(rows), added=0, replaced=0, unchanged=0, gone=0, filtered=len(rows)
    )
    return [nothing] if rows else []


class PartReader:
    """Reads one part; the counts of its result grow here."""

    def __init__(self, params: ReadParams, part: Part, state: WorkerState, run_file: RunFile, report: Report) -> None:
        self._params = params
        self._part = part
        self._state = state
        self._run_file = run_file
        self._report = report
        self._live: dict[str, dict[str, LiveRow]] = {}
        self._closed: list[CloseRow] = []
        self._to_store: list[tuple[bytes | None, int | None]] = []
        self._invalid: list[InvalidRecord] = []
        self._invalid_count = 0
        self._replaced = self._unchanged = self._unhashed = self._before = 0

    def read(self) -> PartResult:
        """Read the part and write its differences."""
        document = read_document(self._part)
        found = entries(document)
        self._load_live()
        self._run_file.add(self._additions(found))
        gone, held = self._close_rest()
        self._run_file.close_rows(self._closed)
        bytes_to_store, bytes_unknown = self._weigh()
        base_url = document.head.base_url
        return PartResult(
            subdir=self._part.subdir,
            records=len(found),
            kept=self._unchanged + len(self._to_store),
            before=self._before,
            added=len(self._to_store) - self._replaced,
            replaced=self._replaced,
            unchanged=self._unchanged,
            gone=gone,
            held=held,
            unhashed=self._unhashed,
            bytes_to_store=bytes_to_store,
            bytes_unknown=bytes_unknown,
            base_url=base_url if isinstance(base_url, str) and base_url else None,
            notes=list(notes(self._part.subdir, document)),
            invalid=self._invalid,
            invalid_count=self._invalid_count,
        )

    def _load_live(self) -> None:
        rows = self._state.live_rows(self._params.channel_id, self._params.mirror_id, FAMILY, self._part.subdir)
        for row in rows:
            section = self._live.setdefault(row.section, {})
            if row.filename in section:  # two live rows of one file cannot be meant: the older one goes
                self._close(section[row.filename], REPLACED)
            section[row.filename] = row
            self._before += 1

    def _additions(self, found: list[Entry]) -> Iterator[AddRow]:
        """Yield the records that are new or changed, in order; take those that are there off the live ones."""
        subdir, total = self._part.subdir, len(found)
        last: tuple[str, str] | None = None
        for number, (filename, section, raw) in enumerate(found):
            if number % REPORT_EVERY == 0:
                self._report(TaskProgress(number, total, "records", f"{subdir}: {number:,} of {total:,} read"))
            of_section = self._live.get(section)
            live = of_section.get(filename) if of_section else None
            try:
                if (filename, section) == last:
                    raise InvalidRecordError("the file name is listed twice")
                print16 = fingerprint(raw)
                last = (filename, section)
                if live is not None and live.fingerprint == print16:
                    # It was found valid when it was added; leaving the checks out saves a third of a read.
                    self._unchanged += 1
                    self._unhashed += live.declared == 0
                    del self._live[section][filename]
                    continue
                record = columns(section, filename, raw)
            except InvalidRecordError as error:
                self._refuse(filename, str(error))
                continue
            self._unhashed += record.declared == 0
            if live is not None:
                del self._live[section][filename]
                self._replaced += 1
                self._close(live, REPLACED)
            self._to_store.append((record.sha256, record.size))
            yield (
                FAMILY,
                subdir,
                section,
                filename,
                record.name,
                record.version,
                record.build,
                record.build_number,
                record.size,
                record.sha256,
                record.md5,
                record.declared,
                record.license,
                record.timestamp,
                print16,
                raw,
                live.id if live is not None else None,
            )

    def _refuse(self, filename: str, reason: str) -> None:
        self._invalid_count += 1
        if len(self._invalid) < INVALID_LISTED:
            self._invalid.append(InvalidRecord(printable(filename, 255), reason))

    def _close(self, row: LiveRow, reason: str) -> None:
        self._closed.append((row.id, FAMILY, self._part.subdir, row.name, reason))

    def _close_rest(self) -> tuple[int, int]:
        """Close what the source no longer lists; return how many, and how many stay because they are stored."""
        rest = [row for section in self._live.values() for row in section.values()]
        channel_id = self._params.channel_id
        digests = (row.sha256 for row in rest if row.sha256)
        stored = self._state.stored(channel_id, digests) if self._params.keep else set()
        gone = [row for row in rest if row.sha256 is None or row.sha256 not in stored]
        for row in gone:
            self._close(row, GONE)
        return len(gone), len(rest) - len(gone)

    def _weigh(self) -> tuple[int, int]:
        """Return the bytes to store for what is added and not stored yet, and how many of those have no size."""
        digests = (sha256 for sha256, _ in self._to_store if sha256)
        stored = self._state.stored(self._params.channel_id, digests)
        wanted = [size for sha256, size in self._to_store if sha256 is None or sha256 not in stored]
        return sum(size or 0 for size in wanted), sum(size is None for size in wanted)


def notes(subdir: str, document: Document) -> Iterator[str]:
    """Yield what an administrator should know of a part that is not in its records."""
    head = document.head
    if head.subdir is not None and head.subdir != subdir:
        told = printable(str(head.subdir), 64)
        yield f"{subdir}: the source's index says that it is {told}; its address was believed."
    if head.channel_relations:
        yield f"{subdir}: the source names related channels; clients of this channel are not sent there."
    if bytes(document.signatures) not in (b"null", b"{}"):
        yield f"{subdir}: the source's signatures are not served."
    for extension in document.v3 or {}:
        if not known_bucket(extension):
            yield f"{subdir}: a v3 bucket with an impossible name was left out."
