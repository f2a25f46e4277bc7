"""The nouns of the protocol: frozen structs and the exact strings that stand on the wire."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeVar

from msgspec import Meta, Struct, field

T = TypeVar("T")

Time = Annotated[str, Meta(description="RFC 3339, UTC, milliseconds")]
Bytes = Annotated[int, Meta(description="bytes", ge=0)]
Json = dict[str, Any]

MAX_INT = (1 << 63) - 1
"""The largest number that the state can hold."""


class Role(StrEnum):
    NONE = "none"  # may do nothing
    READER = "reader"  # sees what the daemon already has
    OPERATOR = "operator"  # checks, plans, runs, stops, freezes
    MANAGER = "manager"  # creates, edits, deletes, rolls back
    ADMIN = "admin"  # tokens, audit, self test

    @property
    def rank(self) -> int:
        return list(Role).index(self)

    def covers(self, needed: "Role") -> bool:
        return self.rank >= needed.rank


class Privacy(StrEnum):
    PUBLIC = "public"  # anyone who reaches the port
    AUTHENTICATED = "authenticated"  # any valid token; without one 401
    PRIVATE = "private"  # only a token that names the channel; otherwise 404


class Family(StrEnum):
    CONDA = "conda"
    PYTHON = "python"
    R = "r"


class MirrorType(StrEnum):
    CONDA = "conda"  # shown as Conda
    PYTHON = "python"  # shown as Std Python
    R = "r"  # shown as Std R


class MirrorMode(StrEnum):
    PASSIVE = "passive"  # a file is fetched on a client's first request
    ACTIVE = "active"  # a run downloads every selected artifact


class OnUpstreamRemoval(StrEnum):
    FOLLOW = "follow"  # retire what the source stopped listing
    KEEP = "keep"  # hold what is stored


class RunKind(StrEnum):
    MIRROR = "mirror"  # the eight steps
    PLAN = "plan"  # what a mirror run would do; changes nothing
    PUBLISH = "publish"  # publishes a channel's finished change sets
    ROLLBACK = "rollback"  # publishes an earlier generation again
    REMOVE = "remove"  # takes blocked packages out of the index, or brings them back
    DELETE = "delete"  # settles what becomes of a deleted mirror's artifacts
    FILL = "fill"  # downloads what a mirror lists and the store lacks
    GC = "gc"  # takes away stored files that nothing needs
    SCRUB = "scrub"  # reads every stored file and compares it with its digest
    BACKUP = "backup"  # copies the state
    REFILTER = "refilter"  # judges what is known of a source by the policy in force
    ADVISORY = "advisory"  # reads advisories into the state


class RunState(StrEnum):
    PENDING = "pending"  # waits for its turn
    RUNNING = "running"
    STOPPING = "stopping"  # asked to stop, not there yet
    STOPPED = "stopped"  # ended on request
    COMPLETED = "completed"  # everything done
    INCOMPLETE = "incomplete"  # published, but some artifacts could not be had
    FAILED = "failed"  # ended by an error; nothing published

    @property
    def ended(self) -> bool:
        return self in {RunState.STOPPED, RunState.COMPLETED, RunState.INCOMPLETE, RunState.FAILED}


class StepName(StrEnum):
    CONNECT = "connect"
    FETCH_INDEX = "fetch_index"
    FILTER = "filter"
    RESOLVE = "resolve"
    PLAN = "plan"
    DOWNLOAD = "download"
    PUBLISH = "publish"
    CLEAN = "clean"


STEP_TITLES: Mapping[StepName, str] = {
    StepName.CONNECT: "Connect to source",
    StepName.FETCH_INDEX: "Fetch remote index",
    StepName.FILTER: "Filter remote packages",
    StepName.RESOLVE: "Resolve dependencies",
    StepName.PLAN: "Compare with channel",
    StepName.DOWNLOAD: "Download packages",
    StepName.PUBLISH: "Publish index",
    StepName.CLEAN: "Clean up",
}
"""What each step is called to people."""


class StepState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    SKIPPED = "skipped"  # nothing to do, or not reached because the run ended
    FAILED = "failed"


class Cause(StrEnum):
    CREATE = "create"
    RUN = "run"
    ROLLBACK = "rollback"
    UNFREEZE = "unfreeze"
    REMOVAL = "removal"
    POLICY = "policy"


class ArtifactState(StrEnum):
    STORED = "stored"  # its file is in the store
    ON_DEMAND = "on_demand"  # its file is fetched on the first request


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list; pages go by key, never by offset."""

    items: list[T]
    next_cursor: str | None = None
    total: int | None = None
    as_of: str


