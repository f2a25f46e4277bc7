"""The method table: the only place that says which methods there are, what goes in and out, and who may call them."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from firth_protocol import types as t
from firth_protocol.errors import (
    ChannelFrozen,
    Conflict,
    CursorExpired,
    FirthError,
    InUse,
    Invalid,
    NotFound,
    Upstream,
    WrongState,
)

ChannelName = Annotated[
    str, Meta(min_length=1, max_length=130, description="a channel's name, `parent/child` for a subchannel")
]
MirrorRef = Annotated[
    Annotated[int, Meta(ge=1, le=t.MAX_INT)] | Annotated[str, Meta(min_length=1, max_length=300)],
    Meta(description="a mirror: its id, or `channel:name`"),
]
RunId = Annotated[int, Meta(ge=1, le=t.MAX_INT, description="a run's id")]
Cursor = Annotated[str, Meta(max_length=2000, description="`next_cursor` of the page before")]
Limit = Annotated[int, Meta(ge=1, le=1000, description="how many items a page has at most")]
Query = Annotated[str, Meta(max_length=200, description="part of a name, in any case")]
Revision = Annotated[int, Meta(ge=1, le=t.MAX_INT, description="the revision that the edit is based on")]
DryRun = Annotated[bool, Meta(description="check everything, change nothing")]
Schedule = Annotated[str, Meta(max_length=200, description="5 cron fields in UTC, or hourly, daily, weekly, monthly")]
Source = Annotated[str, Meta(min_length=1, max_length=2000, description="address of the source")]
Credentials = Annotated[
    t.Credentials | t.CredentialName,
    Meta(
        description="{token}, {user, password}, {bearer} or {query}, or `@name` of one that the service manager gives"
        " the daemon; never shown again"
    ),
]


class Params(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The base of every method's parameters: by name only, strict."""


class ScopeBy(StrEnum):
    """How a method finds the channel that its role is checked against."""

    NONE = "none"  # the daemon as a whole; a role limited to channels covers it for lists only (they are cut to those)
    CHANNEL = "channel"  # params.channel, the name of a channel
    NEW_CHANNEL = "new_channel"  # params.name, the channel to be created
    MIRROR = "mirror"  # params.mirror
    RUN = "run"  # params.run
    LIST = "list"  # a list that is cut to the channels the caller may see


# --- results ------------------------------------------------------------------------------------


class ChannelReply(Struct, frozen=True, kw_only=True):
    channel: t.Channel
    warnings: list[str] = []
    runs: list[t.Run] = []
    seq: int


class FreezeReply(Struct, frozen=True, kw_only=True):
    changed: bool
    channel: t.Channel
    change: t.ContentChange | None = None
    run: t.Run | None = None
    not_stored: int | None = None
    hint: str = ""
    seq: int


class SeqReply(Struct, frozen=True, kw_only=True):
    seq: int


class RunReply(Struct, frozen=True, kw_only=True):
    run: t.Run | None
    already: bool = False
    warnings: list[str] = []
    seq: int


class MirrorReply(Struct, frozen=True, kw_only=True):
    mirror: t.Mirror
    run: t.Run | None = None
    warnings: list[str] = []
    seq: int


class MirrorDeleteReply(Struct, frozen=True, kw_only=True):
    kept: int
    dropped: int
    run: t.Run | None = None
    seq: int


class StoreStatusReply(t.StoreUse, frozen=True, kw_only=True):
    as_of: str


class StoreGcReply(Struct, frozen=True, kw_only=True):
    """`blobs` and `bytes` are what would go now; `use` says what holds the rest."""

    run: t.Run | None
    blobs: int
    bytes: int
    use: t.StoreUse
    seq: int


class PackageRemoveReply(Struct, frozen=True, kw_only=True):
    """`files` are the first thousand of `total`; a frozen channel's index lists them until it is unfrozen."""

    files: list[str]
    total: int
    listed_until_unfrozen: bool = False
    run: t.Run | None = None
    seq: int


class CheckReply(Struct, frozen=True, kw_only=True):
    ok: bool
    checks: list[t.CheckResult]


class ChannelGet(t.ChannelDetail, frozen=True, kw_only=True):
    as_of: str


class MirrorGet(t.Mirror, frozen=True, kw_only=True):
    as_of: str


class RunGet(t.Run, frozen=True, kw_only=True):
    as_of: str


class TokenCreated(Struct, frozen=True, kw_only=True):
    """The token's secret is in this reply and never shown again."""

    token: str
    item: t.Token
    seq: int


class PolicyReply(Struct, frozen=True, kw_only=True):
    policy: t.Policy
    runs: list[t.Run] = []
    warnings: list[str] = []
    seq: int


class PolicyGet(t.Policy, frozen=True, kw_only=True):
    as_of: str


