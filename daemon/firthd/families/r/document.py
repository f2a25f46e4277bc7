"""The only place that takes an index of R packages apart: PACKAGES in each of its forms, and lists of the archive."""

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

from firth_protocol.errors import FirthError, TooLarge, Upstream
from firthd.families.base import Entry, InvalidRecordError, Spool
from firthd.families.r import dcf, rds
from firthd.families.r.names import ARCHIVE, valid_name
from firthd.families.r.packed import unpacked
from firthd.families.r.records import ARCHIVED, LISTED, OURS, archived_stanza, dated, filename_of, printable
from firthd.upstream.masking import without_users

TEXT, RDS, LISTING = "txt", "rds", "list"
"""Encodings: stanzas, R's own form, what a folder's pages list (a line of path, size and time each)."""
RDS_MAX_BYTES = 512 * 1024**2
RECORDS_MAX = 2_000_000
NUMBER_MAX = 2.0**53
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NO_RECORD = "what stands there is no record"
ELSEWHERE = "DownloadURL"
"""A field that sends clients to another server: what they get there nobody here has looked at."""
FileInfo = tuple[int | None, int | None]
"""Bytes, and seconds since the epoch, of a file."""
NOTHING_BESIDE: Mapping[str, FileInfo] = {}


class Index:
    """What one part lists; the file is taken apart when this is made. Raises Upstream and TooLarge."""

    base_url = None

    def __init__(self, spool: Spool, max_bytes: int) -> None:
        self.notes: list[str] = []
        content = unpacked(spool, min(max_bytes, RDS_MAX_BYTES) if spool.encoding == RDS else max_bytes)
        if spool.encoding != RDS:
            # R takes a carriage return alone for the end of a line too.
            content = content.removeprefix(BYTE_ORDER_MARK).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        try:
            if spool.part == ARCHIVE:
                found = list(self._archived(spool, content))
            else:
                stanzas = from_rds(content) if spool.encoding == RDS else dcf.stanzas(content)
                found = list(listed(spool.part, stanzas, self._files_of(spool)))
        except rds.RdsError as error:
            raise Upstream(
                f"The source's index of {spool.part} cannot be read: {error}.",
                hint="Check the source; if it is right, its index is damaged.",
                part=spool.part,
            ) from None
        if found and all(entry.section == _NO_RECORD for entry in found):
            raise Upstream(
                f"The source's index of {spool.part} has no record that is one.",
                hint="Look at it in a browser: it may be a page.",
                part=spool.part,
            )
        found.sort(key=itemgetter(0, 1))
        self._entries = [entry._replace(section=LISTED) if entry.section == _NO_RECORD else entry for entry in found]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def _files_of(self, spool: Spool) -> Mapping[str, FileInfo]:
        """Return what the table beside the index says of the files that lie there now; it is worth no failure."""
        found: dict[str, FileInfo] = {}
        for file in spool.beside:
            try:
                content = unpacked(Spool(part=spool.part, file=file), RDS_MAX_BYTES)
                found.update((path, (size, time)) for path, size, time in frame_files(rds.read(content)))
            except (FirthError, OSError, rds.RdsError) as error:
                why = error.message if isinstance(error, FirthError) else str(error)
                self.notes.append(f"the table of times beside {spool.part} is left out: {printable(why, 200)}")
        return found

    def _archived(self, spool: Spool, content: bytes) -> Iterator[Entry]:
        files = archived_files(content) if spool.encoding == RDS else listed_files(content)
        others = 0
        example = ""
        seen: set[str] = set()
        for path, size, modified_s in files:
            folder, _, file = path.rpartition("/")
            name, underscore, rest = file.partition("_")
            version = rest.removesuffix(".tar.gz")
            if not underscore or version == rest or not valid_name(name) or "/" in folder or folder not in (name, ""):
                others, example = others + 1, example or path
                continue
            path = f"{name}/{file}"
            if path not in seen:
                seen.add(path)
                yield Entry(path, ARCHIVED, archived_stanza(name, version, file, size, modified_s))
        if others:
            self.notes.append(
                f"{others:,} files of the archive are no package of the folder that they lie in, such as"
                f" {printable(example, 99)}; they are left out"
            )


