"""The only place that takes a source's repodata.json apart.

The format is that of CEP 36 with CEP 15 (base_url), CEP 42 (channel_relations) and CEP 48 (v3). Records stay slices of
the one buffer, so memory is the size of the document and about 200 bytes a record.
"""

import os
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from typing import cast

import msgspec
import zstandard
from msgspec import Raw, Struct, field

from firth_protocol.errors import TooLarge, Upstream
from firthd.families.base import Entry, Spool
from firthd.families.conda.records import printable
from firthd.families.conda.salvage import members, records_at, top_members

WINDOW_MAX_BYTES = 2**27
RATIO_MAX = 200
RATIO_FROM_BYTES = 256 * 1024**2
"""Real indexes shrink to a tenth; below this size a high ratio does no harm and is not looked at."""
READ_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

BUCKETS = ("packages", "packages.conda", "v3")

Bucket = dict[str, Raw]
is_extension = re.compile(r"[a-z0-9]+(\.[a-z0-9]+)?").fullmatch


class Info(Struct, gc=False):
    """What we look at of `info`."""

    subdir: object = None
    base_url: object = None
    channel_relations: object = None


class Document(Struct):
    """A whole repodata.json; every key may be absent or null."""

    info: Info | None = None
    metadata: Info | None = None  # what very old indexes call `info`
    packages: Bucket | None = None
    packages_conda: Bucket | None = field(default=None, name="packages.conda")
    removed: list[str] | None = None
    v3: dict[str, Bucket | None] | None = None
    signatures: Raw = Raw(b"null")
    damage: str | None = field(default=None, name=" damage")  # why it had to be read record by record; no such key

    @property
    def head(self) -> Info:
        return self.info or self.metadata or Info()


_entry = cast(Callable[[tuple[str, str, Raw, str]], Entry], partial(tuple.__new__, Entry))
"""What `Entry` does, of all its fields, in a third of the time: there are half a million."""
_decode_document = msgspec.json.Decoder(Document).decode
_decode_signatures = msgspec.json.Decoder(dict[str, object]).decode
_decode_url = msgspec.json.Decoder(dict[str, object]).decode


class Repodata:
    """What one repodata.json lists; the file is taken apart when this is made."""

    def __init__(self, spool: Spool, max_bytes: int) -> None:
        document = read_document(spool, max_bytes)
        self._entries = entries(document)
        base_url = document.head.base_url
        self.base_url = base_url if isinstance(base_url, str) and base_url else None
        self.notes = list(notes(spool.part, document))
        self.signed = bytes(document.signatures) not in (b"null", b"{}")
        self._signatures = document.signatures
        self._signed_files: frozenset[str] | None = None

    def signs(self, filename: str) -> bool:
        """Tell whether the source has a signature of a file's record."""
        if self._signed_files is None:
            self._signed_files = signed_files(self._signatures) if self.signed else frozenset()
        return filename in self._signed_files

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)


def signed_files(signatures: Raw) -> frozenset[str]:
    """Return the files for which there is any signature; none for what cannot be read."""
    try:
        found = _decode_signatures(signatures)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return frozenset()
    return frozenset(filename for filename, keys in found.items() if isinstance(keys, dict) and keys)


def read_document(spool: Spool, max_bytes: int = 1 << 30) -> Document:
    """Read a spool file; an empty one is an empty document. Raises Upstream for what is no repodata.json.

    Raises TooLarge for more than `max_bytes`, decompressed.
    """
    content = read_bytes(spool, max_bytes)
    if content.startswith(BYTE_ORDER_MARK):  # some editors and shells put one before a text
        del content[: len(BYTE_ORDER_MARK)]
    if not content or content.isspace():
        return Document()
    try:
        return _decode_document(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        damage = str(error)[:200]
    try:
        return salvaged(content, damage)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise Upstream(
            f"The source's index of {spool.part} is not a repodata.json: {damage}.",
            hint="Check the source; if it is right, its index is damaged.",
            subdir=spool.part,
        ) from None


def salvaged(content: bytearray, damage: str) -> Document:
    """Return a document in which single records are damaged, but not what holds them; raises ValueError otherwise."""
    found = top_members(content)
    document = Document(damage=damage)
    for key, (start, end) in found.items():
        value = bytes(content[start:end]) if key not in BUCKETS else b""
        if content[start:end] == b"null":
            continue
        if key == "packages":
            document.packages = records_at(content, start)
        elif key == "packages.conda":
            document.packages_conda = records_at(content, start)
        elif key == "v3":
            document.v3 = {
                extension: records_at(content, begin) if content[begin:stop] != b"null" else None
                for extension, begin, stop in members(content, start)
            }
        elif key in ("info", "metadata"):
            head = msgspec.json.decode(value, type=Info)
            document.info = head if key == "info" else document.info or head
        elif key == "removed":
            document.removed = msgspec.json.decode(value, type=list[str])
        elif key == "signatures":
            document.signatures = Raw(value)
    return document


def read_bytes(spool: Spool, max_bytes: int) -> bytearray:
    """Return a spool file's content, decompressed; raises TooLarge over the limit, Upstream for damaged data."""
    if spool.file is None:
        return bytearray()
    content = bytearray()
    with Path(spool.file).open("rb") as file:
        if spool.encoding == "json":
            while chunk := file.read(READ_BYTES):
                content += chunk
                check_size(spool, len(content), max_bytes)
            return content
        packed = os.fstat(file.fileno()).st_size
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES).stream_reader(
            file, read_size=READ_BYTES, read_across_frames=True
        )
        try:
            while chunk := reader.read(READ_BYTES):
                content += chunk
                check_size(spool, len(content), max_bytes)
                check_ratio(spool, len(content), packed)
        except zstandard.ZstdError as error:
            raise Upstream(
                f"The source's index of {spool.part} cannot be decompressed: {error}.", subdir=spool.part
            ) from None
    return content


