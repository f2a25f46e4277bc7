"""The lists inside a channel: packages, subchannels, generations, and what a generation changed."""

from collections.abc import Callable
from typing import Any

from firth_protocol.types import Change, Channel, Generation, Package
from firth_tui.actions import Place
from firth_tui.format import Cell, Sign, Tone, age, clean, count, counted, family_name, moment, size
from firth_tui.rows import Fetch, filtered
from firth_tui.screens.channels import channel_columns
from firth_tui.screens.listing import Listing, Wanted
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.keyed_table import Column

NO_PACKAGE = (
    "The channel offers no package yet.\nPress n to create a mirror that fills it, or M to see the mirrors it has."
)


def nothing_offered(channel: Channel) -> str:
    """Return why a channel has no package to show, and what to do."""
    if channel.frozen and channel.draft is not None and channel.draft.added:
        waits = counted(channel.draft.added, "file")
        return f"The channel is frozen with nothing in it; {waits} wait.\nPress z to unfreeze it, C to see what waits."
    if channel.frozen:
        return "The channel is frozen with nothing in it.\nWhat mirrors bring waits until z unfreezes it."
    if channel.mirrors:
        return "The channel offers no package yet.\nPress M to see its mirrors; r runs one."
    return NO_PACKAGE


def package_listing(screen: PlaceScreen, channel: str) -> Listing[Package]:
    """Return the list of what a channel offers; PLATFORMS, VERSIONS, FETCHED and SIZE go for want of room."""
    columns: tuple[Column[Package], ...] = (
        Column(
            id="name", title="PACKAGE", width=20, grow=3, cell=lambda p: Cell(clean(p.name), Tone.STRONG), sort="name"
        ),
        Column(id="family", title="FAMILY", width=6, cell=lambda p: Cell(family_name(p.family))),
        Column(id="version", title="NEWEST", width=12, grow=1, cell=lambda p: Cell(clean(p.version))),
        Column(id="versions", title="VERSIONS", width=8, right=True, drop=3, cell=lambda p: Cell(count(p.versions))),
        Column(id="files", title="FILES", width=7, right=True, cell=lambda p: Cell(count(p.files)), sort="files"),
        Column(id="stored", title="STORED", width=14, cell=_stored),
        Column(
            id="fetched",
            title="FETCHED",
            width=7,
            right=True,
            drop=2,
            cell=lambda p: Cell(count(p.downloads)),
            sort="downloads",
        ),
        Column(id="bytes", title="SIZE", width=8, right=True, drop=1, cell=lambda p: Cell(size(p.bytes)), sort="bytes"),
        Column(
            id="platforms",
            title="PLATFORMS",
            width=8,
            grow=2,
            drop=4,
            cell=lambda p: Cell(clean(", ".join(p.platforms)), Tone.MUTED),
        ),
    )

    def fetch(wanted: Wanted) -> Fetch[Package]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                Package,
                "package.list",
                channel=channel,
                query=wanted.query or None,
                sort=wanted.sort,
                cursor=cursor,
                limit=limit,
            )

        return read

    return Listing(
        place=Place.PACKAGES,
        noun="package",
        plural="packages",
        columns=columns,
        key=lambda package: (package.family, package.name),
        fetch=fetch,
        touches=lambda about: about.changes_content and about.channel == channel,
        empty=NO_PACKAGE,
        subject="package",
        sort="name",
    )


def left_out_text(package: Package) -> str:
    """Return why a package of which nothing is shown is hidden, in words."""
    by = f": {clean(package.rule)}" if package.rule else ""
    return f"{counted(package.left_out, 'file')} kept out{by}"


def _stored(package: Package) -> Cell:
    if package.left_out:
        return Cell(f"{Sign.SKIPPED} {clean(package.rule or 'kept out')}", Tone.WARN)
    if package.stored >= package.files:
        return Cell(f"{Sign.OK} all", Tone.OK)
    if package.stored == 0:
        return Cell(f"{Sign.WAIT} on demand", Tone.MUTED)
    return Cell(f"{Sign.BUSY} {count(package.stored)} of {count(package.files)}", Tone.PLAIN)