def listed(part: str, stanzas: Iterator[bytes], files: Mapping[str, FileInfo] = NOTHING_BESIDE) -> Iterator[Entry]:
    """Yield each stanza with the path of its file; what is none keeps its place, so that it is told.

    `files`: what a table beside the index says of them, which stanzas without a day are told.
    """
    seen: set[tuple[str, bytes]] = set()
    for number, raw in enumerate(stanzas, 1):
        if number > RECORDS_MAX:
            raise TooLarge(f"The source's index of {part} has more than {RECORDS_MAX:,} records.", part=part)
        try:
            fields = dcf.fields_of(raw)
        except InvalidRecordError:
            yield Entry(f"record {number}", _NO_RECORD, raw)
            continue
        if not raw.isascii():
            raw = dcf.decoded(raw).encode()
        if any(name == ELSEWHERE or name.startswith(OURS) for name in fields):
            fields = {name: value for name, value in fields.items() if name != ELSEWHERE and not name.startswith(OURS)}
            raw = dcf.spelled(fields)
        elif dcf.repeats(raw):  # clients differ in which one counts; R takes the last
            raw = dcf.spelled(fields)
        raw = without_users(raw)
        if "Package" not in fields:
            yield Entry(f"record {number}", _NO_RECORD, raw)
            continue
        filename = filename_of(part, fields)
        if (filename, raw) not in seen:  # the same stanza twice says nothing new
            seen.add((filename, raw))
            yield Entry(filename, LISTED, dated(raw, fields, files.get(filename)))


def from_rds(content: bytes) -> Iterator[bytes]:
    """Yield the stanzas that a matrix of texts stands for: a row a package, a column a field, NA for none."""
    matrix = rds.read(content)
    cells = matrix.texts()
    if not cells:
        return
    names = matrix.attribute("dimnames").things()
    if len(names) != 2:
        raise rds.RdsError("it is no matrix with named columns")
    columns = [name or "" for name in names[1].texts()]
    rows = len(cells) // len(columns) if columns else 0
    if rows * len(columns) != len(cells) or len(columns) > dcf.FIELDS_MAX:
        raise rds.RdsError("it is no matrix with named columns")
    for row in range(rows):
        fields = {}
        for number, column in enumerate(columns):
            value = cells[number * rows + row]
            if value is not None:
                fields[column] = value
        yield dcf.spelled(fields)


def archived_files(content: bytes) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield path, size and time of the files in Meta/archive.rds: a list of data frames, one a package."""
    for frame in rds.read(content).things():
        yield from frame_files(frame)


def frame_files(frame: rds.Thing) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield path, size and time of the files of a data frame, as Meta/current.rds is one; folders are passed over."""
    paths = frame.attribute("row.names").texts()
    columns = dict(zip(frame.attribute("names").texts(), frame.things(), strict=False))
    sizes, times = (columns[name].numbers() if name in columns else () for name in ("size", "mtime"))
    folders = columns["isdir"].numbers() if "isdir" in columns else ()
    for number, path in enumerate(paths):
        if path is None or (number < len(folders) and folders[number]):
            continue
        yield path, _whole(sizes, number), _whole(times, number)


def _whole(column: Sequence[float | None], at: int) -> int | None:
    """Return one number of a column as a whole one, None for what is none."""
    value = column[at] if at < len(column) else None
    return int(value) if value is not None and abs(value) < NUMBER_MAX else None


def listed_files(content: bytes) -> Iterator[tuple[str, int | None, int | None]]:
    """Yield path, size and time of what pages of folders list, a line each with tabs between."""
    for line in content.decode("utf-8", "replace").split("\n"):
        path, *rest = line.split("\t")
        if path:
            size, modified_s = (
                int(text) if text.isascii() and text.isdigit() else None for text in (*rest, "", "")[:2]
            )
            yield path, size, modified_s
