"""The only place that makes the files beside a conda index, cut to what the channel shows (CEP 12, 21 and 38).

A source's `run_exports.json` and `channeldata.json` are passed on entry by entry, each from the mirror that the file or
the name belongs to. What a source does not have, the channel does not have.
"""

from collections.abc import Mapping, Sequence

import msgspec
import zstandard
from msgspec import Raw, Struct, field

from firth_protocol.errors import FirthError
from firthd.families.base import Output, Side, Spool
from firthd.families.conda.document import read_bytes, read_document
from firthd.families.conda.paths import CHANNELDATA, RUN_EXPORTS
from firthd.families.conda.repodata import zst_writer
from firthd.families.conda.writable import holds_nul

SIDE_MAX_BYTES = 1 << 30


class RunExports(Struct):
    """A run_exports.json; what it says of a file stays as it is written."""

    info: dict[str, object] = {}
    packages: dict[str, Raw] = {}
    packages_conda: dict[str, Raw] = field(default_factory=dict, name="packages.conda")


class Channeldata(Struct):
    """A channeldata.json; what it says of a package stays as it is written."""

    packages: dict[str, Raw] = {}


_decode_run_exports = msgspec.json.Decoder(RunExports).decode
_decode_channeldata = msgspec.json.Decoder(Channeldata).decode
_decode_signatures = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_record = msgspec.json.Decoder(dict[str, object]).decode
_encode = msgspec.json.Encoder(order="sorted").encode


def content_of(side: Side, out: Output) -> bytearray | None:
    """Return a side file's content; None, told, when it is damaged. Raises FileNotFoundError when it is gone."""
    try:
        spool = Spool(part=side.name, file=side.file, encoding=side.encoding)
        return read_bytes(spool, SIDE_MAX_BYTES)
    except FirthError as error:
        out.note(f"{side.name} of the source is left out: {error.message}")
        return None


def write_run_exports(subdir: str, shown: Mapping[str, int], sides: Sequence[Side], out: Output) -> None:
    """Write a subdir's run_exports.json and its compressed twin, for the files in `shown`: file name -> mirror.

    Ends them where no mirror has one. A copy that is just being replaced leaves them as they are: its own run follows.
    """
    path = f"{subdir}/{RUN_EXPORTS}"
    found: dict[int, RunExports] = {}
    for side in sides:
        try:
            content = content_of(side, out)
            if content is not None:
                found[side.mirror_id] = _decode_run_exports(content)
        except FileNotFoundError:
            return
        except (msgspec.MsgspecError, ValueError, RecursionError):
            out.note(f"{side.name} of the source is left out: it is no run_exports.json")
    if not found:
        for there in (path, f"{path}.zst"):
            if out.has(there):
                out.end(there)
        return
    first = next(iter(found.values())).info
    info = {key: first[key] for key in ("arch", "platform", "version") if key in first}
    sections: dict[str, dict[str, Raw]] = {"packages": {}, "packages.conda": {}}
    for filename in sorted(shown):
        theirs = found.get(shown[filename])
        if theirs is None:
            continue
        section = "packages.conda" if filename.endswith(".conda") else "packages"
        raw = theirs.packages_conda.get(filename) or theirs.packages.get(filename)
        if raw is not None:
            sections[section][filename] = raw
    content_out = _encode({"info": {"version": 1, **info, "subdir": subdir}, **sections})
    with out.open(path) as plain, out.open(f"{path}.zst") as zst:
        plain.write(content_out)
        writer = zst_writer(zst)
        writer.write(content_out)
        writer.flush(zstandard.FLUSH_FRAME)


def signatures_of(sides: Sequence[Side], served: Mapping[str, tuple[int, bytes]], out: Output) -> dict[str, Raw]:
    """Return the signatures of the records that are served as the source wrote them; `served`: name -> mirror, record.

    A signature is of the record beside which it stands: one of another mirror's, or of a newer one, says nothing.
    """
    found: dict[str, Raw] = {}
    for side in sides:
        try:
            document = read_document(Spool(part=side.beside, file=side.file, encoding=side.encoding), SIDE_MAX_BYTES)
            signatures = _decode_signatures(document.signatures)
        except (FirthError, OSError, msgspec.MsgspecError, ValueError, RecursionError):
            continue
        for filename, signature in signatures.items():
            mirror_id, raw = served.get(filename, (None, b""))
            theirs = (document.packages or {}).get(filename) or (document.packages_conda or {}).get(filename)
            if mirror_id == side.mirror_id and theirs is not None and bytes(theirs) == raw:
                found[filename] = signature
    return dict(sorted(found.items()))


def write_channeldata(out: Output) -> None:
    """Write channeldata.json for the packages that the channel shows; end it where no mirror has one."""
    sides = out.sides("")
    shown = out.packages() if sides else {}
    found: list[tuple[int, Channeldata]] = []
    for side in sides:
        try:
            content = content_of(side, out)
            if content is not None:
                found.append((side.mirror_id, _decode_channeldata(content)))
        except FileNotFoundError:
            return  # it is just being replaced: the run that does it publishes too
        except (msgspec.MsgspecError, ValueError, RecursionError):
            out.note(f"{side.name} of the source is left out: it is no channeldata.json")
    if not found:
        if out.has(CHANNELDATA):
            out.end(CHANNELDATA)
        return
    packages: dict[str, object] = {}
    for mirror_id, document in found:
        for name in document.packages.keys() & shown.keys():
            owners = shown[name].owners
            if (owners is None or mirror_id in owners) and name not in packages:
                entry = cut(document.packages[name], shown[name].version, shown[name].parts)
                if entry is not None:
                    packages[name] = entry
    subdirs = sorted({part for package in shown.values() for part in package.parts} | {"noarch"})
    with out.open(CHANNELDATA) as file:
        file.write(_encode({"channeldata_version": 1, "packages": packages, "subdirs": subdirs}))


def cut(raw: Raw, version: str, parts: Sequence[str]) -> object | None:
    """Return what is told of a package: its newest version and its subdirs are those that the channel shows."""
    try:
        entry = _decode_record(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if holds_nul(entry):
        return None
    theirs = entry.get("subdirs")
    same = isinstance(theirs, list) and set(parts) >= {str(subdir) for subdir in theirs}
    if same and entry.get("version") == version:
        return raw
    if "version" in entry:
        entry["version"] = version
    if isinstance(theirs, list):
        entry["subdirs"] = [subdir for subdir in theirs if subdir in parts]
    return entry