class PolicyPreviewReply(Struct, frozen=True, kw_only=True):
    summary: list[str]
    effects: list[t.PolicyEffect]
    warnings: list[str] = []


class ConfigAction(StrEnum):
    CREATED = "created"
    CHANGED = "changed"


class ConfigKind(StrEnum):
    POLICY = "policy"
    CHANNEL = "channel"
    MIRROR = "mirror"


class ConfigField(Struct, frozen=True, kw_only=True):
    """A field as the document spells it; `before` is null for what is created."""

    field: str
    before: Any = None
    after: Any


class ConfigChange(Struct, frozen=True, kw_only=True):
    """What a document creates or changes; a mirror is `channel:name`."""

    action: ConfigAction
    kind: ConfigKind
    name: str
    fields: list[ConfigField]


class ConfigPreview(PolicyPreviewReply, frozen=True, kw_only=True):
    policy: str


class ConfigExportReply(t.Document, frozen=True, kw_only=True):
    as_of: str


class ConfigApplyReply(Struct, frozen=True, kw_only=True):
    """`unchanged` is named and is so already, `left_alone` is not named; `previews` are of a dry run."""

    changes: list[ConfigChange]
    unchanged: list[str]
    left_alone: list[str]
    previews: list[ConfigPreview] = []
    runs: list[t.Run] = []
    warnings: list[str] = []
    seq: int


class DependencyReportReply(Struct, frozen=True, kw_only=True):
    """Rows, or `text` of the same: its header stands on the first page only."""

    rows: list[t.DependencyRow]
    text: str | None = None
    next_cursor: str | None = None
    as_of: str


class AdvisoryGet(t.AdvisoryInfo, frozen=True, kw_only=True):
    touches: list[t.AdvisoryTouch]  # the first of them: most affected files first
    touches_total: int
    as_of: str


class AdvisorySummary(Struct, frozen=True, kw_only=True):
    """What is known of flaws, by database."""

    databases: list[t.AdvisoryDatabase]
    as_of: str


class AdvisoryReply(Struct, frozen=True, kw_only=True):
    advisory: t.AdvisoryInfo
    runs: list[t.Run] = []
    seq: int


class TokenReply(Struct, frozen=True, kw_only=True):
    item: t.Token
    seq: int


# --- parameters ---------------------------------------------------------------------------------


PolicyName = Annotated[str, Meta(min_length=1, max_length=100, description="a policy's name")]


class NoParams(Params, frozen=True):
    pass


class PageParams(Params, frozen=True, kw_only=True):
    cursor: Cursor | None = None
    limit: Limit = 100


class ChannelParams(Params, frozen=True, kw_only=True):
    channel: ChannelName


class ChannelCreate(Params, frozen=True, kw_only=True):
    name: ChannelName
    description: Annotated[str, Meta(max_length=2000, description="a sentence for people")] = ""
    privacy: t.Privacy = t.Privacy.PUBLIC
    keep_generations: t.KeepGenerations | None = None
    policy: PolicyName | None = None
    dry_run: DryRun = False


class ChannelList(PageParams, frozen=True, kw_only=True):
    query: Query | None = None
    sort: Annotated[
        str,
        Meta(description="`name`, `created_at`, `updated_at`, `published_at`, each with `-` for descending"),
    ] = "name"


class ChannelUpdate(Params, frozen=True, kw_only=True):
    channel: ChannelName
    revision: Revision
    description: Annotated[str, Meta(max_length=2000)] | UnsetType = UNSET
    privacy: t.Privacy | UnsetType = UNSET
    keep_generations: t.KeepGenerations | None | UnsetType = UNSET
    notices: (
        Annotated[
            list[t.Notice], Meta(max_length=20, description="what conda shows to the channel's users; all of them")
        ]
        | UnsetType
    ) = UNSET
    policy: (
        Annotated[PolicyName, Meta(description="judges what its mirrors bring that have none of their own")]
        | None
        | UnsetType
    ) = UNSET
    dry_run: DryRun = False


class ChannelDelete(Params, frozen=True, kw_only=True):
    channel: ChannelName
    confirm: Annotated[str, Meta(max_length=200, description="the channel's name once more")]
    dry_run: DryRun = False


class ChannelChangeState(Params, frozen=True, kw_only=True):
    channel: ChannelName
    dry_run: DryRun = False


class ChannelGenerations(PageParams, frozen=True, kw_only=True):
    channel: ChannelName


class ChannelChanges(PageParams, frozen=True, kw_only=True):
    channel: ChannelName
    generation: (
        Annotated[
            int,
            Meta(
                ge=1, le=t.MAX_INT, description="a generation's number; without it the draft, or the newest generation"
            ),
        ]
        | None
    ) = None
    package: Annotated[str, Meta(min_length=1, max_length=500, description="files of this package only")] | None = None
    since: (
        Annotated[str, Meta(max_length=40, description="RFC 3339; what has been published since, in one list")] | None
    ) = None


