"""The only place that says what a valid conda record is, and when two records are the same.

A record is one package file's metadata: a JSON object (CEP 36). It is kept as the bytes that the source sent; only
the few fields that our own tables need are decoded.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from firthd.families.base import Entry, InvalidRecordError, SourceRecord
from firthd.families.conda.names import safe_filename, safe_usual
from firthd.families.conda.writable import (
    RECORD_MAX_BYTES,
    UnwritableError,
    check_bounds,
    check_keys,
    check_writable,
    possible_time,
)

SIZE_MAX = 2**44
"""Bytes that one file can have on the disks that there are."""
NUMBER_MAX = 2**53
LICENSE_MAX = 500
SECONDS_BELOW = 253402300799  # a smaller timestamp is in seconds: old builds wrote those
FINGERPRINT_BYTES = 16
V3 = "v3."
PLAIN_SECTIONS = {"packages": (".tar.bz2",), "packages.conda": (".conda",)}

_name_of_spec = re.compile(r"(?:.*::)?\s*([A-Za-z0-9_.-]+)").match
unprintable = re.compile(r"[^ -~\u00a1-\u1fff\u3000-\ud7ff]")


class RecordFields(Struct, gc=False):
    """The fields of a record that become columns; the types are what clients insist on."""

    name: str
    version: str
    build: str = ""
    build_number: int = 0
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    license: object = None
    timestamp: object = None
    depends: list[str] = []
    constrains: list[str] = []


class UsualRecord(Struct, gc=False, forbid_unknown_fields=True):
    """A record with nothing in it but what most records have, each of its usual type: its proof is a few comparisons.

    The keys stand in the order of their spelling, so that this is written as the same record is in any other way.
    """

    arch: str | None | UnsetType = UNSET
    build: str | UnsetType = UNSET
    build_number: int | float | UnsetType = UNSET
    constrains: list[str] | UnsetType = UNSET
    depends: list[str] | UnsetType = UNSET
    features: str | None | UnsetType = UNSET
    legacy_bz2_md5: str | None | UnsetType = UNSET
    legacy_bz2_size: int | float | UnsetType = UNSET
    license: str | None | UnsetType = UNSET
    license_family: str | None | UnsetType = UNSET
    md5: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    noarch: str | bool | None | UnsetType = UNSET
    platform: str | None | UnsetType = UNSET
    python_site_packages_path: str | UnsetType = UNSET
    sha256: str | UnsetType = UNSET
    size: int | float | UnsetType = UNSET
    subdir: str | UnsetType = UNSET
    timestamp: int | float | UnsetType = UNSET
    track_features: str | None | UnsetType = UNSET
    version: str | UnsetType = UNSET


class Depends(Struct, gc=False):
    """What of a record is looked at to tell what it depends on."""

    depends: object = None


_decode_depends = msgspec.json.Decoder(Depends).decode
_decode_usual = msgspec.json.Decoder(UsualRecord).decode
_from_hex = bytes.fromhex
_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(RecordFields).decode
_decode_object = msgspec.json.Decoder(dict[str, object]).decode
_encode_canonical = msgspec.json.Encoder(order="deterministic").encode


def source_record(entry: Entry, fingerprint: bytes) -> SourceRecord:
    """Check one record and its file name; return its columns. Raises InvalidRecordError with the reason."""
    fields = fields_of(entry.raw)
    try:
        safe_filename(entry.filename, fields.name, fields.version, fields.build, extensions_of(entry.section))
    except ValueError as error:
        raise InvalidRecordError(str(error)) from None
    size, sha256, md5 = checked(fields)
    return SourceRecord(
        section=entry.section,
        filename=entry.filename,
        name=fields.name,
        version=fields.version,
        build=fields.build,
        build_number=fields.build_number,
        size=size,
        sha256=sha256,
        md5=md5,
        declared=2 if sha256 else 1 if md5 else 0,
        license=license_of(fields),
        timestamp=milliseconds(fields.timestamp),
        fingerprint=fingerprint,
        raw=entry.raw,
    )


def usual_record_of(entry: Entry) -> SourceRecord | None:
    """Return the columns of a usual record, proven as `fingerprint` and `source_record` do it, decoded once.

    None: it must be looked at closely, and may be none at all.
    """
    filename, section, raw, _ = entry
    if section not in PLAIN_SECTIONS or (found := usual(bytes(raw))) is None:
        return None
    record, spelled = found
    name, version, build, size, time = record.name, record.version, record.build, record.size, record.timestamp
    if name is UNSET or version is UNSET or build is UNSET or not safe_usual(filename, name, version, build):
        return None
    if size is not UNSET and not 0 <= size < SIZE_MAX:
        return None
    sha256 = md5 = None
    try:  # white space between digits stands for nothing: both lengths tell that there is none
        if (text := record.sha256) is not UNSET:
            sha256 = _from_hex(text)
            if len(sha256) != 32 or len(text) != 64:
                return None
        if (text := record.md5) is not UNSET:
            md5 = _from_hex(text)
            if len(md5) != 16 or len(text) != 32:
                return None
    except ValueError:
        return None
    return SourceRecord(
        section,
        filename,
        name,
        version,
        build,
        0 if record.build_number is UNSET else int(record.build_number),
        None if size is UNSET else int(size) or None,
        sha256,
        md5,
        2 if sha256 else 1 if md5 else 0,
        _usual_license(record.license),
        milliseconds(time),
        plain_print(spelled),
        raw,
    )


def fields_of(raw: Raw | bytes) -> RecordFields:
    """Decode what we need of a record; raises InvalidRecordError for what is none."""
    try:
        return _decode_fields(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidRecordError(f"the record is not as it should be: {printable(str(error), 200)}") from None
    except RecursionError:
        raise InvalidRecordError("the record is nested too deeply") from None


def checked(fields: RecordFields) -> tuple[int | None, bytes | None, bytes | None]:
    """Check a record's numbers and digests; return size, sha256, md5. Raises InvalidRecordError with the reason.

    No package is empty: a size of 0 is one that its source did not know.
    """
    size = fields.size
    if size is not None and not 0 <= size < SIZE_MAX:
        raise InvalidRecordError("the size is no possible size")
    if not -NUMBER_MAX < fields.build_number < NUMBER_MAX:
        raise InvalidRecordError("the build number is out of range")
    return size or None, digest(fields.sha256, 32, "sha256"), digest(fields.md5, 16, "md5")


def license_of(fields: RecordFields) -> str | None:
    """Return the licence as it is shown, None for what is no text."""
    return license_text(fields.license)


def license_text(value: object) -> str | None:
    """Return what a record says of its licence as it is shown, None for what is no text."""
    return printable(value, LICENSE_MAX) if isinstance(value, str) else None


_usual_license = lru_cache(maxsize=1024)(license_text)
"""Most records have one of a few."""


def printable(text: str, length: int) -> str:
    """Return a text from a source, cut and without what a terminal would act on."""
    text = text[:length]
    return text if text.isascii() and text.isprintable() else unprintable.sub("?", text)


def extensions_of(section: str) -> tuple[str]:
    """Return the one extension of a section's files."""
    return PLAIN_SECTIONS.get(section) or ("." + section.removeprefix(V3),)


