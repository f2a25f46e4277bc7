"""The only place that says what a family of packages provides: the rest of the house works through `FamilyRules`.

The structs here cross the border between the daemon and its worker processes, so they hold plain values only: paths
are absolute and of type str, digests are lower hex, times are milliseconds since the epoch.
"""

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, TypeVar, runtime_checkable

from msgspec import Raw, Struct

from firth_protocol.errors import Upstream
from firth_protocol.types import Family, Filters, MirrorMode, SourceFound
from firthd.families.addresses import Located, PageAt, SetUp
from firthd.families.pieces import Pieces
from firthd.store.columns import columns_of
from firthd.store.joined import Piece
from firthd.store.promises import Promise
from firthd.store.worker_reads import ShownRow

if TYPE_CHECKING:
    from firthd.families.source import Normalise

T = TypeVar("T")
Comparable = Any
"""What Python can sort; a family's own keys, never mixed with another's."""

# --- the noun that flows through the house ----------------------------------------------------------------------------


class SourceRecord(Struct, frozen=True, gc=False):
    """One artifact as its source lists it: a row of a run's file, of the state, and an entry of an index.

    These fields are the list of columns: a new one is a line here, one in a migration, one where it is used.
    """

    section: str  # of its part (conda: packages, packages.conda, v3.conda ...)
    filename: str  # below its part
    name: str  # of the package, by which mirrors own it
    version: str
    build: str
    build_number: int
    size: int | None
    sha256: bytes | None  # as the source declares it
    md5: bytes | None
    declared: int  # 2: sha256, 1: another digest only, 0: none
    license: str | None
    timestamp: int | None  # milliseconds
    fingerprint: bytes  # 16 bytes; two spellings of one record have the same
    raw: Raw | bytes  # the record as the source wrote it, byte for byte


COLUMNS = columns_of(SourceRecord)


class InvalidRecordError(ValueError):
    """A record that cannot be taken; the message is the reason, fit for people."""


# --- the worker's side: formats ---------------------------------------------------------------------------------------


class Spool(Struct, frozen=True, kw_only=True):
    """One part of a source's index, as it was fetched."""

    part: str  # what the house calls it (conda: the subdir)
    file: str | None  # None: the source has no such part any more, or it is empty
    encoding: str = ""  # the last extension of the form that was fetched
    mark: str | None = None  # what a list of the source said of it: an older one is not what the source has
    base_url: str | None = None  # where it was in the end, if the source has sent us elsewhere
    beside: tuple[str, ...] = ()  # files beside it, where the family reads them with it
    lists: bool = False  # it is a list of parts
    moved: list[str] | None = None  # the packages that may differ from what was read before; None: nobody can tell
    share: tuple[float, float] | None = None  # from which to which fraction of its entries it is read; None: all


class Entry(NamedTuple):
    """What a part lists under one name, not yet looked at; sorts by file name, then section."""

    filename: str
    section: str
    raw: Raw | bytes
    package: str = ""  # its name, where the part says it and not the record


class Listing(Protocol):
    """What one part of a source lists, entry by entry, sorted by file name and section."""

    @property
    def base_url(self) -> str | None:
        """Where the source keeps this part's files, as it says itself."""

    @property
    def notes(self) -> list[str]:
        """What an administrator should know of the part that is not in its records."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Entry]: ...


class Side(Struct, frozen=True, kw_only=True):
    """A file beside the index of a source, as one mirror read it last."""

    mirror_id: int
    name: str  # as the family asked for it
    beside: str  # the part that it belongs to, "" for all of the channel
    file: str
    encoding: str = ""
    index: bool = False  # it is the index itself, for the signatures of its records


class ShownPackage(Struct, frozen=True, gc=False):
    """What a channel shows under one package name."""

    version: str  # the newest
    parts: list[str]
    owners: Set[int] | None  # the mirrors that the name belongs to; None: there is only one


@runtime_checkable
class Signed(Protocol):
    """A listing whose source signs records."""

    @property
    def signed(self) -> bool:
        """Whether there is a signature."""


@runtime_checkable
class Worded(Protocol):
    """A listing whose source can take back all that it listed, with a word."""

    @property
    def refused(self) -> str | None:
        """Why nobody may have the part's files any more; None: the source says nothing of the kind."""


@runtime_checkable
class Lists(Protocol):
    """Formats of a source that lists its parts."""

    def marks(self, spool: Spool, names: Set[str] | None, max_bytes: int, /) -> Mapping[str, "Listed"]:
        """Return what a list says of these parts (None: of all); those that it lacks are absent.

        Raises Upstream for what is no list.
        """


class Listed(Struct, frozen=True, gc=False):
    """What a list says of a part: how it is spelled there, and a mark that changes when the part does."""

    spelled: str
    mark: str | None = None


