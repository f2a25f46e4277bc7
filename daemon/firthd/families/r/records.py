"""The only place that says what a valid record of an R package is, and when two records are the same.

A record is a stanza of PACKAGES (DCF) as the source wrote it, less carriage returns. A file of the archive, of which
a source says no more than size and time, has a stanza of ours with the same field names and two of our own.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec
from msgspec import Raw

from firthd.families.base import Entry, Facts, InvalidRecordError, SourceRecord
from firthd.families.r.dcf import fields_of, spelled
from firthd.families.r.names import depends_problem, extension_of, filename_problem, valid_name, valid_version
from firthd.store.worker_reads import ShownRow

LISTED, ARCHIVED = "packages", "archive"
"""Sections: what PACKAGES lists, and what lies in the archive."""
SIZE, MODIFIED = "Firth-Size", "Firth-Modified"
"""Fields of an archived file's stanza: bytes, seconds since the epoch."""
NOW_SIZE, NOW_MODIFIED = "Firth-Now-Size", "Firth-Now-Modified"
"""The same of a listed file, behind the source's own fields: what a table beside the index says of it."""
OURS = "Firth-"
"""How our fields begin, which no source has."""
_BESIDE = b"\nFirth-Now-"
FINGERPRINT_BYTES = 16
LICENSE_MAX = 500
SIZE_MAX = 2**44
TIME_MAX = 253402300799

DEPENDING = ("Depends", "Imports", "LinkingTo")
BASE = frozenset(
    {"R", "base", "compiler", "datasets", "graphics", "grDevices", "grid", "methods", "parallel", "splines", "stats"}
    | {"stats4", "tcltk", "tools", "translations", "utils"}
)
"""What comes with every R."""

_MD5 = re.compile(r"[0-9A-Fa-f]{32}")
_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_UNPRINTABLE = re.compile(r"[^ -~\u00a1-\u1fff\u3000-\ud7ff]")
_DEPENDED = re.compile(r"[ \t\n]*([A-Za-z][A-Za-z0-9.]*)[ \t\n]*(?:\(([^()]*)\))?")
_encode_canonical = msgspec.json.Encoder(order="deterministic").encode


def filename_of(part: str, fields: Mapping[str, str]) -> str:
    """Return where a record's file lies below its part: Path, then File or the usual name."""
    name = fields.get("File") or f"{fields.get('Package', '')}_{fields.get('Version', '')}{extension_of(part)}"
    path = "/".join(segment for segment in fields.get("Path", "").split("/") if segment not in ("", "."))
    return f"{path}/{name}" if path else name


def archived_stanza(name: str, version: str, filename: str, size: int | None, modified_s: int | None) -> bytes:
    """Return the stanza of a file of the archive."""
    fields = {"Package": name, "Version": version, "File": filename}
    if size is not None:
        fields[SIZE] = str(size)
    if modified_s is not None:
        fields[MODIFIED] = str(modified_s)
    return spelled(fields)


def dated(raw: bytes, fields: Mapping[str, str], beside: tuple[int | None, int | None] | None) -> bytes:
    """Return a listed stanza with what a table beside the index says of its file, bytes and seconds.

    The size counts where no digest tells whether a file is the right one; the time, where the stanza has no day.
    """
    size, modified_s = beside or (None, None)
    if size is not None and not md5_told(fields):
        raw = b"%b\n%b: %d" % (raw, NOW_SIZE.encode(), size)
    if modified_s is not None and timestamp_of(fields) is None:
        raw = b"%b\n%b: %d" % (raw, NOW_MODIFIED.encode(), modified_s)
    return raw


def as_listed(raw: bytes) -> bytes:
    """Return a stanza as its source has it, without what was put behind it here."""
    return raw.partition(_BESIDE)[0]


def identity(row: ShownRow) -> bytes:
    """Return 16 bytes of a record that are the same whatever stands beside the index of its source."""
    return fingerprint(as_listed(row.raw)) if _BESIDE in row.raw else row.fingerprint


def fingerprint(raw: Raw | bytes) -> bytes:
    """Return 16 bytes that are equal for two spellings of one record, which every published form can hold.

    The order of fields, line breaks, white space and the case of MD5 make no difference; nor does it how large a
    listed file is and how old, once it is known. Raises InvalidRecordError.
    """
    return blake2b(_canonical(fields_of(bytes(raw))), digest_size=FINGERPRINT_BYTES).digest()


def _canonical(fields: Mapping[str, str]) -> bytes:
    spelled = {name: " ".join(value.split()) for name, value in fields.items()}
    for name in (NOW_SIZE, NOW_MODIFIED):  # a source that is copied anew every day has new times every day
        if name in spelled:
            spelled[name] = ""
    if "MD5sum" in spelled:
        spelled["MD5sum"] = spelled["MD5sum"].lower()
    return _encode_canonical(spelled)


