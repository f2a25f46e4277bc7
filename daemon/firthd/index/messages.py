"""The only place that says what crosses to a worker process and back.

Plain values only: paths are absolute and of type str, digests are lower hex, times are milliseconds since the epoch.
"""

from msgspec import Struct

from firth_protocol.types import Filters, Rules
from firthd.families.base import Side, Spool

PACKAGES = "packages"
"""The rule that gives names up; what any other one leaves out stays its mirror's."""

POLICY = "policy"
"""Why a row is closed that a policy leaves out."""

LICENSES_TOLD = 100

# --- read: a source's index against the mirror's rows -----------------------------------------------------------------


class JudgedBy(Struct, frozen=True, kw_only=True):
    """The policy by which a read judges what the source lists."""

    policy: str
    stamp: str  # the policy with its revision and what else its verdicts hang on
    rules: Rules
    policing: str  # "package.module:name" of the family's Policing
    now_ms: int
    file: str | None = None  # receives what is left out and why; None: nobody asks
    solve: bool = False  # ask whether what is allowed can be installed
    share: int | None = None  # the number of the worker, where several judge parts of a mirror; None: one judges all

    @property
    def by_part(self) -> bool:
        """Whether no verdict hangs on a record of another part: then several workers may judge."""
        return self.rules.packages is None or not self.rules.packages.include_dependencies


class EarlyParams(Struct, frozen=True, kw_only=True):
    """Where the objects of what is read are made at once, for a generation that is to show nothing else."""

    folder: str  # an empty one on the file system of the rendered store
    number: int  # the generation to be
    sides: list[Side] = []  # the files beside the index


class ReadParams(Struct, frozen=True, kw_only=True):
    """What a read task works on. Parts that are not named are left as they are, but for `only`."""

    formats: str  # "package.module:name" of the family's Formats
    state_db: str
    run_file: str  # made when it is not there; rows of an earlier read are dropped
    channel_id: int
    mirror_id: int
    spools: list[Spool]
    only: list[str] | None = None  # the mirror's filter; live rows of other parts are closed as `filtered`
    close_filtered: bool = True  # False: another worker of the run closes the parts that `only` does not name
    filters: Filters = Filters()  # what of a part's entries the mirror takes
    keep: bool = False  # on_upstream_removal = keep
    singly: bool = False  # a part that cannot be read, or is empty without a word, stays as it was; the others go on
    accept_removals: bool = False  # what is empty without a word is taken at its word
    grows: bool = False  # `only` names what a policy does, and parts that are needed beside it may be wanted
    policy: JudgedBy | None = None  # None: everything that the source lists is kept
    first: bool = False  # the mirror has no rows and offers no names: parts may be read in shares
    early_rows: int | None = None  # so many that are new are handed over at a time, in a file of their own; None: none
    early: EarlyParams | None = None  # None: nothing is rendered early
    goes_on: bool = False  # the run's file holds what was read of other parts already
    page: bool = False  # what is read is the page of a lazy part; False: rows that came with pages are replaced
    max_part_bytes: int = 1 << 30  # of one part, decompressed: `upstream.max_index_bytes`


class InvalidRecord(Struct, frozen=True):
    """A record of the source that cannot be taken."""

    filename: str  # cut to 255 characters, only printable ones
    reason: str


class MissingOne(Struct, frozen=True, kw_only=True):
    """A requirement that nothing meets, and the files that lead to it."""

    requirement: str
    platform: str
    chain: list[str]
    why: str


class Teller(Struct, frozen=True, kw_only=True):
    """A file of the source that tells of a release."""

    section: str
    filename: str
    small: bool  # it holds nothing else
    digest: str  # as the index declares it: sha256, else md5, else ""
    size: int | None
    raw: bytes  # its record


class WantedRelease(Struct, frozen=True, kw_only=True):
    """A release of which something is to be read before it can be judged; the best of its files first."""

    part: str
    version: str
    tellers: list[Teller]


class JudgementResult(Struct, frozen=True, kw_only=True):
    """What a policy made of all that was read."""

    records: int
    kept: int
    bytes: int
    closes: bool  # dependencies were looked at
    counts: dict[str, int]  # rule -> records that it left out
    missing: list[MissingOne] = []  # the first of them
    missing_total: int = 0
    unsolvable: list[str] = []
    unmapped: list[str] = []  # licence texts that nobody knows
    wanted: list[WantedRelease] = []  # the verdicts are not the last ones before these were read
    parts_wanted: list[str] = []  # parts that were not read, and that what is kept needs
    notes: list[str] = []


class PartResult(Struct, frozen=True, kw_only=True):
    """What one part held, and how it differs from the mirror's live rows."""

    part: str
    records: int  # that the source lists
    kept: int  # of these, valid and within the filters
    before: int  # live rows of this mirror in this part before
    added: int  # file names that are new
    replaced: int  # file names whose record changed: one row closed, one added
    unchanged: int
    gone: int  # rows closed because the source stopped listing them
    held: int = 0  # rows the source stopped listing that stay, because they are stored and `keep` is set
    filtered: int = 0  # rows closed because the filters do not take them, or name their part
    left_out: int = 0  # records that the source lists and a policy leaves out
    judged_away: int = 0  # rows closed because a policy leaves them out
    unhashed: int = 0  # kept records without any digest
    bytes_to_store: int = 0  # sizes of the added and replaced ones whose blob is not in the store
    bytes_unknown: int = 0  # of these, how many have no size
    base_url: str | None = None  # where the source keeps this part's files, as it says itself
    signed: bool = False  # the source signs records of this part
    notes: list[str] = []
    invalid: list[InvalidRecord] = []  # at most 1000
    invalid_count: int = 0
    refused: str | None = None  # why the source takes back all that the part listed; its rows count as `filtered`
    unreadable: str | None = None  # why it could not be read; its rows stay
    unexpected: int = 0  # what differs although its package was not said to have moved
    surprise: str = ""  # the first of these
    emptied: bool = False  # it lists nothing any more, without a word; its rows stay


