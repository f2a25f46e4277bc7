"""What a policy keeps out of a mirror: each file with the rule that decided, all of them or those of one rule."""

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from firth_protocol.errors import FirthError, NotFound
from firth_protocol.methods import MirrorGet
from firth_protocol.types import Excluded, FilteredCount, MirrorDetails
from firth_tui.actions import Place
from firth_tui.format import Cell, Tone, clean, count, size
from firth_tui.model import Touched
from firth_tui.rows import Fetch
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.screens.policies import changes_policies
from firth_tui.widgets.keyed_table import Column
from firth_tui.widgets.work import Repeated

WORDS = (
    ("kept out", "listed by the source; a rule of the policy speaks against it"),
    ("rule", "the first rule of the policy that decided; others may speak against the file too"),
)


class FullText(Static):
    """All that there is to say of the row under the cursor."""

    DEFAULT_CSS = "FullText { height: auto; min-height: 2; max-height: 5; padding: 0 1; color: $firth-muted; }"

    def __init__(self) -> None:
        super().__init__("", markup=False)
        self._told = ""

    def put(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.update(text)


def excluded_listing(screen: PlaceScreen, mirror: int, rule: str | None) -> Listing[Excluded]:
    """Return the list of what one rule, or any, keeps out of a mirror."""
    columns: tuple[Column[Excluded], ...] = (
        Column(id="file", title="FILE", width=26, grow=2, cell=lambda x: Cell(clean(x.filename), Tone.STRONG)),
        Column(id="part", title="PLATFORM", width=10, cell=lambda x: Cell(clean(x.part))),
        Column(id="rule", title="RULE", width=11, cell=lambda x: Cell(clean(x.rule), Tone.WARN)),
        Column(id="why", title="WHY", width=18, grow=3, cell=lambda x: Cell(clean(x.why))),
        Column(id="size", title="SIZE", width=8, right=True, drop=1, cell=lambda x: Cell(size(x.size))),
    )

    def fetch(wanted: Wanted) -> Fetch[Excluded]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                Excluded,
                "mirror.excluded",
                mirror=mirror,
                reason=rule,
                query=wanted.query or None,
                cursor=cursor,
                limit=limit,
            )

        return read

    return Listing(
        place=Place.EXCLUDED,
        noun="file",
        plural="files",
        columns=columns,
        key=lambda one: (one.part, one.filename),
        fetch=fetch,
        touches=lambda about: (about.mirror == mirror and not about.progress) or changes_policies(about),
        empty="The policy keeps nothing out.",
    )


class ExcludedScreen(PlaceScreen):
    """What a policy keeps out of one mirror."""

    BINDINGS = bindings({Place.EXCLUDED})
    words: ClassVar = WORDS

    def __init__(self, mirror: int) -> None:
        super().__init__()
        self.number = mirror
        self.mirror_now: MirrorGet | None = None
        self.rule: str | None = None
        self._filtered: list[FilteredCount] = []
        self._pane: ListPane[Excluded] | None = None
        self._text = FullText()
        self._reading = Repeated(self, self._read, group="mirror")

    def where(self) -> Place:
        return Place.EXCLUDED

    def crumbs(self) -> list[str]:
        mirror = self.mirror_now
        name = f"{mirror.channel} / {mirror.name}" if mirror else str(self.number)
        return ["Mirrors", name, f"kept out by {self.rule}" if self.rule else "kept out"]

    def side(self) -> list[Cell]:
        in_force = self.mirror_now.in_force if self.mirror_now else None
        policy = [Cell(f"  policy {clean(in_force.name, 30)}", Tone.PLAIN)] if in_force is not None else []
        return [*super().side(), *policy]

    @property
    def pane(self) -> ListPane[Any] | None:
        return self._pane

    def subjects(self, *, painted: bool = False) -> dict[str, Any]:
        return {"mirror": self.mirror_now}

    def name_to_copy(self, row: Any) -> str | None:
        return row.filename if isinstance(row, Excluded) else None

    def body(self) -> ComposeResult:
        self._pane = ListPane(excluded_listing(self, self.number, None), self.session.orders)
        with Vertical(id="excluded"):
            yield self._pane
        yield self._text

    def on_mount(self) -> None:
        self._reading.ask()

    def readings(self) -> list[Repeated]:
        return [self._reading, *super().readings()]

    def reload(self) -> None:
        super().reload()
        self._reading.ask()

    def fact(self, about: Touched) -> None:
        super().fact(about)
        if about.mirror == self.number and not about.progress:
            self._reading.ask()

    async def _read(self) -> None:
        try:
            self.mirror_now = await self.firth.link.ask(MirrorGet, "mirror.get", mirror=self.number)
            self._filtered = (
                await self.firth.link.ask(MirrorDetails, "mirror.details", mirror=self.number)
            ).counts.filtered
        except NotFound:
            self.firth.tell("This mirror has been deleted.", warning=True)
            self.leave()
            return
        except (FirthError, OSError):
            return
        self.redraw()

    async def own_command(self, name: str) -> None:
        if name == "excluded.rule":
            await self._next_rule()

    async def _next_rule(self) -> None:
        """Show what the next rule keeps out; after the last one all."""
        rules: list[str | None] = [None, *(one.reason for one in self._filtered)]
        self.rule = rules[(rules.index(self.rule) + 1) % len(rules)] if self.rule in rules else None
        old = self._pane
        self._pane = ListPane(excluded_listing(self, self.number, self.rule), self.session.orders)
        if old is not None:
            self.filter_bar.put("")
            await old.remove()
        await self.query_one("#excluded", Vertical).mount(self._pane)
        self.focus_body()
        self.redraw()

    def redraw(self) -> None:
        super().redraw()
        row = self.under_cursor()[1]
        if isinstance(row, Excluded):
            self._text.put(f"{clean(row.part)}/{clean(row.filename)}\n{clean(row.rule)}: {clean(row.why)}")
        elif self._filtered:
            self._text.put(", ".join(f"{clean(one.reason)} {count(one.count)}" for one in self._filtered))
        else:
            self._text.put("")
