"""The only place that says what a family of packages provides: the rest of the house works through `FamilyRules`.

The structs here cross the border between the daemon and its worker processes, so they hold plain values only: paths
are absolute and of type str, digests are lower hex, times are milliseconds since the epoch.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from firth_protocol.types import Credentials, Family, SourceFound

if TYPE_CHECKING:
    from firthd.upstream.client import Source, Upstream


# --- read: a source's index against the mirror's rows -------------------------------------------------------------


class Part(Struct, frozen=True, kw_only=True):
    """One index file of a source, as it was fetched (conda: that of a subdir)."""

    subdir: str
    spool: str | None  # None: the source has no such part any more, or it is empty
    encoding: str = "json"  # "zst" or "json"


class ReadParams(Struct, frozen=True, kw_only=True):
    """What a read task works on. Parts that are not named are left as they are, but for `subdirs`."""

    state_db: str
    run_file: str  # made when it is not there; rows of an earlier read are dropped
    channel_id: int
    mirror_id: int
    parts: list[Part]
    subdirs: list[str] | None = None  # the mirror's filter; live rows of other subdirs are closed as `filtered`
    keep: bool = False  # on_upstream_removal = keep
    max_part_bytes: int = 1 << 30  # of one part, decompressed: `upstream.max_index_bytes`


class InvalidRecord(Struct, frozen=True):
    """A record of the source that cannot be taken."""

    filename: str  # cut to 255 characters, only printable ones
    reason: str


class PartResult(Struct, frozen=True, kw_only=True):
    """What one part held, and how it differs from the mirror's live rows."""

    subdir: str
    records: int  # that the source lists
    kept: int  # of these, valid and within the filters
    before: int  # live rows of this mirror in this subdir before
    added: int  # file names that are new
    replaced: int  # file names whose record changed: one row closed, one added
    unchanged: int
    gone: int  # rows closed because the source stopped listing them
    held: int = 0  # rows the source stopped listing that stay, because they are stored and `keep` is set
    filtered: int = 0  # rows closed because the filter does not name their subdir
    unhashed: int = 0  # kept records without any digest
    bytes_to_store: int = 0  # sizes of the added and replaced ones whose blob is not in the store
    bytes_unknown: int = 0  # of these, how many have no size
    base_url: str | None = None  # where the source keeps this part's files, as it says itself
    notes: list[str] = []
    invalid: list[InvalidRecord] = []  # at most 1000
    invalid_count: int = 0


class ReadResult(Struct, frozen=True, kw_only=True):
    """One entry a part, then one a subdir that only the filter closed."""

    parts: list[PartResult]


# --- render: what a channel shows, as files -------------------------------------------------------------------------


class PreviousFile(Struct, frozen=True):
    """A published file of the generation before."""

    file: str
    sha256: str


class RenderParams(Struct, frozen=True, kw_only=True):
    """What a render task shows: the published sets numbered up to `shows`, and `change_sets` beside them."""

    state_db: str
    run_file: str  # receives the tables `shard` and `package`; rows of an earlier render are dropped
    out_dir: str  # an empty folder on the file system of the rendered store
    channel_id: int
    number: int  # the generation to be
    shows: int  # below `number` - 1 only for a view of an earlier generation: then `full` is meant
    change_sets: list[int] = []
    full: bool = False
    previous: dict[str, PreviousFile] = {}  # path, such as "noarch/repodata.json" -> file


class RenderedFile(Struct, frozen=True, kw_only=True):
    """A file below `out_dir`, written and fsynced."""

    path: str  # below the family's root; "" for the pack
    file: str
    sha256: str
    size: int


class RenderedPart(Struct, frozen=True, kw_only=True):
    """The entries of one rendered subdir."""

    subdir: str
    digest: str  # sha256 over its entries; depends on the content alone
    artifacts: int
    names: int
    bytes: int


class RenderResult(Struct, frozen=True, kw_only=True):
    """The files of the touched subdirs, in every variant; what is not named here is as in the generation before."""

    files: list[RenderedFile]
    pack: RenderedFile | None  # the new shards one behind the other; places in the run file's table `shard`
    parts: list[RenderedPart]
    packages: int  # names that the whole generation shows
    changed_packages: int  # rows in the run file's table `package`
    shards_new: int
    shadowed: dict[int, int] = {}  # mirror id -> visible files of names that another mirror owns
    notes: list[str] = []  # what an administrator should know: rows that were left out and why, shards too large


# --- the interface ----------------------------------------------------------------------------------------------------


class Facts(Struct, frozen=True, kw_only=True):
    """What rules and lists need to know of one record."""

    name: str
    version: str
    build: str
    build_number: int
    subdir: str
    license: str | None
    timestamp: int | None
    size: int | None
    sha256: str | None
    md5: str | None
    depends: list[str]


class IndexPath(Struct, frozen=True):
    """An index file, named as in `RenderedFile.path`."""

    path: str


class PackagePath(Struct, frozen=True):
    """A package file."""

    subdir: str
    filename: str


class ShardPath(Struct, frozen=True):
    """A shard, named by the sha256 of its bytes."""

    sha256: str


Located = IndexPath | PackagePath | ShardPath


class Requirement(Protocol):
    """A parsed spec."""

    @property
    def name(self) -> str | None:
        """The exact name it asks for, if any."""

    def matches(self, facts: Facts) -> bool:
        """Tell whether a record meets it."""


class FetchPlace(Struct, frozen=True, kw_only=True):
    """What is known of a file that is to be fetched from its source."""

    subdir: str
    section: str
    filename: str
    base_url: str | None = None  # of `source_index`
    raw: bytes | None = None  # only sections for which `needs_record` is true


class Normalised(Protocol):
    """A source's address as it is stored, its secrets apart from it, and what was changed for people to know."""

    @property
    def source(self) -> str: ...
    @property
    def credentials(self) -> Credentials | None: ...
    @property
    def warnings(self) -> list[str]: ...


class Normalise(Protocol):
    """Takes a source's address apart; `stored` are secrets used where neither address nor credentials has any."""

    def __call__(
        self, source: str, credentials: Credentials | None = None, stored: Credentials | None = None, /
    ) -> Normalised: ...


class FamilyRules(Struct, frozen=True, kw_only=True):
    """Everything that the house asks of a family; each field is a function or the name of a worker's task."""

    family: Family
    probe: Callable[["Upstream", "Source"], Awaitable[SourceFound]]
    read_task: str  # "package.module:function" for Workers.run: ReadParams -> ReadResult
    render_task: str  # RenderParams -> RenderResult
    empty_part: Callable[[str], Mapping[str, bytes]]  # subdir -> path -> bytes, for a new channel
    absent_index: Callable[[str], bytes | None]  # path -> what is served for an index whose absence clients remember
    first_parts: tuple[str, ...]  # the parts a channel has from its first generation on
    locate: Callable[[str], Located | None]  # URL path below the family's root
    needs_record: Callable[[str], bool]  # section -> whether `fetch_url` must be given the raw record
    fetch_url: Callable[[FetchPlace], str]  # where a file is, relative to the source or absolute
    requirement: Callable[[str], Requirement]  # raises Invalid for what does not parse
    facts: Callable[[str, bytes], Facts]  # subdir, raw record; raises ValueError for what is no record
    normalise: Normalise
    index_candidates: Callable[[str], Sequence[str]]  # part -> the paths of its index, the best form first
    check_archive: Callable[[Path, str], None]  # raises ValueError when a file is no whole archive of its name's kind
    sort_versions: Callable[[Collection[str]], list[str]]  # newest first
    reserved_names: frozenset[str]  # that no channel may have, because a client would misread the address
