"""The list of all policies: what each says in words, and where it is in force."""

from typing import Any, ClassVar

from textual.app import ComposeResult

from firth_protocol.events import Topic
from firth_protocol.types import Policy
from firth_tui.actions import Place, Target
from firth_tui.format import Cell, Tone, age, clean
from firth_tui.model import Touched
from firth_tui.policy_rules import where_used
from firth_tui.rows import Fetch
from firth_tui.screens.listing import Listing, ListPane, Wanted
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.screens.policy_lines import WORDS
from firth_tui.widgets.keyed_table import Column


def changes_policies(about: Touched) -> bool:
    """Tell whether a policy, or where one is in force, may be another now."""
    return about.topic == Topic.POLICY or about.changes_lists_of_mirrors


def policy_listing(screen: PlaceScreen) -> Listing[Policy]:
    """Return the list; CHANGED goes for want of room."""
    columns: tuple[Column[Policy], ...] = (
        Column(id="name", title="POLICY", width=16, grow=1, cell=lambda p: Cell(clean(p.name), Tone.STRONG)),
        Column(id="rules", title="IN WORDS", width=30, grow=4, cell=lambda p: Cell(clean(" ".join(p.summary)))),
        Column(id="used", title="IN FORCE FOR", width=18, grow=2, cell=_used),
        Column(id="changed", title="CHANGED", width=10, drop=1, cell=lambda p: Cell(age(p.updated_at, screen.now()))),
    )

    def fetch(wanted: Wanted) -> Fetch[Policy]:
        async def read(cursor: str | None, limit: int) -> Any:
            return await screen.firth.link.page(
                Policy, "policy.list", query=wanted.query or None, cursor=cursor, limit=limit
            )

        return read

    return Listing(
        place=Place.POLICIES,
        noun="policy",
        plural="policies",
        columns=columns,
        key=lambda policy: policy.name,
        fetch=fetch,
        touches=changes_policies,
        empty=(
            "There is no policy yet: mirrors take all that their filters name.\n"
            "Press n to make one; the form of a channel or a mirror then picks it."
        ),
        subject="policy",
    )


def _used(policy: Policy) -> Cell:
    return Cell(clean(where_used(policy)), Tone.PLAIN if policy.used_by else Tone.MUTED)


class PoliciesScreen(PlaceScreen):
    """All policies."""

    BINDINGS = bindings({Place.POLICIES})
    words: ClassVar = WORDS

    def __init__(self) -> None:
        super().__init__()
        self._pane: ListPane[Policy] | None = None

    def where(self) -> Place:
        return Place.POLICIES

    def crumbs(self) -> list[str]:
        return ["Policies"]

    @property
    def pane(self) -> ListPane[Any] | None:
        return self._pane

    def body(self) -> ComposeResult:
        self._pane = ListPane(policy_listing(self), self.session.orders)
        yield self._pane

    def name_to_copy(self, row: Any) -> str | None:
        return row.name if isinstance(row, Policy) else None

    async def open_row(self, row: Any) -> None:
        if isinstance(row, Policy):
            self.firth.open(Target(place=Place.POLICY, name=row.name))
