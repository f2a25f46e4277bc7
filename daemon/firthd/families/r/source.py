"""The only place that knows what the address of a CRAN-like source may look like."""

import re
from functools import partial

from firthd.families.source import AddressStyle
from firthd.families.source import normalise as _normalise

_INDEX_FILE = re.compile(r"PACKAGES(\.gz|\.rds)?|index\.html|(archive|current)\.rds")
_BELOW = re.compile(r"/(src|bin/(windows|macosx)(/[A-Za-z0-9_.-]+)?)(/contrib(/(Archive|Meta|[0-9]+\.[0-9]+))?)?/?")


def _corrected(segments: list[str], warnings: list[str]) -> list[str]:
    """Return the segments without the folder of packages and its index at their end: people copy those."""
    kept = list(segments)
    if kept and _INDEX_FILE.fullmatch(kept[-1]):
        kept.pop()
    for length in range(min(5, len(kept)), 0, -1):
        if _BELOW.fullmatch("/" + "/".join(kept[-length:])):
            kept = kept[:-length]
            break
    if kept != segments:
        cut = "/".join(segments[len(kept) :])
        warnings.append(f"/{cut} was left off: a source is the CRAN root, the folder that holds src/contrib")
    return kept


STYLE = AddressStyle(
    example="https://cran.example.org",
    corrected=_corrected,
    is_folder=lambda segment: segment in {"src", "bin", "cran"},
)
normalise = partial(_normalise, STYLE)
