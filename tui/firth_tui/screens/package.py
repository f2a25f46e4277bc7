"""One package of a channel: its versions and files, what it needs and what needs it."""

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.widgets import Static

from firth_protocol.errors import FirthError
from firth_protocol.methods import ChannelGet
from firth_protocol.types import ArtifactState, DownloadCount, DownloadsBy, Family, Package, PackageDetail, PackageFile
from firth_tui.actions import Place
from firth_tui.format import Cell, Sign, Tone, age, clean, count, counted, family_name, size
from firth_tui.model import Touched
from firth_tui.rows import LocalRows
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.widgets.keyed_table import Column, KeyedTable
from firth_tui.widgets.scroll import Scroll
from firth_tui.widgets.work import Repeated

MOST_NAMES = 60
MOST_TOKENS = 5

WORDS = (
    ("stored", "the file is here"),
    ("on demand", "the file is fetched from the source when a client first asks for it"),
    ("build", "what tells two files of the same version apart"),
    ("needs", "packages that this one depends on"),
    ("fetched", "how often clients downloaded it, and with which tokens"),
    ("needed by", "packages of this channel that depend on this one"),
)


def _state(file: PackageFile) -> Cell:
    if file.state is ArtifactState.STORED:
        return Cell(f"{Sign.OK} stored", Tone.OK)
    return Cell(f"{Sign.WAIT} on demand", Tone.MUTED)


def _names(names: list[str], total: int = 0) -> str:
    shown = ", ".join(clean(name) for name in names[:MOST_NAMES])
    left = max(total, len(names)) - min(MOST_NAMES, len(names))
    more = f" and {counted(left, 'more', 'more')}" if left else ""
    return (shown + more) or "nothing"


def needs_of(detail: PackageDetail) -> str:
    """Return what a package needs; what says so may not have been fetched yet."""
    if detail.dependencies or detail.dependencies_known:
        return _names(detail.dependencies)
    return "unknown until a file of the newest version is stored"


class PackageScreen(PlaceScreen):
    """One package."""

    BINDINGS = bindings({Place.PACKAGE})
    words: ClassVar = WORDS

    def __init__(self, channel: str, package: Package) -> None:
        super().__init__()
        self.channel_name = channel
        self.package = package
        self.more = Static("", markup=False)
        self._fetched = ""
        self.detail: PackageDetail | None = None
        self.channel_now: ChannelGet | None = None
        self._reading = Repeated(self, self._read, group="package")
        self.files: KeyedTable[PackageFile] = KeyedTable(self._columns(), LocalRows[PackageFile]([], _key))

    def _columns(self) -> tuple[Column[PackageFile], ...]:
        platform: Column[PackageFile] = Column(
            id="subdir", title="PLATFORM", width=13, cell=lambda f: Cell(clean(f.part))
        )
        # Where a family has no builds, the file's name tells what it is; Python's says for which platform too.
        file: tuple[Column[PackageFile], ...] = (
            Column(id="file", title="FILE", width=28, grow=4, cell=lambda f: Cell(clean(f.filename))),
        )
        if self.package.family is Family.CONDA:
            file = (Column(id="build", title="BUILD", width=12, grow=2, cell=lambda f: Cell(clean(f.build))),)
        return (
            Column(id="version", title="VERSION", width=12, cell=lambda f: Cell(clean(f.version), Tone.STRONG)),
            *file,
            *(() if self.package.family is Family.PYTHON else (platform,)),
            Column(id="size", title="SIZE", width=8, right=True, cell=lambda f: Cell(size(f.size))),
            Column(id="state", title="STATE", width=11, cell=_state),
            Column(id="time", title="BUILT", width=11, drop=1, cell=lambda f: Cell(age(f.timestamp, self.now()))),
            Column(
                id="license", title="LICENCE", width=14, grow=1, drop=2, cell=lambda f: Cell(clean(f.license or "–"))
            ),
            Column(id="mirror", title="FROM", width=12, grow=1, drop=3, cell=lambda f: Cell(clean(f.mirror or "–"))),
        )

    def where(self) -> Place:
        return Place.PACKAGE

    def crumbs(self) -> list[str]:
        return ["Channels", self.channel_name, self.package.name]

    def side(self) -> list[Cell]:
        detail = self.detail
        if detail is None:
            return []
        files = max(detail.files_total, len(detail.files))
        shown = f"the first {count(len(detail.files))} of {count(files)}" if detail.truncated else count(files)
        return [Cell(f"{family_name(detail.family)} · newest {clean(detail.version)} · {shown} files", Tone.MUTED)]

    @property
    def table(self) -> KeyedTable[Any]:
        return self.files

    def behind(self) -> bool:
        return self.channel_now is None and self._reading.at_work

    def readings(self) -> list[Repeated]:
        return [self._reading]

    def subjects(self, *, painted: bool = False) -> dict[str, Any]:
        return {"package": self.package, "channel": self.channel_now}

    def name_to_copy(self, row: Any) -> str | None:
        return row.filename if isinstance(row, PackageFile) else self.package.name

    async def url_to_copy(self, row: Any) -> str | None:
        return row.url if isinstance(row, PackageFile) else None

    def body(self) -> ComposeResult:
        yield self.table
        with Scroll(id="package-more"):
            yield self.more

    def on_mount(self) -> None:
        self.focus_body()
        self.reload()

    def focus_body(self) -> None:
        self.set_focus(self.files)

    def reload(self) -> None:
        self._reading.ask()

    def fact(self, about: Touched) -> None:
        if about.channel == self.channel_name and about.changes_content:
            self.reload()

    async def _read(self) -> None:
        try:
            self.detail = await self.firth.link.ask(
                PackageDetail,
                "package.get",
                channel=self.channel_name,
                family=self.package.family,
                name=self.package.name,
            )
            self.channel_now = await self.firth.link.ask(ChannelGet, "channel.get", channel=self.channel_name)
        except FirthError as error:
            self.table.failed(f"{error.message}\n{error.hint}")
            return
        except OSError:
            return
        self.table.source = LocalRows(newest_first(self.detail), _key)
        self.table.changed()
        self._fetched = fetched(self.detail, await self._by_token())
        self._tell()
        self.redraw()

    @on(KeyedTable.Highlighted)
    def _other_file(self) -> None:
        self._tell()

    def _tell(self) -> None:
        """Tell of the file under the cursor what its row has no room for, then of the package."""
        detail, file = self.detail, self.files.cursor_row
        if detail is not None:
            self.more.update(
                "\n".join([*(file_lines(file, detail.family) if file else ()), *package_lines(detail, self._fetched)])
            )

    async def _by_token(self) -> list[DownloadCount]:
        """Return who fetched the package; nobody where the daemon is too old to tell."""
        try:
            page = await self.firth.link.page(
                DownloadCount,
                "report.downloads",
                channel=self.channel_name,
                family=self.package.family,
                package=self.package.name,
                by=[DownloadsBy.TOKEN],
            )
        except (FirthError, OSError):
            return []
        return page.items