class ReadResult(Struct, frozen=True, kw_only=True):
    """One entry a part, then one a part that only the filter closed."""

    parts: list[PartResult]
    judgement: JudgementResult | None = None
    made: "Rendered | None" = None  # of all parts that have rows; None: they are still to be rendered


class PreviewResult(Struct, frozen=True, kw_only=True):
    """What a policy would make of what a source lists, and which names come and go by it."""

    judgement: JudgementResult
    names_added: list[str]
    names_removed: list[str]


# --- advisories -------------------------------------------------------------------------------------------------------


class AdvisoriesParams(Struct, frozen=True, kw_only=True):
    """What a task reads advisories from."""

    place: str  # a zip, a folder or a file
    own: bool  # lines of our own format
    policings: list[str]  # "package.module:name" of each family's Policing
    out: str  # receives a JSON document a line
    max_bytes: int  # of all that is read, decompressed


class AdvisoriesResult(Struct, frozen=True, kw_only=True):
    """What was read."""

    read: int
    withdrawn: int
    skipped: int
    reasons: dict[str, int]  # why documents were skipped; the first of them


# --- render: what a channel shows, as objects -------------------------------------------------------------------------


class PreviousFile(Struct, frozen=True):
    """A published file of the generation before."""

    file: str
    sha256: str


class FamilyContent(Struct, frozen=True, kw_only=True):
    """What a generation shows of one family."""

    state: bytes  # of the set of its packages, see index.set_hash; behind it what it shows beside them, if anything
    artifacts: int
    packages: int
    bytes: int
    shadowed: dict[int, int] = {}  # mirror id -> visible files of names that another mirror owns


class Share(Struct, frozen=True, kw_only=True):
    """What one of several tasks renders: a part, or all parts but that one."""

    part: str
    others: bool
    sums: str  # receives what the parts show, for the task that sums all of them up


class RenderParams(Struct, frozen=True, kw_only=True):
    """What a render task shows: the published sets numbered up to `shows`, and `change_sets` beside them.

    Objects and summaries of what `shows` holds are in force when the task begins, but for `full`: what is touched by
    `change_sets` is then made anew, nothing else.
    """

    formats: str  # "package.module:name" of the family's Formats
    state_db: str
    run_file: str  # receives the tables `object` and `package`; rows of an earlier render are dropped
    out_dir: str  # an empty folder on the file system of the rendered store
    channel_id: int
    number: int  # the generation to be
    shows: int
    change_sets: list[int] = []
    proven_above: int = 0  # rows with ids up to this were read before every form was proven to hold them
    before: FamilyContent | None = None  # of what `shows` holds; None: nobody has worked it out
    full: bool = False  # everything is made anew, whatever is in force
    share: Share | None = None  # of the parts, when several tasks share a render; None: all of them
    shares: list[str] = []  # the sums of tasks that have rendered every part: only what belongs to no part is left
    lost: list[str] = []  # sha256 of packs that are not there any more: nothing is looked for in them
    sides: list[Side] = []  # the files beside the indexes of the channel's mirrors
    previous: dict[str, PreviousFile] = {}  # path -> file, of the objects in force that end in the family's `reads`


class RenderedFile(Struct, frozen=True, kw_only=True):
    """A file below `out_dir`, written and fsynced."""

    path: str  # below the family's root; "" for the pack
    file: str
    sha256: str
    size: int
    shows: int | None = None  # bytes, where it only lists the pieces of what is shown


class RenderedPart(Struct, frozen=True, kw_only=True):
    """The entries of one rendered part."""

    part: str
    artifacts: int


class RenderResult(Struct, frozen=True, kw_only=True):
    """The objects of the touched parts, in every form; what is not named here is as in the generation before."""

    files: list[RenderedFile]
    pack: RenderedFile | None  # new small objects one behind the other; their places are in the run file
    parts: list[RenderedPart]
    content: FamilyContent  # that the whole generation shows
    changed_packages: int  # rows in the run file's table `package`
    slices_new: int
    left_out: int = 0  # rows that could not be written
    notes: list[str] = []  # what an administrator should know: rows that were left out and why, objects too large


class Rendered(Struct, frozen=True, kw_only=True):
    """What one task has rendered, or several: with the rows of its objects, in the order in which they count."""

    result: RenderResult  # its pack is the first one
    run_files: list[str]
    packs: list[RenderedFile]


class AheadResult(Struct, frozen=True, kw_only=True):
    """What was rendered of what a run adds while its files come; None where that cannot be."""

    made: Rendered | None = None


def summing(params: ReadParams, sums: list[str]) -> RenderParams:
    """Return what the last task is to do where a channel's first index is rendered before it is in the state.

    `sums`: what others have written of what each part shows. Its folder is still to be made.
    """
    assert params.early is not None
    return RenderParams(
        formats=params.formats,
        state_db=params.state_db,
        run_file=f"{params.run_file}.summed",
        out_dir=f"{params.early.folder}/summed",
        channel_id=params.channel_id,
        number=params.early.number,
        shows=params.early.number - 1,
        shares=sums,
        sides=params.early.sides,
    )
