"""The only place that sums up what a generation shows of each family, and digests it."""

import hashlib

from firthd.index.messages import RenderResult
from firthd.store.generations import FamilyRow


def digest_of(families: list[FamilyRow]) -> str:
    """Return a generation's digest: sha256 over its non-empty parts' digests, sorted."""
    lines = sorted(
        f"{family.family}/{part} {digest}\n"
        for family in families
        for part, digest in family.digests.items()
        if family.totals.get(part, (0, 0))[0]
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def family_row(family: str, before: FamilyRow | None, result: RenderResult) -> FamilyRow:
    """Return a family as a generation shows it: what was rendered, over what was before."""
    digests = dict(before.digests) if before else {}
    totals = dict(before.totals) if before else {}
    for part in result.parts:
        digests[part.part] = part.digest
        totals[part.part] = (part.artifacts, part.bytes)
    return FamilyRow(
        family=family,
        artifacts=sum(count for count, _ in totals.values()),
        packages=result.packages,
        bytes=sum(size for _, size in totals.values()),
        digests=digests,
        totals=totals,
    )