class Output(Protocol):
    """Takes the objects of an index as a family makes them."""

    def has(self, path: str) -> bool:
        """Tell whether the generation before serves this path."""

    def below(self, folder: str) -> Iterable[str]:
        """Return the paths that the generation before serves below a folder, whose name ends in a slash."""

    def before(self, path: str) -> bytes | None:
        """Return what is served before at a path that `FamilyRules.reads` ends; None: it can be made again."""

    def made_of(self, path: str, make: Callable[[bytes], T], /) -> T | None:
        """Return what is made of what `before` gives, which is proven meanwhile; None: it can be made again."""

    def readable(self) -> Iterable[str]:
        """Return the paths that `before` and `made_of` are good for."""

    def shown_since(self, folder: str) -> Mapping[str, int]:
        """Return of each path below a folder the number of the generation from which on it shows what it will show."""

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open an object of its own for writing; it counts when the block ends without an error."""

    def slice(self, path: str, sha256: bytes, content: bytes) -> None:
        """Add a small object whose path holds its own digest; bytes that lie there already are not written again."""

    def put(self, path: str, content: bytes) -> None:
        """Add a small object that the next publication may change; it lies in a pack with others."""

    def join(self, path: str, pieces: Iterable[Piece]) -> None:
        """Let a path show pieces one behind the other; of those that it showed before none is made or written."""

    def again(self, path: str, where: str) -> None:
        """Let a path that holds its own digest show the bytes that lie under another one."""

    def end(self, path: str) -> None:
        """Let a path show nothing any more."""

    def listed(self, sha256: bytes) -> None:
        """Say what the family shows beside its rows: a generation's digest is of that too."""

    def note(self, text: str) -> None:
        """Tell an administrator of what clients will not take."""

    def sides(self, beside: str) -> Sequence[Side]:
        """Return the files beside a part (beside all of the index: ""), those of the mirror that comes first first."""

    def sole_mirror(self) -> int | None:
        """Return the mirror that every row is of; None when there may be several."""

    def packages(self) -> Mapping[str, ShownPackage]:
        """Return each package that the generation to be shows; only for what belongs to no single part."""


class PartRenderer(Protocol):
    """Makes the objects of one part out of its visible rows."""

    @property
    def published(self) -> bool:
        """Whether the part is in the generation before: then it stays, empty if need be."""

    def add(self, row: ShownRow, /) -> None:
        """Take one visible row; they come by file name and section."""

    def finish(self, report: Callable[[str, int, int], None], /) -> None:
        """Write the objects. `report(what, done, total)`."""


@runtime_checkable
class GoesOn(Protocol):
    """A part's renderer that needs no rows of what nothing touched, where it can go on from what is served."""

    def goes_on(self) -> bool:
        """Tell whether it can; asked once, before any row comes. False: every row comes."""

    def replace(self, filenames: Collection[str], /) -> None:
        """Let what is served of these files go: rows of theirs that are to be shown follow."""

    @property
    def shown(self) -> int:
        """How many rows are shown, once it is finished."""


class Formats(Protocol):
    """What a family knows about bytes. Worker processes use it, so it imports nothing that talks to a network."""

    @property
    def family(self) -> Family: ...
    @property
    def first_parts(self) -> tuple[str, ...]:
        """The parts a channel has from its first generation on."""

    def valid_part(self, part: str, /) -> bool:
        """Tell whether the family can have a part of this name."""

    def read(self, spool: Spool, max_bytes: int, /) -> Listing:
        """Open what was fetched; raise Upstream for what is no index, TooLarge for more than `max_bytes` unpacked."""

    def taker(self, filters: Filters, /) -> Callable[[Entry], bool] | None:
        """Return what tells whether a mirror's filters take an entry; None: they take every one of a part that is read.

        It is asked about entries that are no valid records too, and takes those: what is wrong with them is told.
        """

    def elsewhere(self, part: str, filename: str, /) -> tuple[str, str] | None:
        """Return part and file name where a source keeps a file before or after it is here; None: nowhere.

        A file that moves keeps what is known of its bytes.
        """

    def fingerprint(self, raw: Raw | bytes, /) -> bytes:
        """Return 16 bytes that are equal for two spellings of one record.

        Raises InvalidRecordError for what is none, and for what some published form cannot hold: here, where the
        record is decoded anyway, that proof costs little.
        """

    def writable(self, row: ShownRow, /) -> None:
        """Raise InvalidRecordError unless every published form can hold a row that was read before that was proven."""

    def identity(self, row: ShownRow, /) -> bytes:
        """Return 16 bytes of a record less every address in it: the same on whatever server it lies."""

    def record(self, entry: Entry, fingerprint: bytes, /) -> SourceRecord:
        """Return an entry's columns; raise InvalidRecordError with the reason for one that cannot be taken."""

    def renderer(self, part: str, touched: Set[str] | None, out: Output, /) -> PartRenderer:
        """Return what renders a part of which only the packages in `touched` have changed (None: all of it)."""

    def conclude(self, rendered: Set[str], out: Output, /) -> None:
        """Write what belongs to no single part, when all of `rendered` are done."""

    def empty_part(self, part: str, /) -> Mapping[str, bytes]:
        """Return every form of an empty part: path -> content."""

    def version_key(self, version: str, /) -> Comparable:
        """Return a sort key; every text has one."""

    def depended_on(self, raw: bytes, /) -> Iterable[str]:
        """Return the package names that a record depends on."""

    def platform(self, part: str, filename: str, /) -> str:
        """Return what a file is for, as lists of packages show it."""