def subchannel_listing(screen: PlaceScreen, channel: str) -> Listing[Channel]:
    """Return the list of the channels below `channel`."""

    def fetch(wanted: Wanted) -> Fetch[Channel]:
        async def read(cursor: str | None, limit: int) -> Any:
            page = await screen.firth.link.page(
                Channel, "channel.list", query=f"{channel}/{wanted.query}", sort="name", cursor=cursor, limit=limit
            )
            below = [each for each in page.items if each.name.startswith(f"{channel}/")]
            return type(page)(items=below, next_cursor=page.next_cursor, total=None, as_of=page.as_of)

        return read

    return Listing(
        place=Place.SUBCHANNELS,
        noun="subchannel",
        plural="subchannels",
        columns=channel_columns(screen),
        key=lambda each: each.name,
        fetch=fetch,
        touches=lambda about: about.changes_channels,
        empty="There is no subchannel.\nPress n to create one: it has its own mirrors and its own freeze.",
    )


def generation_listing(screen: PlaceScreen, channel: str) -> Listing[Generation]:
    """Return the list of what was published when, newest first."""
    columns: tuple[Column[Generation], ...] = (
        Column(id="number", title="NUMBER", width=6, right=True, cell=lambda g: Cell(str(g.number), Tone.STRONG)),
        Column(id="state", title="STATE", width=12, cell=_generation_state),
        Column(id="time", title="PUBLISHED", width=10, grow=1, cell=lambda g: Cell(age(g.time, screen.now()))),
        Column(id="cause", title="BECAUSE OF", width=10, drop=1, cell=lambda g: Cell(clean(g.cause))),
        Column(id="added", title="ADDED", width=9, right=True, cell=lambda g: Cell(count(g.added))),
        Column(id="removed", title="REMOVED", width=8, right=True, cell=lambda g: Cell(count(g.removed))),
        Column(id="artifacts", title="FILES", width=9, right=True, drop=2, cell=lambda g: Cell(count(g.artifacts))),
        Column(id="when", title="TIME", width=23, drop=3, cell=lambda g: Cell(moment(g.time), Tone.MUTED)),
        Column(id="bytes", title="SIZE", width=8, right=True, drop=4, cell=lambda g: Cell(size(g.bytes))),
    )

    def fetch(wanted: Wanted) -> Fetch[Generation]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                Generation, "channel.generations", channel=channel, cursor=cursor, limit=limit
            )

        return _matching(read, wanted.query, lambda g: f"{g.number} {g.cause} {g.time}")

    return Listing(
        place=Place.GENERATIONS,
        noun="generation",
        plural="generations",
        columns=columns,
        key=lambda generation: generation.number,
        fetch=fetch,
        touches=lambda about: about.changes_content and about.channel == channel,
        empty="Nothing has been published yet.",
        subject="generation",
    )


def _matching(fetch: Fetch[Any], query: str, text: Callable[[Any], str]) -> Fetch[Any]:
    return filtered(fetch, lambda row: query.casefold() in text(row).casefold()) if query else fetch


def _generation_state(generation: Generation) -> Cell:
    if generation.current:
        return Cell(f"{Sign.BUSY} published", Tone.OK)
    return Cell(f"{Sign.WAIT} kept", Tone.PLAIN) if generation.kept else Cell(f"{Sign.SKIPPED} not kept", Tone.MUTED)


def change_listing(screen: PlaceScreen, channel: str, generation: int | None) -> Listing[Change]:
    """Return what a generation added and removed; without one: the draft, or the newest generation."""
    columns: tuple[Column[Change], ...] = (
        Column(id="change", title="CHANGE", width=9, cell=_change),
        Column(id="subdir", title="PLATFORM", width=10, cell=lambda c: Cell(clean(c.part))),
        Column(id="file", title="FILE", width=28, grow=4, cell=lambda c: Cell(clean(c.filename), Tone.STRONG)),
        Column(id="size", title="SIZE", width=8, right=True, drop=1, cell=lambda c: Cell(size(c.size))),
        Column(id="cause", title="BECAUSE OF", width=14, grow=1, cell=lambda c: Cell(clean(c.cause))),
        Column(id="mirror", title="MIRROR", width=14, drop=2, cell=lambda c: Cell(clean(c.mirror or "–"))),
    )

    def fetch(wanted: Wanted) -> Fetch[Change]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                Change, "channel.changes", channel=channel, generation=generation, cursor=cursor, limit=limit
            )

        return _matching(read, wanted.query, lambda c: f"{c.change} {c.part}/{c.filename}")

    return Listing(
        place=Place.CHANGES,
        noun="change",
        plural="changes",
        columns=columns,
        key=lambda c: (c.family, c.part, c.filename, c.change, c.run),
        fetch=fetch,
        touches=lambda about: about.changes_content and about.channel == channel,
        empty="Nothing was changed here.",
    )


def _change(change: Change) -> Cell:
    return Cell("+ added", Tone.OK) if change.change == "added" else Cell("- removed", Tone.WARN)
