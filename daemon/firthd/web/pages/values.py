"""The only place that turns what is shown of channels and packages into what templates are filled with. Pure.

Functions give what a template of the same word uses; `target` is an address relative to the page, and names in it are
quoted.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from msgspec import Struct

from firth_protocol.types import Family
from firthd.channels.showcase import COUNTED_UP_TO, FamilyShown, Listing, ReadListing
from firthd.clock import utc_day
from firthd.web.pages import asked as parameters
from firthd.web.pages import words
from firthd.web.pages.asked import Asked

if TYPE_CHECKING:
    from firthd.channels.published import View
    from firthd.channels.showcase import ChannelShown, Found, PackageShown
    from firthd.store.showcase import SnapshotRow

UI = "-"
"""The folder below the server and below each channel that no client asks for, and no family has."""
MOST_STEPS = 32
"""Folders below the server's address of a page that lead back to it by `../`."""
TITLES = {Family.CONDA: "conda", Family.PYTHON: "Python", Family.R: "R"}
COLUMNS = (
    (parameters.NAME, "Package", ""),
    (None, "Newest", "version"),
    (None, "Versions", "num wide"),
    (None, "Files", "num wide"),
    (None, "Size", "num"),
    (None, "Platforms", "wide"),
    (parameters.UPDATED, "Changed", "when"),
)


class Where(Struct, frozen=True, kw_only=True):
    """Where a page stands: `root` leads from it to the list of channels, `here` on to the channel's own address.

    `when`: by which number or day a snapshot is asked for, "" for the channel of today.
    """

    root: str
    here: str = ""
    when: str = ""

    @property
    def channel(self) -> str:
        return f"{self.root}{self.here}"


def root_of(raw_path: str) -> str:
    """Return what leads from a page to the list of channels, behind the token that stands in its address, if any."""
    steps = raw_path.count("/") - 1
    if raw_path.startswith("/t/"):
        steps -= 2
    if not 0 <= steps <= MOST_STEPS:
        return "/"
    return "../" * steps or "./"


def _family_words(one: FamilyShown) -> str:
    """Return what a channel has of a family: `conda: 1 package`."""
    title = TITLES[one.family]
    if one.whole and not one.packages:
        return f"{title}: a whole index"
    return f"{title}: {words.count(one.packages, 'package')}"


def card(root: str, view: "View", about: "ChannelShown") -> dict[str, Any]:
    return {
        "name": view.channel,
        "target": f"{root}repo/{view.channel}/",
        "privacy": view.privacy.value,
        "frozen_at": about.frozen_at_ms,
        "description": about.description,
        "families": [_family_words(one) for one in about.families] or ["no packages yet"],
        "bytes": about.bytes,
        "published_at": view.published_at_ms,
    }


def found(root: str, names: Mapping[int, str], found: Iterable["Found"]) -> list[dict[str, Any]]:
    """Return what a search found, each name once with the places that have it."""
    by_name: dict[str, list[dict[str, str]]] = {}
    for one in found:
        channel = names[one.channel_id]
        by_name.setdefault(one.name, []).append(
            {
                "channel": channel,
                "target": f"{root}repo/{channel}/{UI}/{one.family.value}/{quote(one.name, safe='')}",
                "family": TITLES[one.family],
                "version": one.version,
            }
        )
    return [{"name": name, "places": places} for name, places in by_name.items()]


def whole_channels(
    root: str, views: Iterable["View"], about: Mapping[int, "ChannelShown"], query: str
) -> list[dict[str, str]]:
    """Return the channels where a name can only be looked up, with where that is done."""
    return [
        {
            "channel": view.channel,
            "family": TITLES[one.family],
            "target": f"{root}repo/{view.channel}/{UI}/{one.family.value}/{quote(query, safe='')}",
        }
        for view in views
        for one in (about[view.channel_id].families if view.channel_id in about else ())
        if one.whole and query.strip(".") != "" and "/" not in query
    ]


def chosen(families: Sequence[FamilyShown], counts: Mapping[Family, int], ask: Asked) -> FamilyShown | None:
    """Return the family whose packages are shown: the one asked for, else the first that has any."""
    if ask.family is not None:
        return next(one for one in families if one.family is ask.family)
    return next((one for one in families if counts[one.family]), next(iter(families), None))


