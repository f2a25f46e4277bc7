"""The only place that says what a valid record of a Python file is, and when two records are the same.

A record is an entry of `files` of a project's page (PEP 691): a JSON object, kept as the bytes that the source sent,
or made of a link's attributes where the source has HTML only. A file of core metadata is a record of its own.
"""

import re
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct, field

from firthd.families.base import Entry, InvalidRecordError, SourceRecord
from firthd.families.python.names import METADATA_ENDING, filename_problem, taken_apart
from firthd.store.columns import ALONG
from firthd.store.promises import Promise, promise_of
from firthd.store.worker_reads import ShownRow
from firthd.upstream.masking import holds_user, printable, without_users

FILES, METADATA = "files", f"{ALONG}metadata"
"""The sections of a project: its files, and the core metadata of those that have it apart."""
SIZE_MAX = 2**44
RECORD_MAX_BYTES = 1 << 18
FINGERPRINT_BYTES = 16

_hex = re.compile(r"[0-9a-fA-F]+").fullmatch
_ADDRESSES = ("url", "core-metadata", "data-dist-info-metadata", "dist-info-metadata", "hashes", "size")


class FileFields(Struct, gc=False, rename="kebab"):
    """What we look at of a record; the types are what clients insist on."""

    filename: str
    url: str
    hashes: dict[str, str | None] = {}
    requires_python: str | None = None
    size: int | None = None
    upload_time: str | None = None
    yanked: bool | str | None = None
    core_metadata: object = None
    data_dist_info_metadata: object = None
    dist_info_metadata: object = None
    provenance: str | None = None
    gpg_sig: bool | None = field(default=None, name="gpg-sig")

    @property
    def metadata(self) -> object:
        """What is said of the file's core metadata, by the newest of the names that it has had (PEP 714)."""
        told = (self.core_metadata, self.data_dist_info_metadata, self.dist_info_metadata)
        return next((one for one in told if one is not None), None)


_decode_fields = msgspec.json.Decoder(FileFields).decode
_decode_object = msgspec.json.Decoder(dict[str, object]).decode
_encode = msgspec.json.Encoder().encode
_encode_canonical = msgspec.json.Encoder(order="deterministic").encode