def digest(text: str | None, length: int, what: str) -> bytes | None:
    """Return a digest's bytes; an absent or empty one is none."""
    if not text:
        return None
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != length or len(text) != 2 * length:
        raise InvalidRecordError(f"the {what} is not {2 * length} hexadecimal digits")
    return value


def milliseconds(timestamp: object) -> int | None:
    """Return a record's timestamp in milliseconds, None for what is none."""
    if type(timestamp) is int and SECONDS_BELOW <= timestamp < NUMBER_MAX:
        return timestamp  # as nearly all are
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float) or not 0 < timestamp < NUMBER_MAX:
        return None
    return int(timestamp * 1000 if timestamp < SECONDS_BELOW else timestamp)


def fingerprint(raw: Raw | bytes) -> bytes:
    """Return 16 bytes that are equal for two spellings of one record, which is proven to be writable.

    White space, the order of keys, the case of hashes, null hashes and `run_exports` (which only shards carry, CEP 21)
    make no difference. Raises InvalidRecordError for a record that cannot be read as a whole, or that some published
    form cannot hold: the proof costs little here, where the record is decoded and spelled anew anyway.
    """
    content = bytes(raw)
    return plain_print(spelled_if_usual(content) or spelled_closely(content))


def spelled_closely(raw: bytes) -> bytes:
    """Return the one spelling of any record; raises InvalidRecordError as `fingerprint` does."""
    try:
        check_bounds(raw)
        record = _decode_object(raw)
        check_writable(record, raw)
        keys = len(record)
        spelled = canonical(record)
        check_keys(raw, spelled, whole=len(record) == keys)
    except UnwritableError as error:
        raise InvalidRecordError(str(error)) from None
    except (msgspec.MsgspecError, ValueError) as error:  # Python's own limit on the digits of integers is a ValueError
        raise InvalidRecordError(f"the record cannot be kept: {printable(str(error), 200)}") from None
    return spelled


