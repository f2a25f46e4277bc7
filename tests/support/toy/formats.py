"""What the toy family knows about bytes: an index is a JSON array, or a JSON record a line."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from hashlib import blake2b
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from firth_protocol.errors import Upstream
from firth_protocol.types import Family, Filters
from firthd.families.base import Comparable, Entry, InvalidRecordError, Listing, Output, SourceRecord, Spool
from firthd.store.worker_reads import ShownRow


class Toy(Struct):
    """A record."""

    name: str
    version: str
    file: str
    size: int | None = None
    sha256: str | None = None
    time: int | None = None
    needs: list[str] = []


def decode(raw: Raw | bytes) -> Toy:
    try:
        return msgspec.json.decode(raw, type=Toy)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidRecordError(str(error)) from None


class Index:
    """One part as a source lists it."""

    base_url = None

    def __init__(self, spool: Spool, max_bytes: int) -> None:
        content = Path(spool.file).read_bytes() if spool.file else b""
        self.notes: list[str] = []
        try:
            if spool.encoding == "json":
                raws: Sequence[Raw | bytes] = msgspec.json.decode(content, type=list[Raw])
            else:
                raws = [line for line in content.splitlines() if line]
            self._entries = sorted(
                (Entry(msgspec.json.decode(raw, type=dict[str, object]).get("file", ""), "toys", bytes(raw)))  # type: ignore[arg-type]
                for raw in raws
            )
        except msgspec.MsgspecError as error:
            raise Upstream(f"{spool.part} is no index: {error}") from None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)


def written(form: str, raws: Sequence[Raw | bytes]) -> bytes:
    """Return an index in one of its two forms."""
    parts = [bytes(raw) for raw in raws]
    return b"[" + b",".join(parts) + b"]" if form == "json" else b"".join(part + b"\n" for part in parts)


class Renderer:
    def __init__(self, part: str, out: Output) -> None:
        self._part, self._out = part, out
        self._raws: list[bytes] = []

    @property
    def published(self) -> bool:
        return self._out.has(f"{self._part}/index.json")

    def add(self, row: ShownRow) -> None:
        self._raws.append(row.raw)

    def finish(self, report: Callable[[str, int, int], None]) -> None:
        for form in ("json", "txt"):
            with self._out.open(f"{self._part}/index.{form}") as file:
                file.write(written(form, self._raws))


class ToyFormats:
    family = Family.R  # the slot that no family has yet
    first_parts = ()

    def valid_part(self, part: str) -> bool:
        return part.strip("/") == part != ""

    def read(self, spool: Spool, max_bytes: int) -> Index:
        return Index(spool, max_bytes)

    def taker(self, filters: Filters) -> Callable[[Entry], bool] | None:
        return None

    def elsewhere(self, part: str, filename: str) -> tuple[str, str] | None:
        return None

    def fingerprint(self, raw: Raw | bytes) -> bytes:
        return blake2b(msgspec.json.encode(decode(raw)), digest_size=16).digest()

    def writable(self, row: ShownRow) -> None:
        decode(row.raw)

    def record(self, entry: Entry, fingerprint: bytes) -> SourceRecord:
        toy = decode(entry.raw)
        if "/" in toy.file or not toy.file:
            raise InvalidRecordError("a file's name has no slash")
        return SourceRecord(
            section=entry.section,
            filename=toy.file,
            name=toy.name,
            version=toy.version,
            build="",
            build_number=0,
            size=toy.size,
            sha256=bytes.fromhex(toy.sha256) if toy.sha256 else None,
            md5=None,
            declared=2 if toy.sha256 else 0,
            license=None,
            timestamp=toy.time,
            fingerprint=fingerprint,
            raw=entry.raw,
        )

    def renderer(self, part: str, touched: Set[str] | None, out: Output) -> Renderer:
        return Renderer(part, out)

    def conclude(self, rendered: Set[str], out: Output) -> None:
        pass

    def empty_part(self, part: str) -> Mapping[str, bytes]:
        return {}

    def version_key(self, version: str) -> Comparable:
        return version

    def depended_on(self, raw: bytes) -> Iterable[str]:
        return decode(raw).needs

    def identity(self, row: ShownRow) -> bytes:
        return row.fingerprint

    def platform(self, part: str, filename: str) -> str:
        return "any"

    def page(self, part: str, form: str, records: Sequence[SourceRecord], listing: Listing) -> bytes:
        return written(form, [record.raw for record in records])


FORMATS = ToyFormats()
