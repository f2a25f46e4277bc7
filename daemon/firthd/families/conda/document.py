"""The only place that takes a source's repodata.json apart.

The format is that of CEP 36 with CEP 15 (base_url), CEP 42 (channel_relations) and CEP 48 (v3). Records stay slices of
the one buffer, so memory is the size of the document and about 200 bytes a record.
"""

import re
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

import msgspec
import zstandard
from msgspec import Raw, Struct, field

from firth_protocol.errors import TooLarge, Upstream
from firthd.families.base import Entry, Spool
from firthd.families.conda.records import printable

DOCUMENT_MAX_BYTES = 4 * 1024**3
WINDOW_MAX_BYTES = 2**27
READ_BYTES = 1 << 20

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

    @property
    def head(self) -> Info:
        return self.info or self.metadata or Info()


_decode_document = msgspec.json.Decoder(Document).decode
_decode_url = msgspec.json.Decoder(dict[str, object]).decode


class Repodata:
    """What one repodata.json lists; the file is taken apart when this is made."""

    def __init__(self, spool: Spool) -> None:
        document = read_document(spool)
        self._entries = entries(document)
        base_url = document.head.base_url
        self.base_url = base_url if isinstance(base_url, str) and base_url else None
        self.notes = list(notes(spool.part, document))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)


def read_document(spool: Spool) -> Document:
    """Read a spool file; an empty one is an empty document. Raises Upstream for what is no repodata.json."""
    content = read_bytes(spool)
    if not content.strip():
        return Document()
    try:
        return _decode_document(content)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Upstream(
            f"The source's index of {spool.part} is not a repodata.json: {str(error)[:200]}.",
            hint="Check the source; if it is right, its index is damaged.",
            subdir=spool.part,
        ) from None


def read_bytes(spool: Spool) -> bytearray:
    """Return a spool file's content, decompressed; raises TooLarge over the limit, Upstream for damaged data."""
    if spool.file is None:
        return bytearray()
    content = bytearray()
    with Path(spool.file).open("rb") as file:
        if spool.encoding == "json":
            content += file.read(DOCUMENT_MAX_BYTES + 1)
            check_size(spool, content)
            return content
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES).stream_reader(
            file, read_size=READ_BYTES, read_across_frames=True
        )
        try:
            while chunk := reader.read(READ_BYTES):
                content += chunk
                check_size(spool, content)
        except zstandard.ZstdError as error:
            raise Upstream(
                f"The source's index of {spool.part} cannot be decompressed: {error}.", subdir=spool.part
            ) from None
    return content


def check_size(spool: Spool, content: bytearray) -> None:
    """Refuse a document over the limit; raises TooLarge."""
    if len(content) > DOCUMENT_MAX_BYTES:
        raise TooLarge(f"The source's index of {spool.part} is larger than any index.", subdir=spool.part)


def entries(document: Document) -> list[Entry]:
    """Return each record that a document offers, by file name; what it lists as removed is not offered."""
    found = [
        Entry(filename, section, raw)
        for section, bucket in (("packages", document.packages), ("packages.conda", document.packages_conda))
        for filename, raw in (bucket or {}).items()
    ]
    for extension, records in (document.v3 or {}).items():
        if known_bucket(extension):
            found.extend(v3_entries(extension, records or {}))
    if document.removed:
        removed = set(document.removed)
        found = [entry for entry in found if entry.filename not in removed]
    found.sort(key=itemgetter(0, 1))
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
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    return url if isinstance(url, str) else ""


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