class TextPage(Page[T], Generic[T], frozen=True, kw_only=True):
    """A page that can also come as text; pages joined are the file."""

    text: str | None = None


NAMED_SCHEDULES: Mapping[str, str] = MappingProxyType(
    {"hourly": "0 * * * *", "daily": "0 0 * * *", "weekly": "0 0 * * 0", "monthly": "0 0 1 * *"}
)
"""Schedules that have a name, each with the expression that it stands for."""


class Document(Struct, frozen=True, kw_only=True):
    """A reply that is a text to be kept in a file."""

    document: str


class ScheduleNext(Struct, frozen=True, kw_only=True):
    """What a schedule means: the expression as it is stored, when it comes next, and what may be unwise about it."""

    schedule: str
    times: list[Time]
    warnings: list[str]


class KeepGenerations(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long daily and monthly generations are kept, beside the newest ten."""

    days: Annotated[int, Meta(ge=0, le=36500, description="days for which each UTC day's last generation is kept")] = 90
    months: Annotated[int, Meta(ge=0, le=1200, description="months for which each month's last generation is kept")] = (
        12
    )


class NoticeLevel(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Notice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a channel tells its users: conda shows it, at most once a day, until it expires."""

    message: Annotated[str, Meta(min_length=1, max_length=2000)]
    level: NoticeLevel = NoticeLevel.INFO
    expires_at: Annotated[str, Meta(max_length=40, description="RFC 3339; null: never")] | None = None
    created_at: Annotated[str, Meta(max_length=40, description="set by the daemon")] | None = None


class FamilyTotals(Struct, frozen=True, kw_only=True):
    """What a channel's published generation holds of one family."""

    family: Family
    artifacts: int
    packages: int
    bytes: Bytes
    stored: int = 0


class Draft(Struct, frozen=True, kw_only=True):
    """What finished change sets wait for while a channel is frozen."""

    change_sets: int
    added: int
    removed: int


class ContentChange(Struct, frozen=True, kw_only=True):
    """What clients would see change: from the content of one generation to that of the next one published."""

    added: int
    removed: int
    from_generation: int
    to_generation: int


class Channel(Struct, frozen=True, kw_only=True):
    id: int
    name: str
    description: str
    privacy: Privacy
    keep_generations: KeepGenerations
    frozen: bool
    frozen_at: Time | None
    frozen_by: str | None
    generation: int
    published_at: Time | None
    families: list[FamilyTotals]
    mirrors: int
    worst_state: RunState | None
    subchannels: int
    draft: Draft | None
    created_at: Time
    updated_at: Time
    revision: int
    notices: list[Notice] = []
    policy: str | None = None


class Credentials(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A source's secrets: one of the four forms. They go in and never come out."""

    token: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    user: Annotated[str, Meta(max_length=1024)] | None = None
    password: Annotated[str, Meta(max_length=4096)] | None = None
    bearer: Annotated[str, Meta(min_length=1, max_length=8192)] | None = None
    query: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None

    def __repr__(self) -> str:
        """Show which form it is, never a secret: this text may end in a log or a traceback."""
        given = [field for field in self.__struct_fields__ if getattr(self, field) is not None]
        return f"Credentials({', '.join(f'{field}=***' for field in given)})"


CredentialName = Annotated[str, Meta(pattern=r"^@[A-Za-z0-9_][A-Za-z0-9._-]{0,199}$")]
"""`@name`: a source's secrets that the service manager keeps (systemd's LoadCredential=name:FILE)."""


class Filters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What only this mirror takes; a field of another type than the mirror's is refused by name."""

    subdirs: list[str] | None = None
    projects: list[str] | None = None
    package_types: list[str] | None = None
    python_versions: list[str] | None = None
    platforms: list[str] | None = None
    prereleases: bool | None = None
    packages: list[str] | None = None
    r_versions: list[str] | None = None
    archive: bool | None = None


class Verdicts(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Membership(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of the two: only these, or all but these."""

    in_: Annotated[list[str], Meta(min_length=1, max_length=100)] | None = field(default=None, name="in")
    not_in: Annotated[list[str], Meta(min_length=1, max_length=100)] | None = None


class LicenseRule(Membership, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Licence families; `unknown` is what becomes of a licence text that nobody can map (absent: deny)."""

    unknown: Verdicts = Verdicts.DENY


PolicySpec = Annotated[str, Meta(min_length=1, max_length=1024)]
PolicySpecs = Annotated[list[PolicySpec], Meta(max_length=10_000)]


class PackageRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which packages: those of `allow` (null: all), less those of `exclude`, with what they depend on if wanted."""

    allow: PolicySpecs | None = None
    exclude: PolicySpecs = []
    include_dependencies: bool = False


Day = Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="a UTC day, YYYY-MM-DD")]


class DateRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """First and last UTC day of upload, or of the build where the source does not tell the upload."""

    from_: Day | None = field(default=None, name="from")
    to: Day | None = None


class Comparison(StrEnum):
    LESS = "<"
    AT_MOST = "<="
    EQUAL = "=="
    AT_LEAST = ">="
    MORE = ">"


class ScoreRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores that are kept out: `{op: ">=", value: 7}`."""

    op: Comparison
    value: Annotated[float, Meta(ge=0, le=10)]


class AdvisoryStatus(StrEnum):
    REPORTED = "reported"  # as it came
    ACTIVE = "active"  # looked at: it holds
    MITIGATED = "mitigated"  # the build carries a patch
    CLEARED = "cleared"  # it does not apply
    DISPUTED = "disputed"


class StatusRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Advisories of these statuses count for nothing."""

    not_in: Annotated[list[AdvisoryStatus], Meta(min_length=1, max_length=5)]


class CveRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is kept out for a known flaw. `unreviewed`: of status reported; `unscored`: without a score."""

    score: ScoreRule | None = None
    statuses: StatusRule | None = None
    unreviewed: Verdicts = Verdicts.DENY
    unscored: Verdicts = Verdicts.DENY


class Rules(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a policy asks; an artifact is kept when it passes all of it, or matches an exception."""

    platforms: Membership | None = None
    licenses: LicenseRule | None = None
    packages: PackageRule | None = None
    exceptions: PolicySpecs = []
    signed_only: bool = False
    legacy: Annotated[bool, Meta(description="false: no old form where the new one of the same build is there")] = True
    dates: DateRule | None = None
    min_age: Annotated[int, Meta(ge=1, le=36500, description="whole UTC days")] | None = None
    keep_latest: Annotated[int, Meta(ge=1, le=10_000, description="newest versions of a package")] | None = None
    cve: CveRule | None = None


class AdvisoryFormat(StrEnum):
    OSV = "osv"  # records of OSV: a zip, a folder, or one file
    LINES = "lines"  # our own: a JSON object a line, {id, name, spec, family?, score?, status?, summary?, aliases?}


class AdvisoryInfo(Struct, frozen=True, kw_only=True):
    """An advisory, and what was said of it by hand."""

    id: str
    aliases: list[str]
    families: list[Family]
    packages: list[str]
    summary: str
    score: float | None
    status: AdvisoryStatus
    withdrawn: bool
    modified: str
    imported_at: Time
    set_by: str | None
    set_at: Time | None
    note: str


class AdvisoryDatabase(Struct, frozen=True, kw_only=True):
    """What is known out of one database of advisories, told apart by how its ids begin: `GHSA`, `PYSEC`."""

    name: str
    advisories: int
    withdrawn: int
    modified: str  # the newest change that the database tells
    imported_at: Time  # the newest import that brought something


class AdvisoryTouch(Struct, frozen=True, kw_only=True):
    """A package of a channel that an advisory names; `affected`: those of its files that clients see that it means."""

    channel: str
    family: Family
    package: str
    version: str  # the newest
    files: int
    affected: int
    policies: list[str]  # that judge what the channel's mirrors bring


class PolicyUse(Struct, frozen=True, kw_only=True):
    """Where a policy is in force: a channel, or one mirror of it."""

    channel: str
    mirror: int | None = None
    mirror_name: str | None = None


class Policy(Struct, frozen=True, kw_only=True):
    id: int
    name: str
    description: str
    families: list[Family]
    rules: Rules
    summary: list[str]
    used_by: list[PolicyUse]
    created_at: Time
    updated_at: Time
    revision: int


class PolicyInForce(Struct, frozen=True, kw_only=True):
    """Which policy judges a mirror's packages, and whose it is."""

    name: str
    of: str  # "mirror" or "channel"
    judges: bool  # false: it leaves the mirror's family alone
    report_lacks: str = ""  # why it gives no dependency report; empty: it gives one


class Excluded(Struct, frozen=True, kw_only=True):
    """An artifact of a source that a policy keeps out, and the first rule that decided."""

    part: str = field(name="subdir")
    filename: str
    name: str
    version: str
    build: str
    size: Bytes | None
    rule: str
    why: str


class MissingDependency(Struct, frozen=True, kw_only=True):
    """A requirement that nothing meets, and the chain of packages that leads to it, the allowed one first."""

    requirement: str
    platform: str
    chain: list[str]
    why: str = ""


class PolicyEffect(Struct, frozen=True, kw_only=True):
    """What a policy keeps and drops of what a mirror's source lists, and what would change for clients."""

    mirror: int
    mirror_name: str
    records: int
    kept: int
    bytes: Bytes
    filtered: list["FilteredCount"]
    names_added: list[str]  # the first of them
    names_added_total: int
    names_removed: list[str]
    names_removed_total: int
    missing: list[MissingDependency]
    missing_total: int
    unsolvable: list[str]
    unmapped_licenses: list[str]
    notes: list[str]


class DependencyRow(Struct, frozen=True, kw_only=True):
    """One artifact of a dependency report, or one requirement that is missing."""

    name: str
    version: str
    build: str
    part: str = field(name="subdir")
    filename: str
    role: str  # direct, transitive
    required_by: str
    license: str | None
    size: Bytes | None
    state: str  # present, missing
    reason: str


class Explained(Struct, frozen=True, kw_only=True):
    """What became of one artifact that a mirror's source lists."""

    mirror: int
    mirror_name: str
    part: str = field(name="subdir")
    filename: str
    name: str
    version: str
    build: str
    verdict: str  # kept, excluded, blocked, shadowed
    policy: str | None
    rule: str | None
    why: str


class RunError(Struct, frozen=True, kw_only=True):
    """Why a run ended as it did, with the cause and what to do."""

    kind: str
    message: str
    hint: str = ""
    data: Json = {}


class Step(Struct, frozen=True, kw_only=True):
    """One of a run's steps, with its progress."""

    number: int
    name: StepName
    title: str
    state: StepState
    done: int = 0
    total: int | None = None
    unit: str = ""
    description: str = ""
    started_at: Time | None = None
    finished_at: Time | None = None


class FilteredCount(Struct, frozen=True, kw_only=True):
    """How many artifacts one reason dropped, and whose rule it was."""

    reason: str
    whose: str
    count: int


class RunCounts(Struct, frozen=True, kw_only=True):
    active: int = 0  # artifacts whose file this run stored
    active_planned: int = 0  # artifacts whose file this run set out to store
    passive: int = 0  # artifacts listed, their file fetched on first request
    added: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: int = 0
    missing: int = 0
    shadowed: int = 0
    unhashed: int = 0
    filtered: list[FilteredCount] = []


class Run(Struct, frozen=True, kw_only=True):
    id: int
    kind: RunKind
    state: RunState
    channel: str | None  # null: a run of the store, for admins
    mirror: int | None
    mirror_name: str | None
    cause: str
    by: str
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    step: StepName | None
    steps: list[Step]
    counts: RunCounts
    bytes_done: Bytes
    bytes_total: Bytes | None
    rate_bytes_s: float
    eta_s: float | None
    waiting_for: str | None
    generation: int | None
    error: RunError | None
    notes: list[str]
    result: Json | None = None
    audit: int | None = None  # the line of the audit log that tells who asked for it


class RunBrief(Struct, frozen=True, kw_only=True):
    """What a mirror shows of a run."""

    id: int
    state: RunState
    step: StepName | None
    step_number: int | None
    description: str
    started_at: Time | None
    finished_at: Time | None
    error: RunError | None
    missing: int = 0  # files that could not be had


class Mirror(Struct, frozen=True, kw_only=True):
    id: int
    channel: str
    name: str
    type: MirrorType
    mode: MirrorMode
    source: str
    schedule: str
    filters: Filters
    on_upstream_removal: OnUpstreamRemoval
    proxy: str | None
    ca_file: str | None
    credentials: str | None
    also_from: list[str] = []
    drop_unused_days: int | None = None
    max_rate: Bytes | None = None
    max_rate_hours: str | None = None
    enabled: bool
    state: RunState
    last_run: RunBrief | None
    last_success_at: Time | None
    last_success_age_s: float | None
    next_run_at: Time | None
    artifacts: int
    stored: int
    shadowed: int
    bytes: Bytes
    created_at: Time
    updated_at: Time
    revision: int
    policy: str | None = None
    in_force: PolicyInForce | None = None


class Addresses(Struct, frozen=True, kw_only=True):
    """Where clients reach a channel."""

    conda: str
    python: str | None = None
    r: str | None = None
    snapshot: str | None = None
    setup: dict[str, str] = {}


class Block(Struct, frozen=True, kw_only=True):
    """What `package.remove` has taken out of a channel, for as long as it stands."""

    family: Family
    spec: str
    by: str
    at: Time
    note: str


class ChannelDetail(Channel, frozen=True, kw_only=True):
    """A channel with its neighbours and the addresses for clients."""

    mirror_list: list[Mirror]
    subchannel_list: list[str]
    blocks: list[Block]
    addresses: Addresses


class Generation(Struct, frozen=True, kw_only=True):
    number: int
    time: Time
    cause: Cause
    run: int | None
    added: int
    removed: int
    artifacts: int
    bytes: Bytes
    digest: str
    shows: int
    current: bool
    kept: bool


class Change(Struct, frozen=True, kw_only=True):
    """One artifact that a generation (or the draft) added or closed, with the cause."""

    change: str  # "added" or "closed"
    family: Family
    part: str = field(name="subdir")  # conda: the subdir
    filename: str
    name: str
    version: str
    build: str
    size: Bytes | None
    cause: str
    mirror: str | None
    run: int | None


class SourceFound(Struct, frozen=True, kw_only=True):
    """What stands behind a source address."""

    type: MirrorType
    source: str
    subdirs: list[str]
    projects: int | None  # python: in its list; of a long one about so many, as a warning says
    index_bytes: Bytes | None
    warnings: list[str]
    platforms: list[str] = []  # r, python: of what was looked at, as the filter `platforms` names them
    r_versions: list[str] = []  # r: that there are binaries for
    python_versions: list[str] = []  # python: that wheels among what was looked at are for


class FailedArtifact(Struct, frozen=True, kw_only=True):
    part: str = field(name="subdir")  # conda: the subdir
    filename: str
    reason: str
    attempts: int


class FailedReason(Struct, frozen=True, kw_only=True):
    """Why files could not be had, and how many; what differs from file to file in it stands as `…`."""

    reason: str
    count: int


class Collision(Struct, frozen=True, kw_only=True):
    """A file that two mirrors of a channel have under one name, with different bytes."""

    part: str = field(name="subdir")
    filename: str
    sha256: str
    other: str  # the other mirror
    other_sha256: str


class MirrorDetails(Struct, frozen=True, kw_only=True):
    """What a mirror's run did, in numbers and with each failure."""

    mirror: int
    run: int | None
    counts: RunCounts
    artifacts: int
    stored: int
    on_demand: int
    bytes: Bytes
    bytes_stored: Bytes
    parts: dict[str, int] = field(name="subdirs")
    failed: list[FailedArtifact]  # the first of them
    failed_total: int = 0
    failed_reasons: list[FailedReason] = []  # the most frequent of them
    shadowed: list[str]  # the first of the names
    shadowed_total: int = 0
    collisions: list[Collision] = []  # the first of them
    collisions_total: int = 0
    notes: list[str]
    in_force: PolicyInForce | None = None
    missing: list[MissingDependency] = []  # the first of them
    missing_total: int = 0
    unsolvable: list[str] = []


class LogLine(Struct, frozen=True, kw_only=True):
    number: int
    time: Time
    level: str
    step: StepName | None
    text: str


class Package(Struct, frozen=True, kw_only=True):
    family: Family
    name: str
    version: str
    versions: int
    files: int
    stored: int
    bytes: Bytes
    platforms: list[str]
    downloads: int = 0  # by clients, in the last 30 days
    left_out: int = 0  # files that policies leave out, of a package of which nothing is shown
    rule: str | None = None  # that decided about the first of these
    why: str | None = None


class PackageFile(Struct, frozen=True, kw_only=True):
    part: str = field(name="subdir")  # conda: the subdir
    filename: str
    version: str
    build: str
    size: Bytes | None
    sha256: str | None
    md5: str | None
    license: str | None
    timestamp: Time | None
    state: ArtifactState
    depends: list[str]
    mirror: str | None
    generation: int | None  # that shows it first; null: its page is read on request and goes with the time
    url: str


class PackageDetail(Struct, frozen=True, kw_only=True):
    channel: str
    family: Family
    name: str
    version: str
    versions: list[str]
    files: list[PackageFile]  # the first of them
    files_total: int = 0
    truncated: bool
    dependencies: list[str]
    dependants: list[str]  # the first of them
    dependants_total: int = 0
    dependencies_known: bool = True  # false: nothing is stored that says what it needs
    dependants_known: bool = True  # false: its index does not say what packages need
    downloads: int = 0  # by clients, in the last 30 days
    downloads_by_version: dict[str, int] = {}  # in all the time that is kept
    as_of: str


class DownloadsBy(StrEnum):
    """What a report of downloads tells apart, beside channel and package."""

    DAY = "day"
    VERSION = "version"
    TOKEN = "token"


class ReportFormat(StrEnum):
    ROWS = "rows"
    CSV = "csv"


class DownloadCount(Struct, frozen=True, kw_only=True):
    """How often clients downloaded a package; null for what the report does not tell apart."""

    channel: str
    family: Family
    package: str
    day: str | None  # UTC, YYYY-MM-DD
    version: str | None
    token: str | None  # its name; "" for clients without one
    downloads: int


class NotifyTest(Struct, frozen=True, kw_only=True):
    """What became of a notification that was sent for a try."""

    ok: bool
    text: str
    seconds: float


class Token(Struct, frozen=True, kw_only=True):
    id: int
    name: str
    channels: list[str]
    created_at: Time
    created_by: str
    expires_at: Time | None
    last_used_at: Time | None
    revoked: bool


class AuditEntry(Struct, frozen=True, kw_only=True):
    id: int
    time: Time
    uid: int
    pid: int
    user: str
    role: Role
    method: str
    params: Json
    outcome: str


class HealthProblem(Struct, frozen=True, kw_only=True):
    """Something that is wrong, and since when."""

    subject: str
    text: str
    since: Time
    hint: str = ""


class LoopLag(Struct, frozen=True, kw_only=True):
    """Stall of the event loop by a 10 ms sampler, milliseconds."""

    p50_ms: float
    p99_ms: float
    max_ms: float
    samples: int


class StoreStatus(Struct, frozen=True, kw_only=True):
    bytes: Bytes
    blobs: int
    free: Bytes
    floor: Bytes
    quarantined: int = 0


class HeldBytes(Struct, frozen=True, kw_only=True):
    """Bytes of stored files by what holds them; a file that several things hold counts for the first of them."""

    index: Bytes  # what channels show now
    drafts: Bytes  # what waits to be published
    grace: Bytes  # retired a while ago, or younger than the grace period
    snapshots: Bytes  # shown by kept generations only


class SnapshotBytes(Struct, frozen=True, kw_only=True):
    """Bytes of files that nothing newer than this generation shows: they can go when it does."""

    channel: str
    generation: int
    bytes: Bytes


class StoreUse(Struct, frozen=True, kw_only=True):
    """What lies in the store and what for."""

    bytes: Bytes
    blobs: int
    quarantined: int  # files found lost or damaged in the last month
    quarantined_waiting: int  # of these, those that have not come again yet
    free: Bytes
    floor: Bytes
    index_files: int  # rendered files, of all kept generations
    index_bytes: Bytes
    held: HeldBytes
    snapshots: list[SnapshotBytes]
    unneeded: int  # files that `store.gc` would take away
    unneeded_bytes: Bytes


class Counts(Struct, frozen=True, kw_only=True):
    channels: int
    mirrors: int
    runs_active: int
    runs_pending: int
    artifacts: int


class UpstreamHost(Struct, frozen=True, kw_only=True):
    """What became of asking one host since the daemon started; a host that is not asked for long is forgotten."""

    host: str
    rate_bytes_s: float
    answers: int
    failures: int  # no answer, a broken one, 429 and 5xx
    answered_at: Time | None = None
    status: int | None = None  # of the last answer
    failed_at: Time | None = None
    failure: str = ""  # the last one, in words; told to who sees every channel
    fails: bool = False  # the last thing that it did


class NextRun(Struct, frozen=True, kw_only=True):
    mirror: int
    channel: str
    name: str
    at: Time


class DaemonStatus(Struct, frozen=True, kw_only=True):
    program: str
    version: str
    api: int
    started_at: Time
    uptime_s: float
    now: Time
    pid: int
    role: Role
    user: str
    addresses: list[str]
    socket: str
    store: StoreStatus
    counts: Counts
    next_runs: list[NextRun]  # the first of them
    next_runs_total: int = 0
    health: list[HealthProblem]
    loop_lag: LoopLag
    rss_bytes: Bytes
    throughput_bytes_s: float
    upstreams: list[UpstreamHost] = []  # the first of them: those that fail, then those asked last
    as_of: str


class CheckResult(Struct, frozen=True, kw_only=True):
    name: str
    ok: bool
    text: str


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact (with a cursor) or progress (without)."""

    cursor: str | None = None
    time: Time
    topic: str
    type: str
    ids: Json = {}
    data: Json = {}
