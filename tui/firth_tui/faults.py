"""What is wrong, worst first, one line a cause; each with what leads to it. Nothing here knows Textual."""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from msgspec import Struct

from firth_protocol.types import DaemonStatus, HealthProblem, Mirror, RunState, UpstreamHost
from firth_tui.format import Cell, Sign, Tone, age, clean, counted, since
from firth_tui.model import FAULTS, worst_first
from firth_tui.wording import for_people

STALE_S = 35 * 86400
"""A mirror without success for longer than its usual month and some days is told."""
TOGETHER = 3
"""As many mirrors that failed for the same reason make one line."""
_OF_A_MIRROR = re.compile(r"(?:mirror|schedule of|policy of) ([^:\s]+:.+)")
_OF_A_CHANNEL = re.compile(r"publication of (\S+)")
_A_RUN = re.compile(r"\brun (\d+)\b")


class Fault(Struct, frozen=True, kw_only=True):
    """One thing to look at: `mirrors` are those that it is about, `mirror` one that is known by `channel:name` only."""

    key: str
    rank: int  # the lower, the worse
    sign: Cell
    subject: str
    text: str
    when: str
    hint: str = ""
    mirrors: tuple[int, ...] = ()
    mirror: str = ""
    channel: str = ""
    run: int | None = None
    host: str = ""


def faults(status: DaemonStatus, mirrors: Sequence[Mirror], now: float) -> list[Fault]:
    """Return what is wrong, worst first: the daemon itself, what failed, what is overdue, what is in part only."""
    told = {f"{mirror.channel}:{mirror.name}" for mirror in mirrors if mirror.state in FAULTS}
    found = [_of_daemon(problem, now) for problem in status.health]
    found = [fault for fault in found if fault.mirror not in told]  # such a mirror's own line says more
    hints = {name: problem.hint for problem in status.health if (name := _name(problem.subject))}
    causes: dict[tuple[RunState, str], list[Mirror]] = {}
    for mirror in worst_first([each for each in mirrors if _faulty(each)]):
        causes.setdefault((mirror.state, _why(mirror)), []).append(mirror)
    for (state, why), alike in causes.items():
        if len(alike) >= TOGETHER and why:
            found.append(_of_cause(state, why, alike, now))
        else:
            found += [_of_mirror(each, hints.get(f"{each.channel}:{each.name}", ""), now) for each in alike]
    # a mirror's own line tells of its source
    sources = {urlsplit(mirror.source).netloc for mirror in mirrors if mirror.state in FAULTS}
    found += [_of_host(each, now) for each in status.upstreams if each.fails and each.host not in sources]
    return sorted(found, key=lambda fault: fault.rank)


def _name(subject: str) -> str:
    match = _OF_A_MIRROR.fullmatch(subject)
    return match[1] if match else ""


def _of_daemon(problem: HealthProblem, now: float) -> Fault:
    name = _name(problem.subject)
    channel = _OF_A_CHANNEL.fullmatch(problem.subject)
    run = _A_RUN.search(problem.text)
    waits = problem.subject == "runs"
    return Fault(
        key=f"health {problem.subject}",
        rank=4 if waits else 2 if name else 0,
        sign=Cell(Sign.WARN, Tone.WARN) if waits or name else Cell(Sign.BAD, Tone.BAD),
        subject=problem.subject,
        text=problem.text,
        when=since(problem.since, now),
        hint=for_people(problem.hint),
        mirror=name,
        channel=channel[1] if channel else "",
        run=int(run[1]) if run and len(run[1]) < 19 else None,
    )


def _of_host(host: UpstreamHost, now: float) -> Fault:
    answered = f"last answer {age(host.answered_at, now)}" if host.answered_at else "it has not answered yet"
    return Fault(
        key=f"host {host.host}",
        rank=4,
        sign=Cell(Sign.WARN, Tone.WARN),
        subject=host.host,
        text=host.failure or "it does not answer as it should",
        when=since(host.failed_at, now),
        hint=f"{answered}; {counted(host.failures, 'failure')} since the daemon started",
        host=host.host,
    )


def _faulty(mirror: Mirror) -> bool:
    return mirror.state in FAULTS or (mirror.last_success_age_s or 0) > STALE_S


def _why(mirror: Mirror) -> str:
    run = mirror.last_run
    if run is None:
        return ""
    return run.error.message if run.error else f"{run.missing:,} files are missing" if run.missing else ""


def _sign(state: RunState) -> Cell:
    return Cell(Sign.BAD, Tone.BAD) if state is RunState.FAILED else Cell(Sign.WARN, Tone.WARN)


def _rank(state: RunState) -> int:
    return 1 if state is RunState.FAILED else 3


def _of_mirror(mirror: Mirror, hint: str, now: float) -> Fault:
    run = mirror.last_run
    text = _why(mirror) or ("nothing succeeded for long" if mirror.state not in FAULTS else "")
    last = f"last success {age(mirror.last_success_at, now)}"
    own = run.error.hint if run and run.error else ""
    return Fault(
        key=f"mirror {mirror.id}",
        rank=_rank(mirror.state),
        sign=_sign(mirror.state),
        subject=f"{mirror.channel}: {mirror.name}",
        text=f"{mirror.state}{': ' if text else ''}{text}",
        when=since(run.finished_at, now) if run else "",
        hint=f"{last}{'; ' if own or hint else ''}{for_people(own or hint)}",
        mirrors=(mirror.id,),
        channel=mirror.channel,
        run=run.id if run else None,
    )


def _of_cause(state: RunState, why: str, alike: Sequence[Mirror], now: float) -> Fault:
    names = ", ".join(f"{mirror.channel}: {mirror.name}" for mirror in alike[:4])
    more = f" and {counted(len(alike) - 4, 'more', 'more')}" if len(alike) > 4 else ""
    newest = max((mirror.last_run.finished_at or "" for mirror in alike if mirror.last_run), default="")
    return Fault(
        key=f"cause {state} {why}",
        rank=_rank(state),
        sign=_sign(state),
        subject=counted(len(alike), "mirror"),
        text=f"{state}: {why}",
        when=since(newest, now),
        hint=clean(f"{names}{more}"),
        mirrors=tuple(mirror.id for mirror in alike),
    )
