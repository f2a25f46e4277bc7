"""What became of each file of a package that the sources of a channel list, and why: for what the channel hides too."""

from typing import Any, ClassVar

from textual.app import ComposeResult

from firth_protocol.errors import Invalid
from firth_protocol.methods import ChannelGet
from firth_protocol.types import Explained, Family, Package, Page
from firth_tui.actions import Place
from firth_tui.format import Cell, Sign, Tone, clean
from firth_tui.rows import Fetch
from firth_tui.screens.excluded import FullText
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.screens.policies import changes_policies
from firth_tui.widgets.keyed_table import Column

WORDS = (
    ("kept", "offered to clients"),
    ("excluded", "kept out by a rule of the policy that is in force"),
    ("blocked", "removed by hand; it comes back when it is restored"),
    ("shadowed", "not offered, because an older mirror of the channel has packages of that name"),
)
VERDICTS = {
    "kept": (Sign.OK, Tone.OK),
    "excluded": (Sign.BAD, Tone.WARN),
    "blocked": (Sign.STOPPED, Tone.WARN),
    "shadowed": (Sign.SKIPPED, Tone.MUTED),
}


def verdict_cell(one: Explained) -> Cell:
    """Return what became of a file, as glyph and word."""
    sign, tone = VERDICTS.get(one.verdict, (Sign.WAIT, Tone.PLAIN))
    return Cell(f"{sign} {clean(one.verdict)}", tone)


def reason(one: Explained) -> str:
    """Return why it became of a file, with the rule and the policy where those decided."""
    if one.verdict == "kept":
        return f"policy {one.policy} keeps it" if one.policy else "no policy judges it"
    return f"{one.rule} of policy {one.policy}: {one.why}" if one.rule else one.why


class ExplainScreen(PlaceScreen):
    """What became of the files that a spec means."""

    BINDINGS = bindings({Place.EXPLAIN})
    words: ClassVar = WORDS
    filter_words: ClassVar = ("package", "a name or a spec, such as numpy >=2; enter: to the list, esc: clear")

    def __init__(self, channel: str, spec: str, package: Package | None = None) -> None:
        super().__init__()
        self.channel_name = channel
        self.spec = package.name if package is not None else spec
        self._families: list[Family] | None = [package.family] if package is not None else None
        self._pane: ListPane[Explained] | None = None
        self._text = FullText()

    def where(self) -> Place:
        return Place.EXPLAIN

    def crumbs(self) -> list[str]:
        return ["Channels", self.channel_name, "why hidden?", *([self.spec] if self.spec else [])]

    @property
    def pane(self) -> ListPane[Any] | None:
        return self._pane

    def name_to_copy(self, row: Any) -> str | None:
        return row.filename if isinstance(row, Explained) else None

    def body(self) -> ComposeResult:
        self._pane = ListPane(self._listing(), self.session.orders)
        yield self._pane
        yield self._text

    def on_mount(self) -> None:
        if not self.spec:
            self.filter_bar.open()

    def _listing(self) -> Listing[Explained]:
        columns: tuple[Column[Explained], ...] = (
            Column(id="file", title="FILE", width=26, grow=2, cell=lambda x: Cell(clean(x.filename), Tone.STRONG)),
            Column(id="part", title="PLATFORM", width=10, cell=lambda x: Cell(clean(x.part))),
            Column(id="verdict", title="VERDICT", width=10, cell=verdict_cell),
            Column(id="why", title="WHY", width=18, grow=3, cell=lambda x: Cell(clean(reason(x)))),
            Column(id="mirror", title="FROM", width=10, drop=1, cell=lambda x: Cell(clean(x.mirror_name))),
        )
        nothing = f"No source of the channel lists {clean(self.spec, 60)}, as far as its mirrors have read them."
        return Listing(
            place=Place.EXPLAIN,
            noun="file",
            plural="files",
            columns=columns,
            key=lambda one: (one.mirror, one.part, one.filename, one.verdict),
            fetch=self._fetch,
            touches=lambda about: (
                (about.channel == self.channel_name and about.changes_content) or changes_policies(about)
            ),
            empty=nothing if self.spec else "Type the name of a package that you miss, then enter.",
        )

    def _fetch(self, wanted: Wanted) -> Fetch[Explained]:
        spec = wanted.query or self.spec

        async def read(cursor: str | None, limit: int) -> Page[Explained]:
            if not spec:
                return Page(items=[], next_cursor=None, total=0, as_of="")
            families = await self._of_families()
            number, _, rest = (cursor or "0:").partition(":")
            return await self._page(spec, families, int(number), rest or None, limit)

        return read

    async def _page(
        self, spec: str, families: list[Family], first: int, rest: str | None, limit: int
    ) -> Page[Explained]:
        """Return a page of one family's files, of the first from `first` on that has any; its cursor names the family.

        What is no spec in one family may be one in another; raises Invalid where it is one in none.
        """
        refused: Invalid | None = None
        found: Page[Explained] | None = None
        for number in range(first, len(families)):
            try:
                found = await self.firth.link.page(
                    Explained,
                    "package.explain",
                    channel=self.channel_name,
                    spec=spec,
                    family=families[number],
                    cursor=rest,
                    limit=limit,
                )
            except Invalid as error:
                refused = error
                continue
            finally:
                rest = None
            last = number + 1 == len(families)
            if found.items or found.next_cursor or last:
                following = f"{number}:{found.next_cursor}" if found.next_cursor else None if last else f"{number + 1}:"
                total = found.total if len(families) == 1 else None
                return Page(items=found.items, next_cursor=following, total=total, as_of=found.as_of)
        if found is None and refused is not None and first == 0:
            raise refused
        return Page(items=[], next_cursor=None, total=None, as_of=found.as_of if found is not None else "")

    async def _of_families(self) -> list[Family]:
        """Return the families of the channel's mirrors: what is typed may be a package of any."""
        if self._families is None:
            channel = await self.firth.link.ask(ChannelGet, "channel.get", channel=self.channel_name)
            there = {mirror.type.value for mirror in channel.mirror_list}
            self._families = [family for family in Family if family.value in there] or [Family.CONDA]
        return self._families

    def redraw(self) -> None:
        super().redraw()
        row = self.under_cursor()[1]
        told = ""
        if isinstance(row, Explained):
            told = f"{clean(row.part)}/{clean(row.filename)} from {clean(row.mirror_name)}\n"
            told += f"{clean(row.verdict)}: {clean(reason(row))}"
        self._text.put(told)