def tab(one: FamilyShown, found: int, ask: Asked, *, chosen: bool) -> dict[str, Any]:
    more = found > COUNTED_UP_TO and bool(ask.query)
    return {
        "title": TITLES[one.family],
        "words": _family_words(one),
        "count": f"{COUNTED_UP_TO:,}+" if more else f"{found:,}",
        "chosen": chosen,
        "target": parameters.link(Asked(query=ask.query), one.family),
    }


def whole(where: Where, family: FamilyShown, ask: Asked) -> dict[str, str]:
    return {
        "title": TITLES[family.family],
        "target": f"{where.channel}{UI}/{family.family.value}/{quote(ask.query, safe='')}",
    }


def read(where: Where, family: FamilyShown | None, read: ReadListing, ask: Asked) -> dict[str, Any]:
    if family is None:
        return {"parts": [], "after": None}
    return {
        "parts": [
            {
                "name": one.name,
                "read_at": one.read_at,
                "target": f"{where.channel}{UI}/{family.family.value}/{quote(one.name, safe='')}",
            }
            for one in read.parts
        ],
        "after": None if read.after is None else parameters.link(ask, family.family, read=read.after),
    }


def listing(where: Where, family: Family, listing: Listing, ask: Asked) -> dict[str, Any]:
    def beside(name: str, spot: parameters.Spot | None) -> str | None:
        if spot is None:
            return None
        return parameters.link(ask, family, **{name: parameters.spot_text(spot, ask.order)})

    total = (
        f"more than {COUNTED_UP_TO:,} packages" if listing.total is None else (words.count(listing.total, "package"))
    )
    return {
        "words": f"{total} with “{ask.query}” in the name" if ask.query else total,
        "columns": [_column(order, title, css, family, ask) for order, title, css in COLUMNS],
        "rows": [
            {
                "name": one.name,
                "target": f"{where.channel}{UI}/{family.value}/{quote(one.name, safe='')}",
                "version": one.version,
                "versions": one.versions,
                "files": one.files,
                "bytes": one.bytes,
                "platforms": ", ".join(one.platforms),
                "time": one.time,
            }
            for one in listing.packages
        ],
        "first": parameters.link(
            Asked(order=ask.order, descending=ask.descending) if not listing.packages else ask, family
        ),
        "before": beside("before", listing.before),
        "after": beside("after", listing.after),
    }


def _column(order: str | None, title: str, css: str, family: Family, ask: Asked) -> dict[str, Any]:
    if order is None:
        return {"title": title, "css": css, "target": None, "sorted": None}
    here = order == ask.order
    descending = not ask.descending if here else order == parameters.UPDATED  # nobody looks for the oldest
    return {
        "title": title,
        "css": css,
        "target": parameters.link(Asked(query=ask.query, order=order, descending=descending), family),
        "sorted": ("descending" if ask.descending else "ascending") if here else None,
    }


def depends(where: Where, shown: "PackageShown", most: int) -> list[dict[str, Any]] | None:
    if shown.depends is None:
        return None
    return [
        {
            "text": one.text,
            "target": None
            if one.name is None
            else f"{where.channel}{UI}/{shown.family.value}/{quote(one.name, safe='')}",
        }
        for one in shown.depends[:most]
    ]


def days(where: Where, view: "View", snapshots: Iterable["SnapshotRow"]) -> list[dict[str, str]]:
    """Return the days of which a snapshot is kept, the newest first, with what was published on each."""
    days: dict[str, list[SnapshotRow]] = {}
    for one in snapshots:
        days.setdefault(utc_day(one.time), []).append(one)
    return [
        {
            "day": day,
            "target": f"{where.root}snapshot/{day}/{view.channel}/",
            "words": ", ".join(
                filter(
                    None,
                    (
                        words.count(rows[0].artifacts, "file") if rows[0].artifacts else "",
                        f"+{sum(row.added for row in rows):,}" if any(row.added for row in rows) else "",
                        f"−{sum(row.removed for row in rows):,}" if any(row.removed for row in rows) else "",
                    ),
                )
            ),
        }
        for day, rows in days.items()
    ]
