"""The only place that knows what a mirror of a conda channel may leave out."""

from firth_protocol.errors import Invalid
from firth_protocol.types import Filters
from firthd.families.conda.names import KNOWN_SUBDIRS, MAX_SUBDIR, NOARCH, valid_subdir

FIELDS = frozenset({"subdirs"})


def check_filters(filters: Filters) -> list[str]:
    """Return warnings; raise Invalid for subdirs that no channel can have."""
    if filters.subdirs is None:
        return []
    if not filters.subdirs:
        raise Invalid("filters.subdirs is empty", hint="leave it out for all subdirs", path="$.filters.subdirs")
    for number, subdir in enumerate(filters.subdirs):
        if not valid_subdir(subdir):
            raise Invalid(
                f"{subdir[:MAX_SUBDIR]!r} is no subdir",
                hint="a subdir is such as linux-64, osx-arm64 or noarch",
                path=f"$.filters.subdirs[{number}]",
            )
    unknown = [subdir for subdir in filters.subdirs if subdir not in KNOWN_SUBDIRS]
    return [f"no conda client knows the platform {subdir}: is it spelled right?" for subdir in unknown]


def only(filters: Filters) -> frozenset[str] | None:
    """Return the subdirs that the filters leave; noarch always is among them."""
    return None if filters.subdirs is None else frozenset({NOARCH, *filters.subdirs})