class ChannelRollback(Params, frozen=True, kw_only=True):
    channel: ChannelName
    generation: Annotated[int, Meta(ge=1, le=t.MAX_INT, description="the generation to publish again")]
    dry_run: DryRun = False


AlsoFrom = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=2000)]],
    Meta(max_length=8, description="folders (file:///…) and addresses that are asked for files before the source"),
]
DropUnusedDays = Annotated[
    int, Meta(ge=1, le=3650, description="passive: a file that nobody asked for that long leaves the store")
]
MaxRate = Annotated[int, Meta(ge=1000, le=t.MAX_INT, description="bytes a second, at the most")]
MaxRateHours = Annotated[
    str,
    Meta(
        pattern="^([01]?[0-9]|2[0-3])-([01]?[0-9]|2[0-4])$",
        description="UTC hours in which `max_rate` holds, such as 8-18",
    ),
]


class MirrorCheck(Params, frozen=True, kw_only=True):
    type: t.MirrorType
    source: Source
    credentials: Credentials | None = None
    proxy: str | None = None
    ca_file: str | None = None
    mirror: (
        Annotated[MirrorRef, Meta(description="a mirror whose stored credentials are used when none are given")] | None
    ) = None


class MirrorCreate(Params, frozen=True, kw_only=True):
    channel: ChannelName
    name: Annotated[str, Meta(min_length=1, max_length=100, description="unique in its channel")]
    type: Annotated[t.MirrorType, Meta(description="what the source is; fixed after creation")]
    mode: Annotated[
        t.MirrorMode,
        Meta(description="`passive`: files on first request; `active`: all files now; fixed after creation"),
    ] = t.MirrorMode.PASSIVE
    source: Source
    schedule: Schedule = t.NAMED_SCHEDULES["monthly"]
    filters: t.Filters = t.Filters()
    on_upstream_removal: t.OnUpstreamRemoval = t.OnUpstreamRemoval.FOLLOW
    proxy: Annotated[str, Meta(max_length=2000, description="http://host:port of a proxy")] | None = None
    ca_file: Annotated[str, Meta(max_length=4096, description="file with the certificates to trust")] | None = None
    credentials: Credentials | None = None
    also_from: AlsoFrom = []
    drop_unused_days: DropUnusedDays | None = None
    max_rate: MaxRate | None = None
    max_rate_hours: MaxRateHours | None = None
    enabled: Annotated[bool, Meta(description="false: never by schedule")] = True
    policy: Annotated[PolicyName, Meta(description="replaces the channel's")] | None = None
    run_now: Annotated[bool, Meta(description="start a run at once")] = False
    check: Annotated[bool, Meta(description="ask the source first (at most 10 s)")] = True
    dry_run: DryRun = False


class MirrorList(PageParams, frozen=True, kw_only=True):
    channel: ChannelName | None = None
    query: Query | None = None
    type: t.MirrorType | None = None
    mode: t.MirrorMode | None = None
    state: t.RunState | None = None
    sort: Annotated[
        str,
        Meta(
            description=(
                "`name` (channel, then mirror), `mirror`, `type`, `mode`, `state`, `last_updated` (the last success),"
                " `next_run_at`, `updated_at`, each with `-` for descending"
            )
        ),
    ] = "name"


class MirrorParams(Params, frozen=True, kw_only=True):
    mirror: MirrorRef


