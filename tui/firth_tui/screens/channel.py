"""One channel with its tabs: packages, mirrors, subchannels, generations, changes, and how clients use it."""

from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Static

from firth_protocol.errors import FirthError, NotFound
from firth_protocol.methods import ChannelGet
from firth_protocol.types import Change, Channel, Generation, Mirror, Package, Privacy
from firth_tui.action_table import BY_ID
from firth_tui.action_table_common import CHANNEL_TABS
from firth_tui.actions import Place, Target, key_name, key_of
from firth_tui.format import Cell, Sign, Tone, age, clean, count, family_name, moment, since
from firth_tui.model import Touched
from firth_tui.screens.channel_lists import (
    change_listing,
    generation_listing,
    nothing_offered,
    package_listing,
    subchannel_listing,
)
from firth_tui.screens.listing import ListPane
from firth_tui.screens.mirrors import WORDS as MIRROR_WORDS
from firth_tui.screens.mirrors import MirrorPane
from firth_tui.screens.mirrors import listing as mirror_listing
from firth_tui.screens.place import PlaceScreen, RowPreviews, bindings
from firth_tui.widgets.chrome import TabBar
from firth_tui.widgets.scroll import Scroll
from firth_tui.widgets.work import Repeated

TABS = (
    (Place.PACKAGES, "Packages"),
    (Place.CHANNEL_MIRRORS, "Mirrors"),
    (Place.SUBCHANNELS, "Subchannels"),
    (Place.GENERATIONS, "Generations"),
    (Place.CHANGES, "Changes"),
    (Place.USE, "Use it"),
)

WORDS = (
    ("stored", "files that are here; the others are fetched when a client first asks for them"),
    ("generation", "one published content of a channel; each has a number, and can be gone back to"),
    ("draft", "what waits to be published while a channel is frozen"),
    ("subchannel", "a channel below this one, with its own mirrors and its own freeze"),
    *MIRROR_WORDS,
)


def tab_action(title: str) -> str:
    """Return the id of the action that opens a tab."""
    return f"tab.{title.split()[0].lower()}"


NEEDS = {
    Privacy.AUTHENTICATED: "Any valid token, as TOKEN in http://user:TOKEN@… or as a bearer. Press n to make one.",
    Privacy.PRIVATE: (
        "A token that names this channel; to all others it is not there. It goes in place of TOKEN in\n"
        "http://user:TOKEN@… or as a bearer. Press n to make one that opens it."
    ),
}
"""What clients of a channel need that is not public."""


class UsePane(Scroll):
    """Set-up lines for each client."""

    def __init__(self) -> None:
        super().__init__()
        self._told: list[tuple[str, str]] = []

    def put(self, channel: ChannelGet, now: float) -> None:
        """Show how clients reach `channel`."""
        addresses = channel.addresses
        shown: list[tuple[str, str]] = []
        for client, text in addresses.setup.items():
            shown.append((client, text))
        for name, address in (("conda", addresses.conda), ("python", addresses.python), ("r", addresses.r)):
            if address and name not in addresses.setup:
                shown.append((f"{family_name(name)} address", address))
        if addresses.snapshot:
            shown.append(("as it was on a day", addresses.snapshot))
        kept = channel.keep_generations
        months = "for ever" if kept.months >= 1200 else f"for {kept.months} months"
        policy = f"{clean(channel.policy)}, for mirrors that have none of their own" if channel.policy else "none"
        facts = (
            f"open to     {channel.privacy}\n"
            f"kept        the last content of each day for {kept.days} days, of each month {months}\n"
            f"policy      {policy}\n"
            f"created     {moment(channel.created_at)}, changed {age(channel.updated_at, now)}"
        )
        if channel.privacy in NEEDS:
            shown.append(("what a client needs", NEEDS[channel.privacy]))
        about = [(f"{clean(channel.description)}\n", "")] if channel.description else []
        told = [
            *about,
            *((part, name) for title, text in shown for part, name in ((title, ""), (_lines(text), "code"))),
        ]
        told.append((facts, ""))
        if told != self._told:
            self._told = told
            self.remove_children()
            self.mount(*(Static(text, markup=False, classes=name) for text, name in told))


def _lines(text: str) -> str:
    return "\n".join(clean(line, 1000) for line in text.splitlines())