def plain_print(raw: Raw | bytes) -> bytes:
    """Return the fingerprint of a record that is spelled as fingerprints are taken: in order, without white space.

    Most sources write all of their records so.
    """
    return blake2b(raw, digest_size=FINGERPRINT_BYTES).digest()


def spelled_if_usual(raw: bytes) -> bytes | None:
    """Return the one spelling of a usual record that every form can hold; None: it must be looked at closely."""
    found = usual(raw)
    return None if found is None else found[1]


def usual(raw: bytes) -> tuple[UsualRecord, bytes] | None:
    """Return a usual record that every form can hold, and its one spelling; None: it must be looked at closely.

    Without a backslash no text holds a NUL, and equal numbers of quotation marks mean that no key was there twice.
    """
    record = None if b"\\" in raw or len(raw) > RECORD_MAX_BYTES else usual_record(raw)
    if record is None:
        return None
    size, number, old_size, time = record.size, record.build_number, record.legacy_bz2_size, record.timestamp
    if not (type(size) is int and -NUMBER_MAX < size < NUMBER_MAX) and size is not UNSET:
        return None
    if not (type(number) is int and -NUMBER_MAX < number < NUMBER_MAX) and number is not UNSET:
        return None
    if old_size is not UNSET and not (type(old_size) is int and -NUMBER_MAX < old_size < NUMBER_MAX):
        return None
    if time is not UNSET and not possible_time(time):
        return None
    md5, sha256 = record.md5, record.sha256
    if md5 is not UNSET and (not md5 or md5 != md5.lower()):
        return None
    if sha256 is not UNSET and (not sha256 or sha256 != sha256.lower()):
        return None
    spelled = _encode(record)
    return (record, spelled) if raw == spelled or raw.count(b'"') == spelled.count(b'"') else None


def usual_record(raw: bytes) -> UsualRecord | None:
    """Return a record decoded if it has nothing in it but what most have; what it holds is not looked at."""
    try:
        return _decode_usual(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def fingerprint_without_url(raw: Raw | bytes) -> bytes:
    """Return the fingerprint of a record that may say where its file is, less that; of one that was found valid."""
    record = _decode_object(bytes(raw))
    record.pop("url", None)
    return blake2b(canonical(record), digest_size=FINGERPRINT_BYTES).digest()


def canonical(record: dict[str, object]) -> bytes:
    """Return the one spelling of a record that its fingerprint is taken over; changes `record`."""
    record.pop("run_exports", None)
    for key in ("sha256", "md5"):
        value = record.get(key)
        if isinstance(value, str) and value:
            record[key] = value.lower()
        elif isinstance(value, bytes) and value:  # as a shard has it
            record[key] = value.hex()
        else:
            record.pop(key, None)
    return _encode_canonical(record)


def depended_on(raw: bytes) -> Iterator[str]:
    """Yield the names that a record's specs ask for; specs that name nothing are passed over."""
    try:
        specs = _decode_depends(raw).depends
    except (msgspec.MsgspecError, ValueError, RecursionError):  # of a row that the renderer leaves out
        return
    for spec in specs if isinstance(specs, list) else []:
        match = _name_of_spec(spec) if isinstance(spec, str) else None
        if match is not None:
            yield match[1].lower()


def v3_key(name: str, version: str, build: str) -> str:
    """Return a record's key in a v3 bucket: the file name without its extension (CEP 48)."""
    return f"{name}-{version}-{build}"