class MirrorUpdate(Params, frozen=True, kw_only=True):
    mirror: MirrorRef
    revision: Revision
    name: Annotated[str, Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    source: Source | UnsetType = UNSET
    schedule: Schedule | UnsetType = UNSET
    filters: t.Filters | None | UnsetType = UNSET
    on_upstream_removal: t.OnUpstreamRemoval | UnsetType = UNSET
    proxy: str | None | UnsetType = UNSET
    ca_file: str | None | UnsetType = UNSET
    credentials: Credentials | None | UnsetType = UNSET
    also_from: AlsoFrom | None | UnsetType = UNSET
    drop_unused_days: DropUnusedDays | None | UnsetType = UNSET
    max_rate: MaxRate | None | UnsetType = UNSET
    max_rate_hours: MaxRateHours | None | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    policy: Annotated[PolicyName, Meta(description="replaces the channel's")] | None | UnsetType = UNSET
    check: bool = True
    dry_run: DryRun = False


class MirrorRun(Params, frozen=True, kw_only=True):
    mirror: MirrorRef
    accept_removals: Annotated[bool, Meta(description="go ahead although the source lost much of what it had")] = False
    dry_run: DryRun = False


class MirrorPlan(Params, frozen=True, kw_only=True):
    """Either `mirror`, or the fields of `mirror.create`."""

    mirror: MirrorRef | None = None
    channel: ChannelName | None = None
    name: str | None = None
    type: t.MirrorType | None = None
    mode: t.MirrorMode = t.MirrorMode.PASSIVE
    source: Source | None = None
    filters: t.Filters = t.Filters()
    on_upstream_removal: t.OnUpstreamRemoval = t.OnUpstreamRemoval.FOLLOW
    proxy: str | None = None
    ca_file: str | None = None
    credentials: Credentials | None = None


class MirrorStop(Params, frozen=True, kw_only=True):
    mirror: MirrorRef
    publish: Annotated[bool, Meta(description="publish what is already there (adds, never removes)")] = False
    dry_run: DryRun = False


class MirrorRestart(Params, frozen=True, kw_only=True):
    mirror: MirrorRef
    dry_run: DryRun = False


class MirrorFill(Params, frozen=True, kw_only=True):
    mirror: MirrorRef
    specs: (
        Annotated[
            list[Annotated[str, Meta(min_length=1, max_length=1024)]],
            Meta(max_length=100, description="packages to download, such as `numpy >=1.26`; without it all"),
        ]
        | None
    ) = None
    dry_run: DryRun = False


class StoreGc(Params, frozen=True, kw_only=True):
    dry_run: DryRun = False


class StoreScrub(Params, frozen=True, kw_only=True):
    dry_run: DryRun = False


class DaemonBackup(Params, frozen=True, kw_only=True):
    path: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="a folder that is not there yet, below the state's out/ or one of store.export_dirs",
        ),
    ]
    dry_run: DryRun = False


class MirrorDelete(Params, frozen=True, kw_only=True):
    mirror: MirrorRef
    packages: Annotated[
        str,
        Meta(pattern="^(keep|remove)$", description="`keep`: stored artifacts stay with the channel; `remove`: all go"),
    ] = "keep"
    confirm: Annotated[str, Meta(max_length=200, description="the mirror's name once more")]
    dry_run: DryRun = False


class MirrorDetailsParams(Params, frozen=True, kw_only=True):
    mirror: MirrorRef
    run: RunId | None = None


class RunList(PageParams, frozen=True, kw_only=True):
    mirror: MirrorRef | None = None
    channel: ChannelName | None = None
    kind: t.RunKind | None = None
    state: t.RunState | None = None
    sort: Annotated[
        str,
        Meta(
            description="`id`, `channel`, `mirror`, `kind`, `state`, `began`, `duration`, `added`,"
            " each with `-` for descending"
        ),
    ] = "-id"


class RunParams(Params, frozen=True, kw_only=True):
    run: RunId


class RunLog(Params, frozen=True, kw_only=True):
    run: RunId
    after: Annotated[int, Meta(ge=0, le=t.MAX_INT, description="number of the last line already seen")] = 0
    cursor: Cursor | None = None
    limit: Limit = 200


class RunWait(Params, frozen=True, kw_only=True):
    run: RunId
    timeout: Annotated[float, Meta(gt=0, le=3600, description="seconds")] = 60.0


class PackageList(PageParams, frozen=True, kw_only=True):
    channel: ChannelName
    family: t.Family | None = None
    query: Query | None = None
    platform: Annotated[str, Meta(max_length=64, description="a subdir, such as linux-64 or noarch")] | None = None
    state: t.ArtifactState | None = None
    left_out: Annotated[
        bool | None, Meta(description="packages of which policies leave nothing: true only these, false none of them")
    ] = None
    sort: Annotated[str, Meta(description="`name`, `files`, `bytes`, `downloads`, each with `-` for descending")] = (
        "name"
    )


class PackageGet(Params, frozen=True, kw_only=True):
    channel: ChannelName
    family: t.Family = t.Family.CONDA
    name: Annotated[str, Meta(min_length=1, max_length=300)]


Spec = Annotated[str, Meta(min_length=1, max_length=1024, description="which packages, such as `numpy >=1.26,<2`")]


class PackageRemove(Params, frozen=True, kw_only=True):
    channel: ChannelName
    spec: Spec
    family: t.Family = t.Family.CONDA
    note: Annotated[str, Meta(max_length=1000, description="why; whoever asks for a file is told")] = ""
    dry_run: DryRun = False


class PackageRestore(Params, frozen=True, kw_only=True):
    channel: ChannelName
    spec: Annotated[str, Meta(min_length=1, max_length=1024, description="the spec of a block, letter by letter")]
    family: t.Family = t.Family.CONDA
    dry_run: DryRun = False


