"""The only place that decides, for a render, which mirrors a package name belongs to in a channel of several.

Inside a family a name belongs to the oldest mirror that offers it (mirror ids rise), and to those that have the same
stored source; the channel itself, whose mirror id is 0, comes last. Other mirrors' files of that name are shadowed: not
served, so that no mirror can slip its own build under another's name.
"""

from collections.abc import Iterable, Mapping, Set

from msgspec import Struct

from firthd.store.worker_reads import OfferRow, ShownRow


class Owners(Struct, frozen=True):
    """Who owns contested names, and what a render must take up because an owner changed."""

    contested: dict[str, Set[int]]  # name -> mirrors that own it; a name that one mirror alone offers is absent
    moved: Set[str] = frozenset()  # names whose owner changed

    def shows(self, name: str, mirror_id: int) -> bool:
        """Tell whether a mirror's file of this name is served."""
        owners = self.contested.get(name)
        return owners is None or mirror_id in owners

    def shown(self, rows: list[ShownRow]) -> list[ShownRow]:
        """Return the rows that are served."""
        return [row for row in rows if self.shows(row.name, row.mirror_id)]


NO_CONTEST = Owners({})


def owners_of(mirrors: Iterable[int], sources: Mapping[int, str]) -> frozenset[int]:
    """Return those to which a name belongs that these mirrors offer; `sources`: mirror -> its stored source."""
    oldest = min(mirrors, key=precedence, default=None)
    if oldest is None:
        return frozenset()
    source = sources.get(oldest)
    return frozenset({oldest, *(mirror for mirror, other in sources.items() if other == source)})


def find_owners(contested: Iterable[tuple[str, set[int]]], sources: Mapping[int, str], moved: Set[str]) -> Owners:
    """Return who owns what. `contested`: each name that several mirrors offer, with those."""
    found: dict[str, Set[int]] = {}
    for name, mirrors in contested:
        owners = owners_of(mirrors, sources)
        if not mirrors <= owners:
            found[name] = owners
    return Owners(found, moved)


def moved_names(
    offers: Mapping[str, list[OfferRow]], sources: Mapping[int, str], now: Set[int], before: Set[int]
) -> set[str]:
    """Return the names of which a file may be hidden now that was not before, or the other way round.

    `offers` has all of their offers; `now` are the change sets of the generation to be, `before` those of the one
    before.
    """

    def owned(rows: list[OfferRow], sets: Set[int]) -> frozenset[int]:
        return owners_of({row.mirror_id for row in rows if alive(row, sets)}, sources)

    return {
        name
        for name, rows in offers.items()
        if any(row.mirror_id != rows[0].mirror_id for row in rows) and owned(rows, now) != owned(rows, before)
    }


def alive(row: OfferRow, sets: Set[int]) -> bool:
    """Tell whether these change sets began the offer and did not end it."""
    return row.added_set in sets and (row.closed_set is None or row.closed_set not in sets)


def precedence(mirror_id: int) -> tuple[bool, int]:
    """Return a sort key: the oldest mirror first, the channel itself last."""
    return (mirror_id == 0, mirror_id)