def file_lines(file: PackageFile, family: Family) -> list[str]:
    """Return what identifies a file, uncut, and what it needs; Python's index says of a file its name and digest."""
    if family is Family.PYTHON:
        return [f"file        {clean(file.filename)}", f"sha256      {clean(file.sha256 or 'not told by the source')}"]
    return [
        f"file        {clean(file.filename)}",
        f"platform    {clean(file.part)}   built {clean(file.build) or '–'}   licence {clean(file.license or '–')}",
        f"sha256      {clean(file.sha256 or 'not told by the source')}",
        f"needs       {_names(file.depends)}",
    ]


def package_lines(detail: PackageDetail, fetched_by: str) -> list[str]:
    """Return what is to be said of a whole package."""
    if detail.dependants_known or detail.dependants:
        return [f"needed by   {_names(detail.dependants, detail.dependants_total)}", f"fetched     {fetched_by}"]
    return [f"needs       {needs_of(detail)}", "needed by   not told by the index", f"fetched     {fetched_by}"]


def fetched(detail: PackageDetail, by_token: list[DownloadCount]) -> str:
    """Say how often clients have fetched a package, and who they were, the most eager first."""
    lately = f"{counted(detail.downloads, 'time', 'times')} in the last 30 days"
    eager = sorted(by_token, key=lambda one: -one.downloads)
    who = [f"{clean(one.token or 'without a token')} {count(one.downloads)}" for one in eager[:MOST_TOKENS]]
    more = f" and {counted(len(eager) - MOST_TOKENS, 'more', 'more')}" if len(eager) > MOST_TOKENS else ""
    return lately + (f"; in 13 months: {', '.join(who)}{more}" if who else "")


def newest_first(detail: PackageDetail) -> list[PackageFile]:
    """Return a package's files, those of the newest version first."""
    places = {version: place for place, version in enumerate(detail.versions)}
    sign = 1 if detail.versions[:1] == [detail.version] else -1
    return sorted(detail.files, key=lambda file: (sign * places.get(file.version, 0), file.part, file.filename))


def _key(file: PackageFile) -> tuple[str, str]:
    return file.part, file.filename