# --- how a source's index is asked for --------------------------------------------------------------------------------


class Form(Struct, frozen=True):
    """One of the files that may hold a part's index, below the source."""

    path: str
    accept: str | None = None  # the Accept header it is asked for with
    in_folder: bool | None = None  # True: only folders have it; False: only servers
    folder: bool = False  # a folder: what is taken is a list of the files below it, as pages or the disk tell


class Ask(Struct, frozen=True, kw_only=True):
    """A part that is asked for: the first of its forms that is there is taken."""

    part: str
    forms: tuple[Form, ...]  # the best one first
    beside: str | None = None  # a file that may be there beside this part ("": beside all of them), and is none itself
    mark: str | None = None  # what a list says of it; what was read under the same mark is not asked for
    lists: bool = False  # it lists parts: `Answer.marks` tells what it says of those in `names`
    names: Set[str] | None = None  # None: of all of them


class Batch(Struct, frozen=True, kw_only=True):
    """Parts that are asked for beside each other."""

    asks: tuple[Ask, ...]
    at_once: int = 8
    same: Sequence[str] = ()  # parts that are as they were read, as a list of them tells; only such as have a `copy`


class Known(Struct, frozen=True, kw_only=True):
    """What was read of a part before."""

    path: str  # of the form that it came in
    there: bool  # False: the source had no such part
    beside: str | None = None  # as in `Ask`
    mark: str | None = None
    copy: bool = False  # what was read is there in full


class Answer(Struct, frozen=True, kw_only=True):
    """What came of asking for a part."""

    part: str
    form: Form | None  # None: the source has no such part
    size: int | None = None  # bytes of the form, None when the source does not say
    changed: bool = True  # False: it is as it was read before
    refusal: Upstream | None = None  # why there is no form, where the source did not just say that there is none
    marks: Mapping[str, Listed] | None = None  # of an ask that `lists`; None: it has not changed, or is not there
    start: bytes = b""  # its first bytes, where one only looks
    whole: bool = False  # whether those are all of it


Requests = Generator[Batch, Sequence[Answer], None]
"""Yields what to ask for next, is sent what came of it (in the order of the asks), and ends."""


class Recogniser(Struct, frozen=True, kw_only=True):
    """How a family's sources are told from others'."""

    kind: str  # what stands there, with its article: "a conda channel"
    tell_tales: tuple[Form, ...]  # what to look at
    recognise: Callable[[Form, bytes, str], bool]  # form, first bytes, content type of what answered 200


# --- the interface ----------------------------------------------------------------------------------------------------


class Facts(Struct, frozen=True, kw_only=True, gc=False):
    """What rules and lists need to know of one record."""

    name: str
    version: str
    build: str
    build_number: int
    part: str
    license: str | None
    timestamp: int | None
    size: int | None
    sha256: str | None
    md5: str | None
    depends: list[str]
    filename: str = ""
    platform: str = ""  # what the file is for, in the words of `Policing.platforms`
    license_family: str | None = None  # a family that the source names beside the licence
    classifiers: tuple[str, ...] = ()  # licence classifiers, where the family has them
    signed: bool | None = None  # None: not known here
    indexed: int | None = None  # milliseconds, when the source's own server took it in
    counts: bool = True  # whether people count the file: it does not only go along with another


class Requirement(Protocol):
    """A parsed spec."""

    @property
    def name(self) -> str | None:
        """The exact name it asks for, if any."""

    def matches(self, facts: Facts) -> bool:
        """Tell whether a record meets it."""


class FetchPlace(Struct, frozen=True, kw_only=True):
    """What is known of a file that is to be fetched from its source."""

    part: str
    section: str
    filename: str
    base_url: str | None = None  # of `source_index`
    page: str | None = None  # where the part's index was read: a rooted path on its host, or below a folder
    raw: bytes | None = None  # only sections for which `needs_record` is true