class ChannelScreen(PlaceScreen):
    """One channel."""

    BINDINGS = bindings(CHANNEL_TABS)
    words: ClassVar = WORDS

    def __init__(self, name: str, tab: Place = Place.PACKAGES) -> None:
        super().__init__()
        self.channel_name = name
        self.channel_now: ChannelGet | None = None
        self.tab = tab
        self.generation: int | None = None
        self.tab_bar = TabBar([])
        self._panes: dict[Place, Widget] = {}
        self._reading = Repeated(self, self._read, group="channel")

    # --- what the place tells

    def where(self) -> Place:
        return self.tab

    def crumbs(self) -> list[str]:
        tail = [f"generation {self.generation}"] if self.tab is Place.CHANGES and self.generation else []
        return ["Channels", self.channel_name, *tail]

    def side(self) -> list[Cell]:
        cells = super().side()
        channel = self.channel_now
        if channel is None:
            return cells
        if channel.frozen:
            cells.append(Cell(f"  {Sign.FROZEN} frozen since {since(channel.frozen_at, self.now())}", Tone.ACCENT))
            if channel.draft is not None:
                waiting = f", {count(channel.draft.added)} added and {count(channel.draft.removed)} removed wait"
                cells.append(Cell(waiting, Tone.WARN))
        else:
            cells.append(Cell(f"  generation {channel.generation}", Tone.PLAIN))
        return cells

    @property
    def pane(self) -> ListPane[Any] | None:
        pane = self._panes.get(self.tab)
        return pane if isinstance(pane, ListPane) else None

    def subjects(self, *, painted: bool = False) -> dict[str, Any]:
        return {"channel": self.channel_now, **super().subjects(painted=painted)}

    def behind(self) -> bool:
        return super().behind() or (self.channel_now is None and self._reading.at_work)

    def readings(self) -> list[Repeated]:
        return [self._reading, *super().readings()]

    def name_to_copy(self, row: Any) -> str | None:
        if isinstance(row, Package | Mirror | Channel):
            return row.name
        if isinstance(row, Change):
            return row.filename
        return str(row.number) if isinstance(row, Generation) else self.channel_name

    async def url_to_copy(self, row: Any) -> str | None:
        if isinstance(row, Mirror):
            return row.source
        addresses = self.channel_now.addresses if self.channel_now else None
        if addresses is None:
            return None
        if isinstance(row, Generation) and addresses.snapshot:
            return addresses.snapshot.replace("DATE", str(row.number))
        return addresses.conda

    def body(self) -> ComposeResult:
        keys = self.session.keys
        tabs = [(key_name(key_of(BY_ID[tab_action(title)], keys)), title) for _, title in TABS]
        self.tab_bar.tabs = tabs
        yield self.tab_bar
        yield Vertical(id="tabs")

    @on(events.Mount)
    async def _begin(self) -> None:
        self._reading.ask()
        await self.open_tab(self.tab)

    # --- tabs

    async def open_tab(self, tab: Place) -> None:
        """Show a tab with the filter that is in force there; it is made when it is first shown."""
        if self.pane is not None:
            self.pane.hurry()  # what was typed belongs to the tab where it was typed
        self.tab = tab
        self.tab_bar.put([place for place, _ in TABS].index(tab))
        for place, pane in self._panes.items():
            pane.display = place is tab
        if tab not in self._panes:
            self._panes[tab] = self._new_pane(tab)
            await self.query_one("#tabs", Vertical).mount(self._panes[tab])
        pane = self._panes[tab]
        self._tell_what_waits()
        self.filter_bar.put(pane.wanted.query if isinstance(pane, ListPane) else "")
        if isinstance(pane, ListPane):
            pane.came_into_view()
        elif isinstance(pane, UsePane) and self.channel_now is not None:
            pane.put(self.channel_now, self.now())
        self.focus_body()
        self.redraw()

    def _new_pane(self, tab: Place) -> Widget:
        name, orders = self.channel_name, self.session.orders
        if tab is Place.PACKAGES:
            return ListPane(package_listing(self, name), orders, RowPreviews(self))
        if tab is Place.CHANNEL_MIRRORS:
            return MirrorPane(mirror_listing(self, name), self)
        if tab is Place.SUBCHANNELS:
            return ListPane(subchannel_listing(self, name), orders, RowPreviews(self))
        if tab is Place.GENERATIONS:
            return ListPane(generation_listing(self, name), orders)
        return ListPane(change_listing(self, name, self.generation), orders) if tab is Place.CHANGES else UsePane()

    @on(TabBar.Chosen)
    async def _tab_chosen(self, message: TabBar.Chosen) -> None:
        await self.open_tab(TABS[message.index][0])

    async def own_command(self, name: str) -> None:
        if name == "tab.changes" and self.generation is not None:
            await self._show_changes(None)
            return
        tabs = {tab_action(title): place for place, title in TABS}
        if name in tabs:
            await self.open_tab(tabs[name])

    async def _show_changes(self, generation: int | None) -> None:
        old = self._panes.pop(Place.CHANGES, None)
        if old is not None:
            await old.remove()
        self.generation = generation
        await self.open_tab(Place.CHANGES)

    async def open_row(self, row: Any) -> None:
        if isinstance(row, Package):
            # of a package that policies leave nothing of there is only that to see
            place = Place.EXPLAIN if row.left_out else Place.PACKAGE
            self.firth.open(Target(place=place, channel=self.channel_name, package=row))
        elif isinstance(row, Mirror):
            self.firth.open(Target(place=Place.MIRROR, number=row.id))
        elif isinstance(row, Generation):
            await self._show_changes(row.number)
        elif isinstance(row, Channel):
            self.firth.open(Target(place=Place.PACKAGES, channel=row.name))

    def go_back(self) -> bool:
        if super().go_back():
            return True
        if self.tab is Place.CHANGES and self.generation is not None:
            self.firth.ask(self, "tab.generations")
            return True
        return False

    def focus_body(self) -> None:
        pane = self._panes.get(self.tab)
        if isinstance(pane, UsePane):
            self.set_focus(pane)
        else:
            super().focus_body()

    # --- following

    def reload(self) -> None:
        super().reload()
        self._reading.ask()

    async def _read(self) -> None:
        try:
            self.channel_now = await self.firth.link.ask(ChannelGet, "channel.get", channel=self.channel_name)
        except NotFound:
            self.firth.tell(f"The channel {self.channel_name} has been deleted.", warning=True)
            self.leave()
            return
        except (FirthError, OSError):
            return
        self._tell_what_waits()
        pane = self._panes.get(Place.USE)
        if isinstance(pane, UsePane) and pane.is_mounted:
            pane.put(self.channel_now, self.now())
        self.redraw()

    def _tell_what_waits(self) -> None:
        pane = self._panes.get(Place.PACKAGES)
        if isinstance(pane, ListPane) and self.channel_now is not None:
            pane.put_empty(nothing_offered(self.channel_now))

    def fact(self, about: Touched) -> None:
        for pane in self._panes.values():
            if isinstance(pane, MirrorPane) or (isinstance(pane, ListPane) and not about.progress):
                pane.fact(about)
        if about.channel == self.channel_name and about.changes_channels:
            self._reading.ask()