class PackageExplain(PageParams, frozen=True, kw_only=True):
    channel: ChannelName
    spec: Spec
    family: t.Family = t.Family.CONDA


class MirrorExcluded(PageParams, frozen=True, kw_only=True):
    mirror: MirrorRef
    reason: Annotated[str, Meta(max_length=40, description="a rule, such as `licenses`")] | None = None
    query: Annotated[str, Meta(max_length=200, description="part of a file's name, in any case")] | None = None


class ReportFormat(StrEnum):
    JSON = "json"
    CSV = "csv"


class MirrorDependencyReport(PageParams, frozen=True, kw_only=True):
    mirror: MirrorRef
    format: Annotated[ReportFormat, Meta(description="`csv`: `text`, whose pages joined are the file")] = (
        ReportFormat.JSON
    )


Families = Annotated[
    list[t.Family], Meta(min_length=1, max_length=3, description="which packages it judges; all unless given")
]


class PolicyCreate(Params, frozen=True, kw_only=True):
    name: PolicyName
    description: Annotated[str, Meta(max_length=2000, description="a sentence for people")] = ""
    families: Families | None = None
    rules: t.Rules
    dry_run: DryRun = False


class PolicyUpdate(Params, frozen=True, kw_only=True):
    policy: PolicyName
    revision: Revision
    description: Annotated[str, Meta(max_length=2000)] | UnsetType = UNSET
    families: Families | None | UnsetType = UNSET
    rules: t.Rules | UnsetType = UNSET
    dry_run: DryRun = False


class PolicyParams(Params, frozen=True, kw_only=True):
    policy: PolicyName


class PolicyDelete(Params, frozen=True, kw_only=True):
    policy: PolicyName
    dry_run: DryRun = False


class PolicyList(PageParams, frozen=True, kw_only=True):
    query: Query | None = None


class PolicyPreview(Params, frozen=True, kw_only=True):
    """Either `rules` or the name of a policy, for a mirror or for all mirrors of a channel."""

    policy: PolicyName | None = None
    rules: t.Rules | None = None
    families: Families | None = None
    mirror: MirrorRef | None = None
    channel: ChannelName | None = None


class AdvisoryImport(Params, frozen=True, kw_only=True):
    source: Annotated[
        str, Meta(min_length=1, max_length=2000, description="a zip, folder or file of this machine, or its address")
    ]
    format: t.AdvisoryFormat = t.AdvisoryFormat.OSV
    dry_run: DryRun = False


class AdvisoryList(PageParams, frozen=True, kw_only=True):
    query: Annotated[str, Meta(max_length=200, description="part of an id or of a package's name")] | None = None
    status: t.AdvisoryStatus | None = None


class AdvisoryParams(Params, frozen=True, kw_only=True):
    id: Annotated[str, Meta(min_length=1, max_length=200, description="an advisory's id")]


class AdvisorySet(AdvisoryParams, frozen=True, kw_only=True):
    status: t.AdvisoryStatus | UnsetType = UNSET
    score: Annotated[float, Meta(ge=0, le=10, description="null: the advisory's own")] | None | UnsetType = UNSET
    note: Annotated[str, Meta(max_length=2000)] | UnsetType = UNSET
    dry_run: DryRun = False


class ConfigExport(Params, frozen=True, kw_only=True):
    channel: Annotated[ChannelName, Meta(description="this one alone, with its mirrors and their policies")] | None = (
        None
    )


class ConfigApply(Params, frozen=True, kw_only=True):
    document: Annotated[str, Meta(description="TOML, as `config.export` writes it")]
    secrets: Annotated[
        dict[str, t.Credentials],
        Meta(
            description='`{"channel:mirror": credentials}` for mirrors whose `credentials` the document calls `given`'
        ),
    ] = {}
    check: Annotated[bool, Meta(description="ask new and changed sources first (at most 10 s each)")] = False
    run_now: Annotated[bool, Meta(description="start a run of each mirror that is created")] = False
    dry_run: DryRun = False


class TokenCreate(Params, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=100, description="what the token is for")]
    channels: (
        Annotated[
            list[str],
            Meta(description="channels it opens beside the authenticated ones; `team/*` names the children of team"),
        ]
        | None
    ) = None
    expires_at: t.Time | None = None
    dry_run: DryRun = False


class TokenList(PageParams, frozen=True, kw_only=True):
    query: Query | None = None


class TokenRevoke(Params, frozen=True, kw_only=True):
    id: Annotated[int, Meta(ge=1, le=t.MAX_INT, description="a token's id")]
    dry_run: DryRun = False


class ScheduleNextParams(Params, frozen=True, kw_only=True):
    schedule: Schedule
    count: Annotated[int, Meta(ge=1, le=20, description="how many times are told")] = 3


