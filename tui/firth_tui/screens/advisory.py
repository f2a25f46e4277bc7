"""One advisory: what it says, and the packages of channels that it names; each leads to the package and its policy."""

from typing import Any, ClassVar

from textual.app import ComposeResult

from firth_protocol.errors import FirthError, NotFound
from firth_protocol.events import Topic
from firth_protocol.methods import AdvisoryGet
from firth_protocol.types import AdvisoryTouch, Package
from firth_tui.actions import Place, Target
from firth_tui.format import Cell, Sign, Tone, age, clean, counted, family_name
from firth_tui.model import Touched
from firth_tui.rows import LocalRows
from firth_tui.screens.advisories import WORDS, affected_cell, score_cell
from firth_tui.screens.mirror import labelled
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.screens.policies import changes_policies
from firth_tui.widgets.keyed_table import Column, KeyedTable
from firth_tui.widgets.sheet import Sheet
from firth_tui.widgets.work import Repeated


def advisory_lines(one: AdvisoryGet, now: float) -> list[list[Cell]]:
    """Return what an advisory says, and what was said of it here."""
    by = f", set by {clean(one.set_by)} {age(one.set_at, now)}" if one.set_by else ""
    note = f": {clean(one.note, 400)}" if one.note else ""
    changed = f"changed {age(one.modified, now)}, " if one.modified else ""
    known = f"{changed}imported {age(one.imported_at, now)}"
    lines = [
        labelled("score", score_cell(one), Cell("")),
        labelled("status", Cell(f"{clean(one.status)}{by}{note}")),
        labelled("what it is", Cell(clean(one.summary, 600) or "nothing is said")),
        labelled("known", Cell(known)),
    ]
    if one.aliases:
        lines.append(labelled("also called", Cell(clean(", ".join(one.aliases), 300))))
    return [*lines, []]


def touch_columns() -> tuple[Column[AdvisoryTouch], ...]:
    """Return the columns of the packages that an advisory names; FAMILY goes for want of room."""
    return (
        Column(id="channel", title="CHANNEL", width=12, grow=1, cell=lambda x: Cell(clean(x.channel))),
        Column(id="package", title="PACKAGE", width=12, grow=1, cell=lambda x: Cell(clean(x.package), Tone.STRONG)),
        Column(id="affected", title="MEANT", width=14, cell=affected_cell),
        Column(id="version", title="NEWEST", width=9, grow=1, cell=lambda x: Cell(clean(x.version))),
        Column(id="family", title="FAMILY", width=6, drop=1, cell=lambda x: Cell(family_name(x.family))),
        Column(id="policy", title="POLICY", width=8, grow=1, cell=policy_cell),
    )


def policy_cell(one: AdvisoryTouch) -> Cell:
    """Return the policies that judge a package."""
    return Cell(clean(", ".join(one.policies))) if one.policies else Cell("none", Tone.MUTED)


def _key(one: AdvisoryTouch) -> tuple[str, str, str]:
    return one.channel, one.family, one.package


class AdvisoryScreen(PlaceScreen):
    """One advisory."""

    BINDINGS = bindings({Place.ADVISORY})
    words: ClassVar = (
        ("meant", "how many files that clients see are of a version that the advisory speaks of"),
        *WORDS,
    )

    def __init__(self, advisory: str) -> None:
        super().__init__()
        self.advisory = advisory
        self.now_known: AdvisoryGet | None = None
        self.sheet = Sheet()
        self.touches: KeyedTable[AdvisoryTouch] = KeyedTable(
            touch_columns(),
            LocalRows[AdvisoryTouch]([], _key),
            empty="No channel lists a package that it names.",
        )
        self._reading = Repeated(self, self._read, group="advisory")

    def where(self) -> Place:
        return Place.ADVISORY

    def crumbs(self) -> list[str]:
        return ["Advisories", self.advisory]

    def side(self) -> list[Cell]:
        one = self.now_known
        if one is None:
            return []
        meant = sum(touch.affected for touch in one.touches)
        if not meant:
            return [Cell(f"{Sign.OK} means no file here", Tone.OK)]
        channels = len({touch.channel for touch in one.touches if touch.affected})
        told = f"{counted(meant, 'file')} in {counted(channels, 'channel')}"
        return [Cell(f"{Sign.WARN} means {told}", Tone.WARN)]

    @property
    def table(self) -> KeyedTable[Any]:
        return self.touches

    def behind(self) -> bool:
        return self.now_known is None and self._reading.at_work

    def readings(self) -> list[Repeated]:
        return [self._reading]

    def body(self) -> ComposeResult:
        yield self.sheet
        yield self.touches

    def on_mount(self) -> None:
        self.focus_body()
        self.reload()

    def focus_body(self) -> None:
        self.set_focus(self.touches)

    def reload(self) -> None:
        self._reading.ask()

    def fact(self, about: Touched) -> None:
        if about.topic == Topic.ADVISORY or about.changes_content or changes_policies(about):
            self.reload()

    async def _read(self) -> None:
        try:
            self.now_known = await self.firth.link.ask(AdvisoryGet, "advisory.get", id=self.advisory)
        except NotFound:
            self.firth.tell(f"The advisory {self.advisory} is not known here.", warning=True)
            self.leave()
            return
        except FirthError as error:
            self.touches.failed(f"{error.message}\n{error.hint}".strip())
            return
        except OSError:
            return
        self.sheet.put([[], *advisory_lines(self.now_known, self.now())])
        self.touches.source = LocalRows(self.now_known.touches, _key)
        self.touches.loaded = True
        self.touches.changed()
        self.redraw()

    def name_to_copy(self, row: Any) -> str | None:
        return self.advisory

    async def own_command(self, name: str) -> None:
        row = self.under_cursor()[1]
        if name != "advisory.policy" or not isinstance(row, AdvisoryTouch):
            return
        if len(row.policies) == 1:
            self.firth.open(Target(place=Place.POLICY, name=row.policies[0]))
        elif row.policies:
            self.firth.open(Target(place=Place.POLICIES))
        else:
            self.firth.tell(f"No policy judges {clean(row.package)} in {clean(row.channel)}.", warning=True)

    async def open_row(self, row: Any) -> None:
        """Go to the package under the cursor, as its channel lists it."""
        if not isinstance(row, AdvisoryTouch):
            self.firth.tell("No channel lists a package that it names: there is nothing to open.")
            return
        page = await self.firth.link.page(
            Package, "package.list", channel=row.channel, family=row.family, query=row.package, limit=200
        )
        package = next((each for each in page.items if each.name == row.package), None)
        if package is None:
            raise NotFound(f"{row.channel} does not offer {row.package} any more")
        self.firth.open(Target(place=Place.PACKAGE, channel=row.channel, package=package))
