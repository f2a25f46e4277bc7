"""Records for tests of policies, without a source around them."""

from typing import Any

import msgspec

from firth_protocol.types import Rules
from firthd.families.base import Facts
from firthd.families.conda.policing import POLICING
from firthd.policies.evaluate import Judging
from firthd.policies.judge import FirstSeen, Judge, Verdict

DAY_MS = 86_400_000
NOW_MS = 1_790_000_000_000  # 2026-09-21


def facts(name: str, version: str = "1.0", **fields: Any) -> Facts:
    """Return what rules see of a record."""
    part = fields.pop("part", "noarch")
    build = fields.pop("build", "0")
    given: dict[str, Any] = {
        "build": build,
        "build_number": 0,
        "part": part,
        "platform": part,
        "license": "MIT",
        "timestamp": NOW_MS - 400 * DAY_MS,
        "size": 1,
        "sha256": None,
        "md5": None,
        "depends": [],
        "filename": f"{name}-{version}-{build}.conda",
    }
    return Facts(name=name, version=version, **(given | fields))


def rules_of(**rules: Any) -> Rules:
    return msgspec.convert(rules, Rules)


def built(one: Facts) -> int:
    """Say that a record came when it was built."""
    return one.timestamp or 0


def judged(rules: Rules, *records: Facts, first_seen: FirstSeen = built, now_ms: int = NOW_MS) -> Judging:
    """Judge records, each part for itself, in order."""
    judging = Judging(Judge(rules, POLICING, now_ms=now_ms), first_seen, lambda facts, code: None)
    for part in dict.fromkeys(one.part for one in records):
        here = [one for one in records if one.part == part]
        judging.begin(part, len(here))
        for number, one in enumerate(here):
            judging.see(number, one)
        judging.end_part()
    judging.end()
    return judging


def verdicts(rules: Rules, *records: Facts, **more: Any) -> list[str | None]:
    """Return the rule that decided for each record, None for what is kept."""
    judging = judged(rules, *records, **more)
    counts: dict[str, int] = {}
    found: list[str | None] = []
    for one in records:
        number = counts.get(one.part, 0)
        counts[one.part] = number + 1
        verdict: Verdict | None = judging.verdicts[judging.codes[one.part][number]]
        found.append(verdict.rule if verdict is not None else None)
    return found
