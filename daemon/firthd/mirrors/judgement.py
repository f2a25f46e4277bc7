"""What runs of mirrors do with a policy: the order to a worker, and what the run tells of what it made of it."""

from collections.abc import Mapping
from pathlib import Path

from firth_protocol.types import FilteredCount, Json, StepName
from firthd.channels.policies import InForce
from firthd.index.messages import JudgedBy, JudgementResult
from firthd.runs.run import LiveRun

JUDGEMENT = "judgement.sqlite"
"""What a run finds by a policy, in its own folder."""
LINES = 100
SHOWN = 3


def judged_by(in_force: InForce | None, stamp: str, now_ms: int, file: Path | None) -> JudgedBy | None:
    """Return the order to judge by a policy; None: nothing judges."""
    if in_force is None or in_force.judge is None:
        return None
    return JudgedBy(
        policy=in_force.policy.name,
        stamp=stamp,
        rules=in_force.policy.rules,
        policing=in_force.policing,
        now_ms=now_ms,
        file=str(file) if file is not None else None,
        solve=file is not None,
    )


def whose(in_force: InForce) -> str:
    """Return whose rules drop something, as counts name it."""
    return f"policy {in_force.policy.name} of the {in_force.of}"


def counted(in_force: InForce, by_rule: Mapping[str, int]) -> list[FilteredCount]:
    """Return how many records each rule has dropped, the most first."""
    counts = sorted(by_rule.items(), key=lambda one: (-one[1], one[0]))
    return [FilteredCount(reason=rule, whose=whose(in_force), count=count) for rule, count in counts]


def note_judgement(live: LiveRun, in_force: InForce, found: JudgementResult) -> None:
    """Count what a policy has dropped, and tell what an administrator should know of it."""
    live.count(filtered=counted(in_force, found.counts), missing=found.missing_total)
    for text in found.unmapped:
        live.log(f"nobody knows what licence this is: {text}", "warning")
    for one in found.missing[:LINES]:
        needed = " > ".join(one.chain)
        live.log(f"missing: {one.requirement}: {one.why}" + (f" (needed by {needed})" if needed else ""), "warning")
    if found.missing_total:
        first = ", ".join(one.requirement for one in found.missing[:SHOWN])
        more = f" and {found.missing_total - SHOWN:,} more" if found.missing_total > SHOWN else ""
        live.note(f"nothing that is kept meets {first}{more}")
    for text in found.unsolvable[:LINES]:
        live.log(f"cannot be installed: {text}", "warning")
    if found.unsolvable:
        live.note(f"{len(found.unsolvable):,} of what is allowed cannot be installed; the log says why")
    for note in found.notes:
        live.log(note, "warning")


def planned(found: JudgementResult) -> Json:
    """Return what a plan tells of a policy."""
    return {
        "filtered": found.counts,
        "missing": [one.requirement for one in found.missing],
        "missing_total": found.missing_total,
        "unsolvable": found.unsolvable,
    }


async def resolve(live: LiveRun, found: JudgementResult | None) -> None:
    """Tell what came of dependencies: they were resolved together with the filtering."""
    if found is None or not found.closes:
        live.skip(StepName.RESOLVE, "nothing asks for dependencies")
        return
    async with live.step(StepName.RESOLVE):
        missing = f"{found.missing_total:,} requirements are met by nothing" if found.missing_total else "nothing lacks"
        live.progress(f"{found.kept:,} artifacts with what they need, {missing}", done=found.kept, total=found.kept)
