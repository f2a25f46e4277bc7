"""The tokens that clients may have: what each opens, who made it, when it was last used."""

from typing import Any, ClassVar

from textual.app import ComposeResult

from firth_protocol.types import Token
from firth_tui.actions import Place
from firth_tui.format import Cell, Sign, Tone, age, ahead, clean, seconds_of
from firth_tui.rows import Fetch
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.widgets.keyed_table import Column

WORDS = (
    (
        "token",
        "what clients show to get into channels that are not public; its secret is shown once",
    ),
    ("opens", "every channel that is open to any token, and the private ones that it names"),
    ("revoked", "opens nothing any more, from that moment on"),
)


def opens_cell(token: Token) -> Cell:
    """Return which channels a token opens."""
    return Cell(clean(", ".join(token.channels))) if token.channels else Cell("none that is private", Tone.MUTED)


def state_cell(token: Token, now: float) -> Cell:
    """Return whether a token opens anything, as glyph and word."""
    ends = seconds_of(token.expires_at)
    if token.revoked:
        return Cell(f"{Sign.BAD} revoked", Tone.MUTED)
    if ends is not None and ends <= now:
        return Cell(f"{Sign.STOPPED} expired", Tone.WARN)
    return Cell(f"{Sign.OK} valid", Tone.OK)


def token_listing(screen: PlaceScreen) -> Listing[Token]:
    """Return the list of tokens."""

    def fetch(wanted: Wanted) -> Fetch[Token]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                Token, "token.list", query=wanted.query or None, cursor=cursor, limit=limit
            )

        return read

    now = screen.now
    columns: tuple[Column[Token], ...] = (
        Column(id="name", title="NAME", width=16, grow=2, cell=lambda t: Cell(clean(t.name), Tone.STRONG)),
        Column(id="state", title="STATE", width=9, cell=lambda t: state_cell(t, now())),
        Column(id="opens", title="OPENS", width=20, grow=3, cell=opens_cell),
        Column(id="used", title="LAST USED", width=10, cell=lambda t: Cell(age(t.last_used_at, now()))),
        Column(id="expires", title="EXPIRES", width=8, cell=lambda t: Cell(ahead(t.expires_at, now()))),
        Column(id="created", title="CREATED", width=11, drop=1, cell=lambda t: Cell(age(t.created_at, now()))),
        Column(id="by", title="BY", width=8, grow=1, drop=2, cell=lambda t: Cell(clean(t.created_by), Tone.MUTED)),
    )
    return Listing(
        place=Place.TOKENS,
        noun="token",
        plural="tokens",
        columns=columns,
        key=lambda token: token.id,
        fetch=fetch,
        touches=lambda about: about.topic == "token",
        empty="There is no token yet.\nPress n to make one: clients need it for channels that are not public.",
        subject="token",
    )


class TokensScreen(PlaceScreen):
    """All tokens."""

    BINDINGS = bindings({Place.TOKENS})
    words: ClassVar = WORDS

    def __init__(self) -> None:
        super().__init__()
        self._pane: ListPane[Token] | None = None

    def where(self) -> Place:
        return Place.TOKENS

    def crumbs(self) -> list[str]:
        return ["Tokens"]

    @property
    def pane(self) -> ListPane[Any] | None:
        return self._pane

    def body(self) -> ComposeResult:
        self._pane = ListPane(token_listing(self), self.session.orders)
        yield self._pane

    def name_to_copy(self, row: Any) -> str | None:
        return row.name if isinstance(row, Token) else None
