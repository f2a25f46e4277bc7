"""The only place that knows what a conda source's address may look like."""

import re
from functools import partial

from firthd.families.conda.names import KNOWN_SUBDIRS, valid_subdir
from firthd.families.source import AddressStyle
from firthd.families.source import normalise as _normalise

LABEL = "label"

_INDEX_FILE = re.compile(r"(current_)?repodata(_from_packages|_shards)?\.[a-z0-9.]+|channeldata\.json|index\.html")


def _corrected(segments: list[str], warnings: list[str]) -> list[str]:
    """Return the segments without a subdir and an index file at their end: people copy those from a browser."""
    kept = list(segments)
    if kept and _INDEX_FILE.fullmatch(kept[-1]):
        kept.pop()
        if kept and valid_subdir(kept[-1]) and not _names_label(kept):
            kept.pop()
    elif kept and kept[-1] in KNOWN_SUBDIRS and not _names_label(kept):
        kept.pop()
    if kept != segments:
        cut = "/".join(segments[len(kept) :])
        warnings.append(f"/{cut} was left off: a source is the channel, the folder that holds its subdirs")
    return kept


def _names_label(segments: list[str]) -> bool:
    """Tell whether the last segment is a label's name, which may be that of a subdir."""
    return len(segments) > 2 and segments[-2] == LABEL


STYLE = AddressStyle(
    example="https://conda.example.org/main",
    corrected=_corrected,
    is_folder=lambda segment: segment in KNOWN_SUBDIRS or segment == LABEL,
)
normalise = partial(_normalise, STYLE)
