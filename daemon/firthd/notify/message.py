"""The only place that knows what a notification says, and how a template becomes the body of a request. Pure."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec
from msgspec import Struct

from firth_protocol.types import HealthProblem, RunKind, RunState
from firthd import __version__
from firthd.clock import rfc3339
from firthd.config import TEXT_PLACE, is_json
from firthd.store.runs import RunRow

_LINES_MOST = 20
"""Sentences of one text; a chat cuts off what is longer."""


class Kind(StrEnum):
    """What has happened."""

    RUN_FAILED = "run_failed"
    RUN_INCOMPLETE = "run_incomplete"  # published, but some files could not be had
    HEALTH_WORSE = "health_worse"  # something new is wrong
    HEALTH_BETTER = "health_better"  # what was wrong no longer is
    TEST = "test"  # somebody asked for it


class Item(Struct, frozen=True, kw_only=True):
    """One thing to be told; `subject` is that of health: a mirror, a publication, the disk."""

    kind: Kind
    time: str
    subject: str
    text: str
    hint: str = ""
    run: int | None = None


class Notification(Struct, frozen=True, kw_only=True):
    """What a hook is given, as JSON; `more` is how many things were too many to be told."""

    program: str = "firthd"
    version: str = __version__
    host: str
    time: str
    text: str
    items: list[Item]
    more: int = 0


def notification(items: Sequence[Item], *, more: int, host: str, now_ms: int) -> Notification:
    """Put things that happened together; a run that failed is not told once more as its mirror's health."""
    runs = {item.subject for item in items if item.run is not None}
    told = [item for item in items if not (item.kind is Kind.HEALTH_WORSE and item.subject in runs)]
    lines = [f"{item.subject}: {item.text}" for item in told[:_LINES_MOST]]
    left = len(told) - len(lines) + more
    lines += [f"and {left:,} more"] if left else []
    text = f"firthd on {host}: " + "\n".join(lines)
    return Notification(host=host, time=rfc3339(now_ms), text=text, items=told, more=more)


def of_run(row: RunRow) -> Item | None:
    """Return what is to be told of a run that ended, None where it went well or somebody waits for it anyway."""
    if row.kind is RunKind.PLAN:
        return None
    who = f"mirror {row.channel}:{row.mirror_name}" if row.mirror_name is not None else row.channel or "store"
    at = rfc3339(row.finished_at or row.created_at)
    if row.state is RunState.FAILED and row.error is not None and row.error.kind != "interrupted":
        text = f"run {row.id} ({row.kind}) failed: {row.error.message}"
        return Item(kind=Kind.RUN_FAILED, time=at, subject=who, text=text, hint=row.error.hint, run=row.id)
    if row.state is RunState.INCOMPLETE:
        text = f"run {row.id} ({row.kind}) is incomplete: {row.counts.failed:,} artifacts could not be had"
        return Item(kind=Kind.RUN_INCOMPLETE, time=at, subject=who, text=text, run=row.id)
    return None


def of_health(before: frozenset[str], problems: Sequence[HealthProblem], now_ms: int) -> list[Item]:
    """Return what is wrong now and was not, then what is well again; `before` holds the subjects that were told."""
    now = {problem.subject for problem in problems}
    worse = [
        Item(kind=Kind.HEALTH_WORSE, time=one.since, subject=one.subject, text=one.text, hint=one.hint)
        for one in problems
        if one.subject not in before
    ]
    return worse + [
        Item(kind=Kind.HEALTH_BETTER, time=rfc3339(now_ms), subject=subject, text="well again")
        for subject in sorted(before - now)
    ]


def body(message: Notification, template: str | None) -> tuple[bytes, str]:
    """Return the body of a request and its media type.

    Without a template the whole document; in one that is JSON the text is put in as part of a JSON string.
    """
    if template is None:
        return msgspec.json.encode(message), "application/json"
    if is_json(template):
        inside = msgspec.json.encode(message.text).decode()[1:-1]
        return template.replace(TEXT_PLACE, inside).encode(), "application/json"
    return template.replace(TEXT_PLACE, message.text).encode(), "text/plain; charset=utf-8"