def decoded(raw: Raw | bytes) -> dict[str, object]:
    """Return a record as an object; raise InvalidRecordError for what is none."""
    try:
        return _decode_object(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidRecordError(f"the record is no JSON object: {printable(str(error))[:200]}") from None
    except RecursionError:
        raise InvalidRecordError("the record is nested too deeply") from None


def fields_of(raw: Raw | bytes) -> FileFields:
    """Decode what we need of a record; raise InvalidRecordError for what is none."""
    if len(bytes(raw)) > RECORD_MAX_BYTES:
        raise InvalidRecordError(f"the record has more than {RECORD_MAX_BYTES:,} bytes")
    try:
        return _decode_fields(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidRecordError(f"the record is not as it should be: {printable(str(error))[:200]}") from None
    except RecursionError:
        raise InvalidRecordError("the record is nested too deeply") from None


def fingerprint(raw: Raw | bytes) -> bytes:
    """Return 16 bytes that are equal for two spellings of one record; raise InvalidRecordError for what is none."""
    fields_of(raw)
    return _digest(decoded(raw))


def fingerprint_without_addresses(raw: bytes) -> bytes:
    """Return 16 bytes of a record less what another server says otherwise of the same file.

    What is null or false is as if it were absent; digests and the core metadata's presence are counted apart.
    """
    record = {
        key: value
        for key, value in decoded(raw).items()
        if key not in _ADDRESSES and not key.startswith("_") and value not in (None, False)
    }
    if not is_public(record.get("provenance")):
        record.pop("provenance", None)
    return _digest(record)


def is_public(address: object) -> bool:
    """Tell whether this is an address that clients of any server can ask (PEP 740 wants https)."""
    return isinstance(address, str) and address.startswith("https://") and not holds_user(address)


def without_users_in(raw: Raw | bytes) -> bytes | None:
    """Return a record without the users and passwords in its addresses; None where there are none, or no record."""
    try:
        record = decoded(raw)
        provenance = record.get("provenance")
        if isinstance(provenance, str) and holds_user(provenance):  # nobody else could ask for it
            del record["provenance"]
        spelled = _encode(record)
    except (InvalidRecordError, OverflowError, msgspec.MsgspecError, ValueError):
        return None  # what is no record is not kept
    clean = without_users(spelled)
    return None if clean == spelled and record.get("provenance") == provenance else clean


def _digest(record: dict[str, object]) -> bytes:
    try:
        return blake2b(without_users(_encode_canonical(record)), digest_size=FINGERPRINT_BYTES).digest()
    except (OverflowError, msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidRecordError("the record holds a value that no page can hold") from None


def source_record(entry: Entry, print16: bytes) -> SourceRecord:
    """Check one record and its file name; return its columns. Raises InvalidRecordError with the reason."""
    fields = fields_of(entry.raw)
    problem = filename_problem(entry.filename)
    if problem is None and entry.section == FILES and entry.filename.endswith(METADATA_ENDING):
        problem = "the file name is that of another file's metadata"
    if problem is None and entry.filename != fields.filename:
        problem = "the record names another file"
    if problem is None and not fields.url:
        problem = "the record has no address"
    if problem is None and fields.size is not None and not 0 <= fields.size < SIZE_MAX:
        problem = "the size is no possible size"
    if problem is not None:
        raise InvalidRecordError(problem)
    sha256, md5 = digests(fields)
    other = None if sha256 else _promise(fields)
    return SourceRecord(
        section=entry.section,
        filename=entry.filename,
        name=entry.package,
        version=taken_apart(entry.filename.removesuffix(METADATA_ENDING), entry.package).version,
        build="",
        build_number=0,
        size=fields.size or None,
        sha256=sha256,
        md5=md5,
        declared=2 if sha256 else 1 if md5 or other else 0,
        license=None,
        timestamp=milliseconds(fields.upload_time),
        fingerprint=print16,
        raw=entry.raw,
    )


def digests(fields: FileFields) -> tuple[bytes | None, bytes | None]:
    """Return sha256 and md5 as a record declares them; raise InvalidRecordError for what is no digest."""
    hashes = {name.lower(): value for name, value in fields.hashes.items()}
    found = []
    for name, size in (("sha256", 32), ("md5", 16)):
        value = hashes.get(name)
        if value and (len(value) != 2 * size or _hex(value) is None):
            raise InvalidRecordError(f"its {name} is none")
        found.append(bytes.fromhex(value) if value else None)
    return found[0], found[1]


def promised(raw: bytes) -> Promise | None:
    """Return the digest that a record without sha256 declares; None where none can be checked."""
    try:
        fields = fields_of(raw)
        return None if digests(fields)[0] else _promise(fields)
    except InvalidRecordError:
        return None


def _promise(fields: FileFields) -> Promise | None:
    try:
        return promise_of({name.lower(): value for name, value in fields.hashes.items()})
    except ValueError as error:
        raise InvalidRecordError(str(error)) from None


def milliseconds(time: str | None) -> int | None:
    """Return an upload time as milliseconds since the epoch, None for what is none."""
    if not time:
        return None
    try:
        parsed = datetime.fromisoformat(time)
        return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def metadata_entry(project: str, filename: str, raw: Raw | bytes) -> Entry | None:
    """Return the record of a file's core metadata where its own record says that there is some (PEP 658, PEP 714)."""
    if b"-metadata" not in bytes(raw):
        return None
    try:
        fields = fields_of(raw)
    except InvalidRecordError:
        return None
    told = fields.metadata
    if not told:
        return None
    hashes = {name: value for name, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}
    record: dict[str, object] = {
        "filename": f"{filename}{METADATA_ENDING}",
        "url": f"{fields.url.partition('#')[0]}{METADATA_ENDING}",
        "hashes": hashes,
    }
    also = (("upload-time", fields.upload_time), ("requires-python", fields.requires_python))
    record |= {key: value for key, value in also if value}
    return Entry(f"{filename}{METADATA_ENDING}", METADATA, msgspec.json.encode(record), project)


def check_row(row: ShownRow) -> None:
    """Raise InvalidRecordError unless every form of a page can hold a row's record."""
    fingerprint(row.raw)