def source_record(entry: Entry, fingerprint: bytes) -> SourceRecord:
    """Check one record and the path of its file; return its columns. Raises InvalidRecordError with the reason."""
    fields = fields_of(bytes(entry.raw))
    if (problem := record_problem(fields, entry.section)) or (problem := filename_problem(entry.filename)):
        raise InvalidRecordError(problem)
    md5 = md5_of(fields)
    return SourceRecord(
        section=entry.section,
        filename=entry.filename,
        name=fields["Package"],
        version=fields["Version"],
        build="",
        build_number=0,
        size=size_of(fields),
        sha256=None,
        md5=md5,
        declared=1 if md5 else 0,
        license=license_of(fields),
        timestamp=timestamp_of(fields),
        fingerprint=fingerprint,
        raw=entry.raw,
    )


def record_problem(fields: Mapping[str, str], section: str) -> str | None:
    """Return why a record cannot be taken, None when it can: the first thing at which R or pak would stop."""
    if not valid_name(fields.get("Package", "")):
        return "the record's name is not one that an R package can have"
    version = fields.get("Version", "")
    if section == ARCHIVED:  # no client reads the versions of all that lies there
        return None if 0 < len(version) <= 64 and version.isprintable() else "the version is none"
    if not valid_version(version):
        return "R cannot compare the version, and would refuse every repository that has the package twice"
    return depends_problem(fields.get("Depends", ""))


def md5_told(fields: Mapping[str, str]) -> str:
    """Return what stands where a record's MD5 should, empty for none."""
    told = fields.get("MD5sum", "")
    return "" if told == "NA" else told


def size_of(fields: Mapping[str, str]) -> int | None:
    """Return how many bytes a file has, as far as a table of files says it."""
    return _number(fields.get(SIZE) or fields.get(NOW_SIZE), SIZE_MAX) or None


def md5_of(fields: Mapping[str, str]) -> bytes | None:
    """Return a record's MD5; raises InvalidRecordError for something else in its place."""
    if not (told := md5_told(fields)):
        return None
    if _MD5.fullmatch(told) is None:
        raise InvalidRecordError("the MD5sum is not 32 hexadecimal digits")
    return bytes.fromhex(told)


def license_of(fields: Mapping[str, str]) -> str | None:
    """Return the licence as it is shown, None where there is none."""
    return printable(" ".join(fields["License"].split()), LICENSE_MAX) if fields.get("License") else None


def timestamp_of(fields: Mapping[str, str]) -> int | None:
    """Return when a package was published, in milliseconds: what its record or the archive says."""
    modified = _number(fields.get(MODIFIED) or fields.get(NOW_MODIFIED), TIME_MAX)
    if modified is not None:
        return modified * 1000
    told = _DATE.match(fields.get("Published") or fields.get("Date/Publication") or "")
    if told is None:
        return None
    try:
        return int(datetime.fromisoformat(told[0]).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return None


def _number(told: str | None, most: int) -> int | None:
    return int(told) if told and len(told) <= 15 and told.isascii() and told.isdigit() and int(told) <= most else None


def printable(text: str, length: int) -> str:
    """Return a text from a source, cut and without what a terminal would act on."""
    text = text[:length]
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub("?", text)


def requirements_of(fields: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield name and comparison ("" for none) of what a record needs to be installed."""
    for field in DEPENDING:
        for item in fields.get(field, "").split(","):
            match = _DEPENDED.match(item)
            if match is not None:
                yield match[1], " ".join((match[2] or "").split())


def depended_on(raw: bytes) -> Iterator[str]:
    """Yield the packages that a record depends on, without those that come with R."""
    try:
        fields = fields_of(raw)
    except InvalidRecordError:  # of a row that the renderer leaves out
        return
    for name, _ in requirements_of(fields):
        if name not in BASE:
            yield name


def facts(part: str, raw: bytes) -> Facts:
    """Return what rules need to know of one record; raises ValueError for what is no record."""
    fields = fields_of(raw)
    md5 = md5_of(fields)
    if not fields.get("Package"):
        raise ValueError("the record has no name")
    return Facts(
        name=fields["Package"],
        version=fields.get("Version", ""),
        build="",
        build_number=0,
        part=part,
        license=license_of(fields),
        timestamp=timestamp_of(fields),
        size=size_of(fields),
        sha256=None,
        md5=md5.hex() if md5 else None,
        depends=[f"{name} ({needs})" if needs else name for name, needs in requirements_of(fields)],
    )
