"""The only place that decides which mirror a package name belongs to in a channel of several.

Inside a family a name belongs to the oldest mirror that offers it (mirror ids rise); files of the channel itself, whose
mirror id is 0, come last. Other mirrors' files of that name are shadowed: not served, so that no mirror can slip its
own build under another's name.
"""

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from msgspec import Struct

from firthd.store.worker_reads import OfferRow, ShownRow


class Owners(Struct, frozen=True):
    """Who owns contested names, and what a render must take up because an owner changed."""

    contested: dict[str, int]  # name -> mirror id; a name that one mirror alone offers is absent
    moved: dict[str, set[str]]  # part -> names whose owner changed
    shadowed: dict[int, int]  # mirror id -> visible files that another mirror's name hides
    alone: dict[str, int]  # name -> mirror id, of the names that one mirror alone offers

    def of(self, name: str) -> int | None:
        """Return the mirror that a name belongs to; None where there is only one mirror, or no such name."""
        return self.contested.get(name, self.alone.get(name))

    def shown(self, rows: list[ShownRow]) -> list[ShownRow]:
        """Return the rows that are served."""
        return [row for row in rows if self.shows(row.name, row.mirror_id)] if self.contested else rows

    def shows(self, name: str, mirror_id: int) -> bool:
        """Tell whether a mirror's file of this name is served."""
        return self.contested.get(name, mirror_id) == mirror_id


NO_CONTEST = Owners({}, {}, {}, {})


def precedence(mirror_id: int) -> tuple[bool, int]:
    """Return a sort key: the oldest mirror first, the channel itself last."""
    return (mirror_id == 0, mirror_id)


def find_owners(offers: Iterable[OfferRow], counted: set[int], before: set[int]) -> Owners:
    """Return who owns what. `offers` come sorted by name.

    `counted` are the change sets of the generation to be, `before` those of the one before.
    """
    owners = Owners({}, {}, {}, {})
    for name, group in groupby(offers, key=attrgetter("name")):
        rows = list(group)
        if all(row.mirror_id == rows[0].mirror_id for row in rows):
            owners.alone[name] = rows[0].mirror_id
            continue
        now = [row for row in rows if alive(row, counted)]
        then = [row for row in rows if alive(row, before)]
        if not now:
            continue
        owner = min((row.mirror_id for row in now), key=precedence)
        owners.alone[name] = owner
        if any(row.mirror_id != owner for row in now):
            owners.contested[name] = owner
            for row in now:
                if row.mirror_id != owner:
                    owners.shadowed[row.mirror_id] = owners.shadowed.get(row.mirror_id, 0) + 1
        if then and min((row.mirror_id for row in then), key=precedence) != owner:
            for row in (*now, *then):
                owners.moved.setdefault(row.part, set()).add(name)
    return owners


def alive(row: OfferRow, sets: set[int]) -> bool:
    """Tell whether these change sets added the row and did not close it."""
    return row.added_set in sets and (row.closed_set is None or row.closed_set not in sets)