class ReportDownloads(PageParams, frozen=True, kw_only=True):
    channel: ChannelName | None = None
    family: t.Family | None = None
    package: Annotated[str, Meta(min_length=1, max_length=300, description="a package's whole name")] | None = None
    since: (
        Annotated[str, Meta(max_length=40, description="first UTC day, YYYY-MM-DD, or a time that lies in it")] | None
    ) = None
    until: Annotated[str, Meta(max_length=40, description="last UTC day, YYYY-MM-DD, or a time in it")] | None = None
    by: (
        Annotated[list[t.DownloadsBy], Meta(max_length=3, description="what is told apart; without it all of them")]
        | None
    ) = None
    format: Annotated[t.ReportFormat, Meta(description="`csv`: as `text`, the header on the first page only")] = (
        t.ReportFormat.ROWS
    )


class AuditList(PageParams, frozen=True, kw_only=True):
    query: Query | None = None


# --- the table ----------------------------------------------------------------------------------


class Method(Struct, frozen=True, kw_only=True):
    """One row: what `name` takes, gives and needs.

    `changes`: it is written to the audit log. `waits`: it gives a run whose outcome is the caller's own.
    """

    name: str
    summary: str
    role: t.Role
    params: type[Params]
    result: Any
    scope: ScopeBy = ScopeBy.NONE
    errors: tuple[type[FirthError], ...] = ()
    changes: bool = False
    waits: bool = False
    since: int = 1


def _row(
    name: str,
    role: t.Role,
    params: type[Params],
    result: Any,
    summary: str,
    scope: ScopeBy = ScopeBy.NONE,
    *errors: type[FirthError],
    changes: bool = False,
    waits: bool = False,
) -> Method:
    return Method(
        name=name,
        role=role,
        params=params,
        result=result,
        summary=summary,
        scope=scope,
        errors=errors,
        changes=changes,
        waits=waits,
    )


_R, _O, _M, _A = t.Role.READER, t.Role.OPERATOR, t.Role.MANAGER, t.Role.ADMIN
_CH, _MI, _RU, _LI = ScopeBy.CHANNEL, ScopeBy.MIRROR, ScopeBy.RUN, ScopeBy.LIST