class Pages(Protocol):
    """Makes the pages of lazy parts; worker processes import it."""

    def page(self, part: str, form: str, records: Sequence[SourceRecord], listing: Listing, /) -> bytes:
        """Return a part's page in one form; the records of the listing come by file name and section."""


class LazyParts(Struct, frozen=True, kw_only=True):
    """The parts that no run asks for: each is read on a client's first request for it, and again as it gets old."""

    is_lazy: Callable[[str, Filters, MirrorMode], bool]  # whether a mirror reads this part so
    ask: Callable[[str], Ask | None]  # how a part's page is asked for; None: there can be no such part
    pages: str  # "package.module:name" of its `Pages`
    at: Callable[[str], PageAt | None]  # where a part's page is whose file names `listed` reads; None: no such part
    listed: Callable[[bytes], frozenset[str]]  # such a page as it is served -> the file names on it; it blocks


class Inside(NamedTuple):
    """A file that another one holds: the other's name, and what takes it out of that, which blocks.

    `take_out` raises ValueError with a sentence where it is not there.
    """

    filename: str
    take_out: Callable[[Path], bytes]


class FamilyRules(Struct, frozen=True, kw_only=True):
    """Everything that the house asks of a family; each field is a function or the name of a worker's task."""

    family: Family
    requests: Callable[[Mapping[str, Known], Filters, bool, MirrorMode], Requests]  # True: every part there may be
    probe: Callable[[Filters], Requests] | None = None  # what a look at a source asks for; None: for all of it
    encoding: Callable[
        [Form, bytes, str], str | None
    ]  # form, first bytes, content type -> Spool.encoding; None: not it
    recogniser: Recogniser
    filters: frozenset[str]  # the fields of `Filters` that its mirrors have
    check_filters: Callable[[Filters], list[str]]  # -> warnings; raises Invalid for what can name nothing
    only: Callable[[Filters], frozenset[str] | None]  # the parts that the filters leave; None: all
    found: Callable[[str, Sequence[Answer]], SourceFound]  # source's address, what was asked -> what to tell of it
    formats: str  # "package.module:name" of its `Formats`, which worker processes import
    reads: tuple[str, ...]  # the ends of the paths of objects that a render reads again
    first_parts: tuple[str, ...]  # the parts a channel has from its first generation on
    empty_part: Callable[[str], Mapping[str, bytes]]  # part -> path -> bytes, for a new channel
    locate: Callable[[str, str], Located | None]  # URL path below the channel, Accept header
    address: Callable[[str, str], str]  # part, file name -> where `locate` finds it, ready for an address
    set_up: Callable[[str], Sequence[SetUp]]  # the channel's address -> lines for each client
    install: Callable[[str, str], Sequence[SetUp]]  # channel's address, package -> lines that install it from there
    needs_record: Callable[[str], bool]  # section -> whether `fetch_url` must be given the raw record
    fetch_url: Callable[[FetchPlace], str]  # where a file is, relative to the source or absolute; without `base_url`
    # also where copies of the source keep it
    promised: Callable[[bytes], Promise | None] = lambda raw: None  # of a record without sha256: another digest of it
    elsewhere: Callable[[str, str], tuple[str, str] | None] = lambda part, filename: None  # see `Formats`
    reads_beside: bool = False  # files beside a part say something of its records: it is read anew with them
    shows_empty: bool = False  # a part that the source has, and nothing in it, is shown
    requirement: Callable[[str], Requirement]  # raises Invalid for what does not parse
    facts: Callable[[str, bytes], Facts]  # part, raw record; raises ValueError for what is no record
    normalise: "Normalise"
    check_archive: Callable[[Path, str], None]  # raises ValueError when a file is no whole archive of its name's kind
    sort_versions: Callable[[Collection[str]], list[str]]  # newest first
    reserved_names: frozenset[str]  # that no channel may have, because a client would misread the address
    lazy: LazyParts | None = None  # None: every part is read by runs
    pieces: Pieces | None = None  # None: parts are read whole
    named: Callable[[Filters, Sequence[str]], Filters] | None = None  # filters -> with names, where they have none
    small_parts: bool = False  # parts are many: one that cannot be read, or is empty without a word, stays as it was
    instead: Callable[[str, Form, bytes, str], str | None] | None = None  # part, as `encoding`, of more -> what it is
    other_places: tuple[Form, ...] = ()  # where an index may stand whose address was not given in full
    needs: Callable[[Path, str], list[str]] | None = None  # a stored file, its name -> specs; None: records say it
    inside: Callable[[str], Inside | None] = lambda filename: None  # the file of a part that holds this one too
    policing: str | None = None  # "package.module:name" of its `Policing`; None: policies leave it alone
