"""The only place that says what a family tells of an index that its source offers in pieces too: one a package."""

from collections.abc import Callable, Set
from typing import NamedTuple, Protocol, runtime_checkable

from msgspec import Struct

PIECES = "pieces"
"""As `Spool.encoding`: some packages of a part, each in a piece of its own, in one file of the store."""

AHEAD = "ahead of its copy"
"""As `mark` of a part: pieces were taken in since its index was read whole, so that the copy is older than the rows."""


@runtime_checkable
class Covering(Protocol):
    """A listing of some packages of a part; whatever else it has is as it was."""

    @property
    def covers(self) -> Set[str]:
        """The packages that it lists, or that are gone."""


class Piece(NamedTuple):
    """What a source keeps of one package of a part, by its own digest."""

    name: str
    sha256: bytes
    path: str  # relative to the source or absolute


class Moved(Struct, frozen=True, kw_only=True):
    """How two lists of a part's pieces differ."""

    pieces: list[Piece]  # new, or other ones
    gone: list[str]  # packages that have none any more
    before: int  # how many packages had one


class Pieces(Struct, frozen=True, kw_only=True):
    """How a source offers a part in pieces too, so that only those that have moved need be read."""

    list_path: Callable[[str], str]  # part -> where the list of its pieces is, relative to the source
    moved: Callable[[str, bytes | None, bytes], Moved]  # part, list before (None: none), now; raises ValueError
    list_max_bytes: int
    piece_max_bytes: int