_ROWS = (
    _row("rpc.discover", _R, NoParams, t.Json, "Return this table as an OpenRPC document"),
    _row(
        "daemon.status",
        _R,
        NoParams,
        t.DaemonStatus,
        "Tell how the daemon is: version, addresses, store, next runs, health",
    ),
    _row(
        "daemon.check", _A, NoParams, CheckReply, "Test database integrity, store, files of indexes, clock and sockets"
    ),
    _row(
        "daemon.backup",
        _A,
        DaemonBackup,
        RunReply,
        "Copy state, indexes and settings, without secrets and package files, into a new folder",
        ScopeBy.NONE,
        Invalid,
        Conflict,
        changes=True,
    ),
    _row("store.status", _R, NoParams, StoreStatusReply, "Tell what lies in the store and what holds it"),
    _row(
        "store.gc",
        _A,
        StoreGc,
        StoreGcReply,
        "Take away stored files that nothing needs: no index, draft, snapshot or grace period",
        changes=True,
    ),
    _row(
        "store.scrub",
        _A,
        StoreScrub,
        RunReply,
        "Read every stored file at a bounded rate; what is damaged comes again",
        changes=True,
    ),
    _row(
        "channel.create",
        _M,
        ChannelCreate,
        ChannelReply,
        "Create a channel and publish its first, empty generation",
        ScopeBy.NEW_CHANNEL,
        Conflict,
        Invalid,
        changes=True,
    ),
    _row("channel.list", _R, ChannelList, t.Page[t.Channel], "List channels", _LI, CursorExpired),
    _row(
        "channel.get",
        _R,
        ChannelParams,
        ChannelGet,
        "Show a channel with its mirrors, subchannels and addresses",
        _CH,
        NotFound,
    ),
    _row(
        "channel.update",
        _M,
        ChannelUpdate,
        ChannelReply,
        "Edit a channel",
        _CH,
        NotFound,
        Conflict,
        Invalid,
        changes=True,
    ),
    _row(
        "channel.delete",
        _M,
        ChannelDelete,
        SeqReply,
        "Delete a channel with its mirrors and generations",
        _CH,
        NotFound,
        InUse,
        Invalid,
        WrongState,
        changes=True,
    ),
    _row(
        "channel.freeze",
        _O,
        ChannelChangeState,
        FreezeReply,
        "Pin the published generation; mirrors go on, nothing new is published",
        _CH,
        NotFound,
        changes=True,
    ),
    _row(
        "channel.unfreeze",
        _O,
        ChannelChangeState,
        FreezeReply,
        "Publish once what has accumulated, and go on as usual",
        _CH,
        NotFound,
        changes=True,
    ),
    _row(
        "channel.generations",
        _R,
        ChannelGenerations,
        t.Page[t.Generation],
        "List what has been published",
        _CH,
        NotFound,
        CursorExpired,
    ),
    _row(
        "channel.changes",
        _R,
        ChannelChanges,
        t.Page[t.Change],
        "List what a generation, the draft, or all since a time added and closed",
        _CH,
        NotFound,
        Invalid,
        CursorExpired,
    ),
    _row(
        "channel.rollback",
        _M,
        ChannelRollback,
        RunReply,
        "Publish an earlier generation again and freeze the channel",
        _CH,
        NotFound,
        Invalid,
        WrongState,
        changes=True,
    ),
    _row(
        "mirror.check",
        _O,
        MirrorCheck,
        t.SourceFound,
        "Ask a source what it is; changes nothing",
        ScopeBy.NONE,
        Upstream,
        Invalid,
    ),
    _row(
        "mirror.create",
        _M,
        MirrorCreate,
        MirrorReply,
        "Create a mirror: a standing order to copy a source into a channel",
        _CH,
        NotFound,
        Conflict,
        Invalid,
        Upstream,
        changes=True,
    ),
    _row("mirror.list", _R, MirrorList, t.Page[t.Mirror], "List mirrors", _LI, CursorExpired),
    _row("mirror.get", _R, MirrorParams, MirrorGet, "Show a mirror", _MI, NotFound),
    _row(
        "mirror.update",
        _M,
        MirrorUpdate,
        MirrorReply,
        "Edit a mirror; source and filters act at the next run",
        _MI,
        NotFound,
        Conflict,
        Invalid,
        Upstream,
        changes=True,
    ),
    _row("mirror.run", _O, MirrorRun, RunReply, "Run a mirror now", _MI, NotFound, changes=True),
    _row(
        "mirror.plan",
        _O,
        MirrorPlan,
        RunReply,
        "Tell what a run would add, remove and download; changes nothing",
        _MI,
        NotFound,
        Invalid,
    ),
    _row(
        "mirror.stop",
        _O,
        MirrorStop,
        RunReply,
        "Stop a mirror's run within 5 s; what it verified stays stored",
        _MI,
        NotFound,
        WrongState,
        changes=True,
    ),
    _row(
        "mirror.restart",
        _O,
        MirrorRestart,
        RunReply,
        "Stop a mirror's run if there is one, then run from step 1",
        _MI,
        NotFound,
        changes=True,
    ),
    _row(
        "mirror.fill",
        _O,
        MirrorFill,
        RunReply,
        "Download the files that a mirror lists and the store lacks, all or some packages'",
        _MI,
        NotFound,
        Invalid,
        changes=True,
    ),
    _row(
        "mirror.delete",
        _M,
        MirrorDelete,
        MirrorDeleteReply,
        "Delete a mirror; keep or remove its packages",
        _MI,
        NotFound,
        Invalid,
        ChannelFrozen,
        changes=True,
    ),
    _row(
        "mirror.details",
        _R,
        MirrorDetailsParams,
        t.MirrorDetails,
        "Show what a mirror's run did, with each failure",
        _MI,
        NotFound,
    ),
    _row(
        "mirror.excluded",
        _R,
        MirrorExcluded,
        t.Page[t.Excluded],
        "List what a policy keeps out of a mirror, each with the first rule that decided",
        _MI,
        NotFound,
        CursorExpired,
    ),
    _row(
        "mirror.dependency_report",
        _R,
        MirrorDependencyReport,
        DependencyReportReply,
        "List what a policy allows with all that it needs, and what is missing",
        _MI,
        NotFound,
        WrongState,
        CursorExpired,
    ),
    _row("run.list", _R, RunList, t.Page[t.Run], "List runs, newest first", _LI, CursorExpired),
    _row("run.get", _R, RunParams, RunGet, "Show a run with its steps", _RU, NotFound),
    _row("run.log", _R, RunLog, t.Page[t.LogLine], "Read a run's log", _RU, NotFound),
    _row("run.wait", _R, RunWait, RunGet, "Wait for a run to end", _RU, NotFound, waits=True),
    _row(
        "package.list",
        _R,
        PackageList,
        t.Page[t.Package],
        "List the packages of a channel's published generation",
        _CH,
        NotFound,
        CursorExpired,
    ),
    _row(
        "package.remove",
        _M,
        PackageRemove,
        PackageRemoveReply,
        "Take packages out of a channel: refused at every address at once, until restored",
        _CH,
        NotFound,
        Invalid,
        changes=True,
    ),
    _row(
        "package.restore",
        _M,
        PackageRestore,
        PackageRemoveReply,
        "Lift a block: what it had taken out is shown again",
        _CH,
        NotFound,
        changes=True,
    ),
    _row("package.get", _R, PackageGet, t.PackageDetail, "Show a package with its versions and files", _CH, NotFound),
    _row(
        "package.explain",
        _R,
        PackageExplain,
        t.Page[t.Explained],
        "Tell what became of each artifact of the sources that a spec matches, and why",
        _CH,
        NotFound,
        Invalid,
        CursorExpired,
    ),
    _row(
        "policy.create",
        _M,
        PolicyCreate,
        PolicyReply,
        "Create a policy: rules that say which artifacts may enter a channel",
        ScopeBy.NONE,
        Conflict,
        Invalid,
        changes=True,
    ),
    _row("policy.list", _R, PolicyList, t.Page[t.Policy], "List policies", ScopeBy.LIST, CursorExpired),
    _row("policy.get", _R, PolicyParams, PolicyGet, "Show a policy and where it is in force", ScopeBy.LIST, NotFound),
    _row(
        "policy.update",
        _M,
        PolicyUpdate,
        PolicyReply,
        "Edit a policy; it acts at once where it is in force",
        ScopeBy.NONE,
        NotFound,
        Conflict,
        Invalid,
        changes=True,
    ),
    _row(
        "policy.delete",
        _M,
        PolicyDelete,
        SeqReply,
        "Delete a policy that is in force nowhere",
        ScopeBy.NONE,
        NotFound,
        InUse,
        changes=True,
    ),
    _row(
        "policy.preview",
        _O,
        PolicyPreview,
        PolicyPreviewReply,
        "Tell what a policy or rules would keep and drop, without changing anything",
        _MI,
        NotFound,
        Invalid,
    ),
    _row(
        "advisory.import",
        _M,
        AdvisoryImport,
        RunReply,
        "Read advisories into the state; what was set by hand stays",
        ScopeBy.NONE,
        Invalid,
        changes=True,
    ),
    _row("advisory.list", _R, AdvisoryList, t.Page[t.AdvisoryInfo], "List advisories", ScopeBy.LIST, CursorExpired),
    _row(
        "advisory.get",
        _R,
        AdvisoryParams,
        AdvisoryGet,
        "Show an advisory with the packages of channels that it names, and how many of their files it means",
        ScopeBy.LIST,
        NotFound,
    ),
    _row(
        "advisory.summary",
        _R,
        NoParams,
        AdvisorySummary,
        "Tell how many advisories are known, by database, and how old they are",
    ),
    _row(
        "advisory.set",
        _M,
        AdvisorySet,
        AdvisoryReply,
        "Set an advisory's status, score and note by hand; policies about flaws act at once",
        ScopeBy.NONE,
        NotFound,
        changes=True,
    ),
    _row(
        "config.export",
        _M,
        ConfigExport,
        ConfigExportReply,
        "Write policies, channels and mirrors as one TOML document, without secrets",
        ScopeBy.LIST,
        NotFound,
    ),
    _row(
        "config.apply",
        _M,
        ConfigApply,
        ConfigApplyReply,
        "Make policies, channels and mirrors what a document says; what it does not name is left alone",
        ScopeBy.NONE,
        Invalid,
        NotFound,
        Conflict,
        Upstream,
        changes=True,
    ),
    _row(
        "token.create",
        _A,
        TokenCreate,
        TokenCreated,
        "Create a token for clients; it is shown once",
        ScopeBy.NONE,
        NotFound,
        Invalid,
        changes=True,
    ),
    _row("token.list", _A, TokenList, t.Page[t.Token], "List tokens with their last use"),
    _row("token.revoke", _A, TokenRevoke, TokenReply, "Revoke a token at once", ScopeBy.NONE, NotFound, changes=True),
    _row(
        "schedule.next",
        _R,
        ScheduleNextParams,
        t.ScheduleNext,
        "Tell what a schedule means and when it comes next",
        ScopeBy.NONE,
        Invalid,
    ),
    _row(
        "report.downloads",
        _R,
        ReportDownloads,
        t.TextPage[t.DownloadCount],
        "Tell who downloaded which packages when, of the last 13 months",
        _LI,
        NotFound,
        Invalid,
        CursorExpired,
    ),
    _row(
        "notify.test",
        _A,
        NoParams,
        t.NotifyTest,
        "Send a notification for a try, as [notify] in firth.toml says",
        ScopeBy.NONE,
        Invalid,
    ),
    _row(
        "audit.list",
        _A,
        AuditList,
        t.Page[t.AuditEntry],
        "List who changed what, newest first",
        ScopeBy.NONE,
        CursorExpired,
    ),
)

METHODS: Mapping[str, Method] = MappingProxyType({row.name: row for row in _ROWS})
