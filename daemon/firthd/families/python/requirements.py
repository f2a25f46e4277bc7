"""The only place that reads specs of Python packages (PEP 508) and the facts of a record that they speak of."""

from collections.abc import Collection
from pathlib import Path

from msgspec import Struct
from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Parsed
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from firth_protocol.errors import Invalid
from firthd.families.base import Facts, InvalidRecordError
from firthd.families.python.archives import METADATA_MAX_BYTES, metadata_of_wheel
from firthd.families.python.names import METADATA_ENDING, normalised, parsed_version, taken_apart
from firthd.families.python.records import digests, fields_of, milliseconds
from firthd.upstream.masking import printable

SPEC_MAX = 1024
NEEDS_MAX = 500
HINT = "Write it such as `numpy >=1.26,<3`."

Key = tuple[int, Version | None, str]


class PythonRequirement(Struct, frozen=True):
    """A parsed spec: a name and the versions that it takes."""

    project: str
    versions: SpecifierSet

    @property
    def name(self) -> str | None:
        """The exact name it asks for."""
        return self.project

    def matches(self, facts: Facts) -> bool:
        """Tell whether a record meets it; a version that is none meets only a spec of no version."""
        if facts.name != self.project:
            return False
        version = parsed_version(facts.version)
        if version is None:
            return not len(self.versions)
        return self.versions.contains(version, prereleases=True)


def requirement(spec: str) -> PythonRequirement:
    """Parse a spec such as `numpy >=1.26,<3`; raise Invalid with the reason."""
    if len(spec) > SPEC_MAX:
        raise Invalid("The spec is too long.", hint=HINT)
    try:
        parsed = Parsed(spec)
    except (InvalidRequirement, ValueError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise Invalid(f"{spec!r} is no spec of a Python package: {reason}", hint=HINT) from None
    if parsed.url or parsed.marker or parsed.extras:
        raise Invalid(f"{spec!r} names more than a project and versions", hint=HINT)
    return PythonRequirement(normalised(parsed.name), parsed.specifier)


def facts(part: str, raw: bytes) -> Facts:
    """Return what rules need to know of a record; raise ValueError for what is no record."""
    try:
        fields = fields_of(raw)
        sha256, md5 = digests(fields)
    except InvalidRecordError as error:
        raise ValueError(str(error)) from None
    return Facts(
        name=part,
        version=taken_apart(fields.filename.removesuffix(METADATA_ENDING), part).version,
        build="",
        build_number=0,
        part=part,
        license=None,
        timestamp=milliseconds(fields.upload_time),
        size=fields.size or None,
        sha256=sha256.hex() if sha256 else None,
        md5=md5.hex() if md5 else None,
        depends=[],
    )


def needs(path: Path, filename: str) -> list[str]:
    """Return what a file of core metadata, or a wheel, says that it needs; raise ValueError for another. Blocks."""
    if filename.endswith(METADATA_ENDING):
        with path.open("rb") as file:
            content = file.read(METADATA_MAX_BYTES)
    elif filename.endswith(".whl"):
        content = metadata_of_wheel(path)
    else:
        raise ValueError("only wheels say what they need without being built")
    from packaging.metadata import parse_email  # 20 ms, which most workers of the family need not take

    told, _ = parse_email(content)
    if not told.get("metadata_version"):
        raise ValueError("it is no core metadata")
    return [printable(text)[:SPEC_MAX] for text in told.get("requires_dist", [])[:NEEDS_MAX]]


def version_key(version: str) -> Key:
    """Return a sort key; what is no version comes before all that are."""
    parsed = parsed_version(version)
    return (0, None, version) if parsed is None else (1, parsed, version)


def sort_versions(versions: Collection[str]) -> list[str]:
    """Return versions, newest first."""
    return sorted(versions, key=version_key, reverse=True)
