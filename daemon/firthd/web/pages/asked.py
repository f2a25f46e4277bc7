"""The only place that reads what a person asks a page for: the parameters behind its address, and links that set them.

Pure. What no link of ours has is refused with a sentence.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from msgspec import Struct

from firth_protocol.types import Family
from firthd.web.problems import Problem

QUERY_LIMIT = 200
"""Characters of a search that are looked at."""
PLACE_LIMIT = 500
DIGITS = 18
NAME, UPDATED = "name", "updated"
ORDERS = (NAME, UPDATED)

Spot = tuple[int | str, str]
"""A place in an order: its value there, and the name."""


class Asked(Struct, frozen=True, kw_only=True):
    """What a channel's page is asked for; `family` None: whichever has something."""

    query: str = ""
    family: Family | None = None
    order: str = NAME
    descending: bool = False
    after: Spot | None = None
    before: Spot | None = None
    read_after: str | None = None


def asked(query: Mapping[str, str], families: Sequence[Family]) -> Asked:
    """Read the parameters of a channel's page. Raises Problem 400."""
    family = query.get("family")
    if family is not None and family not in families:
        raise Problem(400, "the channel has no packages of that kind")
    sort = query.get("sort", NAME)
    order = sort.removeprefix("-")
    if order not in ORDERS:
        raise Problem(400, f"packages are sorted by {', '.join(ORDERS)}, with - before it for descending")
    after, before = (_spot(query.get(name), order) for name in ("after", "before"))
    if after is not None and before is not None:
        raise Problem(400, "a page begins after a package or ends before one, not both")
    return Asked(
        query=text(query),
        family=None if family is None else Family(family),
        order=order,
        descending=sort.startswith("-"),
        after=after,
        before=before,
        read_after=_plain(query["read"])[:PLACE_LIMIT] if query.get("read") else None,
    )


def text(query: Mapping[str, str]) -> str:
    """Return what is searched for."""
    return _plain(query.get("q", ""))[:QUERY_LIMIT].strip()


def page_number(query: Mapping[str, str], pages: int) -> int:
    """Return which of some pages is asked for. Raises Problem 400 for what is no number, and 404 for one too high."""
    wanted = query.get("page", "1")
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) <= DIGITS and int(wanted) > 0):
        raise Problem(400, "a page has a number")
    if int(wanted) > max(1, pages):
        raise Problem(404, "the list has fewer pages")
    return int(wanted)


def link(one: Asked, family: Family | None, **more: str) -> str:
    """Return the address, relative to the page itself, of the same search and order with other parameters."""
    params = {
        "q": one.query,
        "family": "" if family is None else family.value,
        "sort": "" if (one.order, one.descending) == (NAME, False) else sort_of(one.order, descending=one.descending),
        **more,
    }
    return f"./?{urlencode({name: value for name, value in params.items() if value})}"


def sort_of(order: str, *, descending: bool) -> str:
    return f"{'-' if descending else ''}{order}"


def spot_text(spot: Spot, order: str) -> str:
    """Write a place in an order as a parameter."""
    return spot[1] if order == NAME else f"{spot[0]}:{spot[1]}"


def _spot(value: str | None, order: str) -> Spot | None:
    if not value:
        return None
    value = _plain(value)
    if len(value) > PLACE_LIMIT:
        raise Problem(400, "this is no place in the list of packages")
    if order == NAME:
        return value, value
    number, _, name = value.partition(":")
    if not (number.isascii() and number.isdigit() and len(number) <= DIGITS and name):
        raise Problem(400, "this is no place in the list of packages")
    return int(number), name


def _plain(value: str) -> str:
    return "".join(char if char.isprintable() else " " for char in value)
