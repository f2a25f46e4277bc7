"""The only place that sums up what a generation shows of each family, and digests it."""

import hashlib
from collections.abc import Iterable

from firth_protocol.types import Family
from firthd.channels.plan import Plan
from firthd.index.messages import FamilyContent, RenderResult
from firthd.index.set_hash import EMPTY, STATE_BYTES, pressed
from firthd.store.generations import FamilyRow


def digest_of(families: Iterable[FamilyRow]) -> str | None:
    """Return a generation's digest: sha256 over the states of its families that show anything, sorted by family.

    None when one of them has no state: a release that knew none has published it.
    """
    shown = sorted((row for row in families if row.artifacts or _beside(row)), key=lambda row: row.family)
    states = [pressed(row.family.encode(), row.state) for row in shown if row.state is not None]
    if len(states) < len(shown):
        return None
    return hashlib.sha256(b"".join(states)).hexdigest()


def _beside(row: FamilyRow) -> bool:
    """Tell whether a family shows something beside its packages, such as a list of what there is."""
    return row.state is not None and len(row.state) > STATE_BYTES


def empty_row(family: str) -> FamilyRow:
    """Return a family of which nothing is shown."""
    return FamilyRow(family=family, artifacts=0, packages=0, bytes=0, state=EMPTY, shadowed={})


def family_row(family: str, result: RenderResult) -> FamilyRow:
    """Return a family as a generation shows it that was rendered."""
    content = result.content
    return FamilyRow(
        family=family,
        artifacts=content.artifacts,
        packages=content.packages,
        bytes=content.bytes,
        state=content.state,
        shadowed=content.shadowed,
    )


def content_before(row: FamilyRow | None) -> FamilyContent | None:
    """Return what a render begins with; None when all must be summed up anew."""
    if row is None or row.state is None:
        return None
    return FamilyContent(
        artifacts=row.artifacts, packages=row.packages, bytes=row.bytes, state=row.state, shadowed=row.shadowed
    )


def to_render(plan: Plan, family: Family) -> bool:
    """Tell whether a publication must render a family: its draft touches it, or nobody has worked out its state."""
    if not plan.renders:
        return False
    row = next((row for row in plan.families if row.family == family), None)
    return plan.full or plan.touched is None or family in plan.touched or content_before(row) is None
