"""The only place that goes on from a repodata.json that the channel serves: what did not change is not read from rows.

The text that comes out is the one that all rows would give, byte for byte: files that are lost are made again from
those.
"""

from collections.abc import Collection, Mapping

import msgspec
from msgspec import Raw, Struct, field

from firthd.families.conda.repodata import Served

Bucket = dict[str, Raw]


class Info(Struct, forbid_unknown_fields=True):
    """`info` of an index without v3 records."""

    subdir: str


class OwnIndex(Struct, forbid_unknown_fields=True):
    """A repodata.json of our own that can be gone on from: one with signatures or v3 records is made anew."""

    info: Info
    packages: Bucket
    removed: list[str]
    repodata_version: int
    packages_conda: Bucket = field(name="packages.conda")

    @property
    def sections(self) -> dict[str, Bucket]:
        return {"packages": self.packages, "packages.conda": self.packages_conda}

    def replace(self, filenames: Collection[str], sections: Mapping[str, list[Served]]) -> None:
        """Let these records be all that there is of these files; every record's file is one of them."""
        for section, bucket in self.sections.items():
            for filename in filenames:
                bucket.pop(filename, None)
            added = sections.get(section)
            if added:
                bucket.update((record.key, Raw(record.raw)) for record in added)
                in_order = sorted(bucket.items(), key=_filename)  # nearly sorted already: one pass
                bucket.clear()
                bucket.update(in_order)


_decode = msgspec.json.Decoder(OwnIndex).decode


def own_index(content: bytes | None, subdir: str) -> OwnIndex | None:
    """Return an index of our own, taken apart; None when it cannot be gone on from."""
    if content is None:
        return None
    try:
        found = _decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return found if found.info.subdir == subdir else None


def _filename(item: tuple[str, object]) -> str:
    return item[0]
