"""The only place that reads conda specs (MatchSpec, CEP 29) and the facts of a record that they speak of."""

import msgspec
import rattler
from msgspec import Struct

from firth_protocol.errors import Invalid
from firthd.families.base import Facts, InvalidRecordError
from firthd.families.conda.records import RecordFields, checked, fields_of, license_of, milliseconds, printable

SPEC_MAX = 1024

_decode_depends = msgspec.json.Decoder(dict[str, object]).decode


class CondaRequirement(Struct, frozen=True):
    """A parsed MatchSpec."""

    spec: rattler.MatchSpec

    @property
    def name(self) -> str | None:
        """The exact name it asks for."""
        name = self.spec.name
        return None if name is None else name.normalized

    def matches(self, facts: Facts) -> bool:
        """Tell whether a record meets it; one whose version no client could order meets none."""
        try:
            record = rattler.PackageRecord(
                name=facts.name,
                version=facts.version,
                build=rattler.BuildString(facts.build),
                build_number=facts.build_number,
                subdir=facts.part,
            )
        except Exception:
            return False
        return bool(self.spec.matches(record))


def requirement(spec: str) -> CondaRequirement:
    """Parse a spec such as `numpy >=1.26,<3`; raises Invalid with the reason."""
    if len(spec) > SPEC_MAX:
        raise Invalid("The spec is too long.", hint="A spec names one package, such as `numpy >=1.26`.")
    try:
        return CondaRequirement(rattler.MatchSpec(spec))
    except Exception as error:  # py-rattler's own classes
        reason = printable(str(error), 300)
        raise Invalid(f"{spec!r} is no conda spec: {reason}", hint="Write it such as `numpy >=1.26,<3`.") from None


def facts(subdir: str, raw: bytes) -> Facts:
    """Return what rules need to know of a record; raises ValueError for what is no record."""
    try:
        fields: RecordFields = fields_of(raw)
        size, sha256, md5 = checked(fields)
        depends = _decode_depends(raw).get("depends")
    except InvalidRecordError as error:
        raise ValueError(str(error)) from None
    return Facts(
        name=fields.name,
        version=fields.version,
        build=fields.build,
        build_number=fields.build_number,
        part=subdir,
        license=license_of(fields),
        timestamp=milliseconds(fields.timestamp),
        size=size,
        sha256=sha256.hex() if sha256 else None,
        md5=md5.hex() if md5 else None,
        depends=[spec for spec in depends if isinstance(spec, str)] if isinstance(depends, list) else [],
    )
