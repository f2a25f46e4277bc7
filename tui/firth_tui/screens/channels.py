"""The list of all channels: where firth begins."""

from typing import Any

from textual.app import ComposeResult

from firth_protocol.types import Channel
from firth_tui.actions import Place, Target
from firth_tui.format import (
    Cell,
    Tone,
    age,
    clean,
    count,
    family_name,
    frozen_cell,
    privacy_cell,
    size,
    state_cell,
)
from firth_tui.model import FAULTS
from firth_tui.rows import Fetch, filtered
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.place import PlaceScreen, RowPreviews, bindings
from firth_tui.widgets.keyed_table import Column

WORDS = (
    ("channel", "a place that clients install packages from; it has an address of its own"),
    ("mirror", "a standing order to copy a source into a channel"),
    ("live", "what mirrors bring is published when their run ends"),
    ("frozen", "clients keep seeing the same content until the channel is unfrozen; mirrors go on working"),
    ("worst", "the state of the mirror that needs you most"),
)


def families_cell(channel: Channel) -> Cell:
    """Return which kinds of packages a channel has."""
    named = ", ".join(family_name(each.family) for each in channel.families)
    return Cell(named or "empty", Tone.PLAIN if named else Tone.MUTED)


def worst_cell(channel: Channel) -> Cell:
    """Return the state of the channel's mirror that needs attention most."""
    if channel.worst_state is None or not channel.mirrors:
        return Cell("no mirror", Tone.MUTED)
    return state_cell(channel.worst_state)


def channel_columns(pane: PlaceScreen) -> tuple[Column[Channel], ...]:
    """Return the columns of a list of channels; `pane` knows what time it is."""
    return (
        Column(id="name", title="NAME", width=16, grow=3, cell=lambda c: Cell(clean(c.name), Tone.STRONG), sort="name"),
        Column(id="state", title="STATE", width=8, cell=frozen_cell),
        Column(id="worst", title="WORST MIRROR", width=12, cell=worst_cell),
        Column(id="mirrors", title="MIRRORS", width=7, right=True, drop=3, cell=lambda c: Cell(count(c.mirrors))),
        Column(
            id="packages",
            title="PACKAGES",
            width=9,
            right=True,
            cell=lambda c: Cell(count(sum(each.packages for each in c.families))),
        ),
        Column(
            id="size",
            title="SIZE",
            width=7,
            right=True,
            drop=2,
            cell=lambda c: Cell(size(sum(each.bytes for each in c.families))),
        ),
        Column(
            id="published",
            title="PUBLISHED",
            width=10,
            cell=lambda c: Cell(age(c.published_at, pane.now())),
            sort="published_at",
        ),
        Column(id="privacy", title="OPEN TO", width=13, drop=1, cell=lambda c: privacy_cell(c.privacy)),
        Column(id="families", title="FAMILIES", width=13, grow=1, drop=4, cell=families_cell),
        Column(
            id="updated",
            title="CHANGED",
            width=10,
            drop=6,
            cell=lambda c: Cell(age(c.updated_at, pane.now()), Tone.MUTED),
            sort="updated_at",
        ),
        Column(
            id="description",
            title="DESCRIPTION",
            width=16,
            grow=4,
            drop=5,
            cell=lambda c: Cell(clean(c.description), Tone.MUTED),
        ),
    )


class ChannelsScreen(PlaceScreen):
    """All channels, with the state of each."""

    BINDINGS = bindings({Place.CHANNELS})
    words = WORDS

    def __init__(self) -> None:
        super().__init__()
        self._pane: ListPane[Channel] | None = None

    def where(self) -> Place:
        return Place.CHANNELS

    def crumbs(self) -> list[str]:
        return ["Channels"]

    @property
    def pane(self) -> ListPane[Any] | None:
        return self._pane

    def body(self) -> ComposeResult:
        self._pane = ListPane(
            Listing(
                place=Place.CHANNELS,
                noun="channel",
                plural="channels",
                columns=channel_columns(self),
                key=lambda channel: channel.name,
                fetch=self._fetch,
                touches=lambda about: about.changes_channels,
                empty="There is no channel yet.\nPress n to create the first one; then give it a mirror to fill it.",
                subject="channel",
                sort="name",
            ),
            self.session.orders,
            RowPreviews(self),
        )
        yield self._pane

    def _fetch(self, wanted: Wanted) -> Fetch[Channel]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await self.firth.link.page(
                Channel,
                "channel.list",
                query=wanted.query or None,
                sort=wanted.sort,
                cursor=cursor,
                limit=limit,
            )

        return filtered(read, lambda channel: channel.worst_state in FAULTS) if wanted.faults else read

    def name_to_copy(self, row: Any) -> str | None:
        return row.name if isinstance(row, Channel) else None

    async def url_to_copy(self, row: Any) -> str | None:
        if not isinstance(row, Channel):
            return None
        from firth_protocol.methods import ChannelGet

        detail = await self.firth.link.ask(ChannelGet, "channel.get", channel=row.name)
        return detail.addresses.conda

    async def open_row(self, row: Any) -> None:
        if isinstance(row, Channel):
            self.firth.open(Target(place=Place.PACKAGES, channel=row.name))