def check_size(spool: Spool, size: int, max_bytes: int) -> None:
    """Refuse a document over the limit; raises TooLarge."""
    if size > max_bytes:
        raise TooLarge(
            f"The source's index of {spool.part} has more than {max_bytes:,} bytes when it is decompressed.",
            hint="look at the source; if it is right, raise upstream.max_index_bytes in firth.toml",
            subdir=spool.part,
        )


def check_ratio(spool: Spool, size: int, packed: int) -> None:
    """Refuse what no index is: a few bytes that decompress to hundreds of megabytes; raises TooLarge."""
    if size > RATIO_FROM_BYTES and size > RATIO_MAX * packed:
        raise TooLarge(
            f"The source's index of {spool.part} decompresses to more than {RATIO_MAX} times its {packed:,} bytes.",
            hint=f"look at the source; this limit is fixed, and looked at above {RATIO_FROM_BYTES:,} bytes only",
            subdir=spool.part,
        )


def entries(document: Document) -> list[Entry]:
    """Return each record that a document offers, by file name; what it lists as removed is not offered."""
    found = plain_entries(document)
    for extension, records in sorted((document.v3 or {}).items()):
        if known_bucket(extension):
            found.extend(v3_entries(extension, records or {}))
    if document.removed:
        removed = set(document.removed)
        found = [entry for entry in found if entry.filename not in removed]
    found.sort(key=itemgetter(0))  # what has one name stays in the order of its sections
    return found


def plain_entries(document: Document) -> list[Entry]:
    """Return the records outside of v3; which section a file is in follows its extension, whatever the source did.

    A file that stands in both is taken from the one where it belongs.
    """
    found: list[Entry] = []
    both = {"packages": document.packages or {}, "packages.conda": document.packages_conda or {}}
    for section, bucket in both.items():
        other, ending = ("packages.conda", ".conda") if section == "packages" else ("packages", ".tar.bz2")
        right = both[other]
        if not any(map(str.endswith, bucket, repeat(ending))):  # as nearly always: each stands where it belongs
            found.extend(map(_entry, zip(bucket, repeat(section), bucket.values(), repeat(""))))
            continue
        for filename, raw in bucket.items():
            if not filename.endswith(ending):
                found.append(Entry(filename, section, raw))
            elif filename not in right:
                found.append(Entry(filename, other, raw))
    return found


def known_bucket(extension: str) -> bool:
    """Tell whether a v3 bucket's key can be a file extension at all."""
    return is_extension(extension) is not None


def v3_entries(extension: str, bucket: Bucket) -> Iterator[Entry]:
    """Yield a v3 bucket's records (CEP 48): their keys lack the extension, and a wheel's file is named by its `url`."""
    for key, raw in bucket.items():
        filename = f"{key}.{extension}"
        if extension not in ("conda", "tar.bz2"):
            filename = url_of(raw).rpartition("/")[2] or filename
        yield Entry(filename, f"v3.{extension}", raw)


def url_of(raw: Raw | bytes) -> str:
    """Return a record's own `url`, "" when it has none."""
    try:
        url = _decode_url(raw).get("url")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    return url if isinstance(url, str) else ""


def listed_and_removed(document: Document) -> list[str]:
    """Return the files that a document lists and says to be removed, by name."""
    if not document.removed:
        return []
    listed = {*(document.packages or {}), *(document.packages_conda or {})}
    return sorted(listed.intersection(document.removed))


def notes(subdir: str, document: Document) -> Iterator[str]:
    """Yield what an administrator should know of a part that is not in its records."""
    head = document.head
    if document.damage is not None:
        yield f"{subdir}: its index is damaged, records were read singly: {printable(document.damage, 99)}."
    if head.subdir is not None and head.subdir != subdir:
        told = printable(str(head.subdir), 64)
        yield f"{subdir}: the source's index says that it is {told}; its address was believed."
    if head.channel_relations:
        yield f"{subdir}: the source names related channels; clients of this channel are not sent there."
    for extension in document.v3 or {}:
        if not known_bucket(extension):
            yield f"{subdir}: a v3 bucket with an impossible name was left out."
    if doubtful := listed_and_removed(document):
        yield (
            f"{subdir}: {len(doubtful):,} files are listed and also removed, so they are not offered, such as"
            f" {printable(doubtful[0], 99)}."
        )
    moved = 0
    for bucket, ending in ((document.packages, ".tar.bz2"), (document.packages_conda, ".conda")):
        moved += len(bucket or {}) - sum(map(str.endswith, bucket or {}, repeat(ending)))
    if moved:
        yield f"{subdir}: {moved:,} files stand in another section than their extension says; they were put right."
