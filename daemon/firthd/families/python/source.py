"""The only place that knows what the address of a Python index may look like."""

from collections.abc import Callable

from firth_protocol.types import Credentials
from firthd.families.python.paths import SIMPLE
from firthd.families.python.requests import FOLDER_FILES
from firthd.families.source import AddressStyle, Normalised
from firthd.families.source import normalise as _normalise


def normalise(source: str, credentials: Credentials | None = None, stored: Credentials | None = None) -> Normalised:
    """Return an index's address in the form that is stored, its secrets apart from it; raise Invalid.

    A folder is stored as the one above `simple`, for its files lie beside that.
    """
    is_folder = source.strip().lower().startswith("file:")
    return _normalise(_FOLDER if is_folder else _SERVER, source, credentials, stored)


def _corrected(segments: list[str], warnings: list[str]) -> list[str]:
    """Return the segments without a file of an index at their end: people copy it from a browser."""
    if segments and segments[-1] in (*FOLDER_FILES, "index.htm"):
        warnings.append(f"/{segments[-1]} was left off: a source is the folder that holds the project list")
        return segments[:-1]
    return segments


def _above(segments: list[str], warnings: list[str]) -> list[str]:
    kept = _corrected(segments, warnings)
    return kept[:-1] if len(kept) > 1 and kept[-1] == SIMPLE else kept


def _style(corrected: Callable[[list[str], list[str]], list[str]]) -> AddressStyle:
    return AddressStyle(
        example="https://python.example.org/simple/",
        corrected=corrected,
        is_folder=lambda segment: segment == SIMPLE,
    )


_SERVER, _FOLDER = _style(_corrected), _style(_above)
