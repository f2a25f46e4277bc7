"""The only place that reads files of advisories; it runs in a worker process, for there may be a hundred thousand."""

import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec

from firth_protocol.errors import Invalid, TooLarge
from firthd.families import load_policing
from firthd.families.zips import DAMAGED
from firthd.index.messages import AdvisoriesParams, AdvisoriesResult
from firthd.policies.advisories import Advisory
from firthd.policies.osv import advisories_of, own_advisory
from firthd.worker import Report, TaskProgress

DOCUMENT_MAX_BYTES = 16_000_000
REPORT_EVERY = 1000
REASONS = 20
ZIP = b"PK\x03\x04"


def read_task(params: AdvisoriesParams, report: Report) -> AdvisoriesResult:
    """Read advisories and write those that name a package of a family, one a line.

    Raises Invalid for a place that cannot be read, TooLarge for more than `max_bytes`.
    """
    policings = {policing.family: policing for policing in map(load_policing, params.policings)}
    ecosystems = {one.ecosystem: one for one in policings.values() if one.ecosystem is not None}
    reasons: Counter[str] = Counter()
    read = withdrawn = size = 0
    with Path(params.out).open("wb") as out:
        for number, document in enumerate(_documents(Path(params.place), params.own)):
            if number % REPORT_EVERY == 0:
                report(TaskProgress(number, None, "advisories", f"{number:,} advisories read"))
            size += len(document)
            if size > params.max_bytes:
                raise TooLarge(f"the advisories have more than {params.max_bytes:,} bytes")
            found = own_advisory(document, policings) if params.own else advisories_of(document, ecosystems)
            if not isinstance(found, Advisory):
                reasons[found.why] += 1
                continue
            read += 1
            withdrawn += found.withdrawn
            out.write(msgspec.json.encode(found) + b"\n")
    return AdvisoriesResult(
        read=read, withdrawn=withdrawn, skipped=reasons.total(), reasons=dict(reasons.most_common(REASONS))
    )


def _documents(place: Path, own: bool) -> Iterator[bytes]:
    """Yield each document of a folder, a zip or a file; of our own format each line."""
    try:
        if place.is_dir():
            for file in sorted(place.rglob("*.jsonl" if own else "*.json")):
                if file.is_file() and not file.is_symlink():
                    yield from _of_file(file.read_bytes()[:DOCUMENT_MAX_BYTES], own)
            return
        if place.exists() and not place.is_file():  # whoever opens a pipe waits for somebody who writes
            raise Invalid("the advisories cannot be read: it is neither a file nor a folder", path="$.source")
        with place.open("rb") as opened:
            zipped = opened.read(4) == ZIP
        if zipped:
            yield from _of_zip(place, own)
        else:
            yield from _of_file(place.read_bytes(), own)
    except (OSError, *DAMAGED) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Invalid(f"the advisories cannot be read: {reason}", path="$.source") from None


def _of_zip(place: Path, own: bool) -> Iterator[bytes]:
    with zipfile.ZipFile(place) as packed:
        for member in packed.infolist():
            if member.filename.endswith(".jsonl" if own else ".json") and member.file_size <= DOCUMENT_MAX_BYTES:
                with packed.open(member) as opened:
                    yield from _of_file(opened.read(DOCUMENT_MAX_BYTES), own)


def _of_file(content: bytes, own: bool) -> Iterator[bytes]:
    if own:
        yield from (line for line in io.BytesIO(content) if line.strip())
    else:
        yield content
