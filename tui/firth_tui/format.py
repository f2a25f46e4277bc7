"""The only place that knows how a value is written for people: sizes, ages, counts, states, and text made harmless."""

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from firth_protocol import units
from firth_protocol.types import Channel, Family, MirrorMode, MirrorType, Privacy, RunKind, RunState, StepState


class Tone(StrEnum):
    """What a piece of text means; the theme gives it its colour."""

    PLAIN = "plain"
    STRONG = "strong"
    MUTED = "muted"
    ACCENT = "accent"
    OK = "ok"
    BUSY = "busy"
    WARN = "warn"
    BAD = "bad"


class Cell(NamedTuple):
    """A piece of text with its meaning."""

    text: str
    tone: Tone = Tone.PLAIN


class Sign(StrEnum):
    """The glyphs, each one cell wide; theme.py knows what stands for them on a terminal without Unicode."""

    OK = "✓"
    BAD = "✗"
    WARN = "!"
    BUSY = "●"
    WAIT = "○"
    STOPPED = "■"
    SKIPPED = "–"
    FROZEN = "❄"
    PICK = "▸"
    MARK = "◆"
    PICKED_MARK = "◈"
    CRUMB = "›"
    UP = "▲"
    DOWN = "▼"
    FULL = "█"
    EMPTY = "░"
    ON = "◉"
    OFF = "○"


SPARKS = "▁▂▃▄▅▆▇█"

_TYPES: Mapping[str, str] = {MirrorType.CONDA: "Conda", MirrorType.PYTHON: "Std Python", MirrorType.R: "Std R"}
_FAMILIES: Mapping[str, str] = {Family.CONDA: "Conda", Family.PYTHON: "Python", Family.R: "R"}
_KINDS: Mapping[str, str] = {
    RunKind.MIRROR: "mirror run",
    RunKind.PLAN: "plan",
    RunKind.PUBLISH: "publication",
    RunKind.ROLLBACK: "rollback",
    RunKind.DELETE: "deletion",
    RunKind.REFILTER: "judging anew",
    RunKind.ADVISORY: "advisories",
}


def clean(text: str, limit: int = 500) -> str:
    """Return `text` on one line, without anything that could steer a terminal or turn its reading order.

    Control characters (C0, C1, escape), line and paragraph separators, and invisible format characters
    (bidirectional overrides, zero-width marks) become `?`; names come from sources that nobody here controls.
    """
    if text.isascii() and text.isprintable():
        return text if len(text) <= limit else text[: limit - 1] + "…"
    shown = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    if len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    return "".join(
        "?" if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} else each for each in shown
    )


def size(value: int | float | None) -> str:
    """Return a number of bytes as `62.9 MB`, or that it is not known."""
    return "unknown" if value is None else units.size(value)


def rate(value: float) -> str:
    """Return bytes a second as `41.0 MB/s`."""
    return units.rate(value)


def count(value: int | None) -> str:
    """Return a count as `42,118`."""
    return "–" if value is None else f"{value:,}"


def counted(value: int, noun: str, plural: str = "") -> str:
    """Return `1 file`, `2 files`."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def seconds_of(time: str | None) -> float | None:
    """Return an RFC 3339 time as seconds since the epoch; None for none or nonsense."""
    if not time:
        return None
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None


def moment(time: str | None) -> str:
    """Return a time in full, with its zone: `2026-11-22 14:02:11 UTC`."""
    seconds = seconds_of(time)
    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(seconds: float) -> str:
    """Return the time of day of `seconds` since the epoch: `14:02:11 UTC`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S UTC")


def time_of_day(time: str | None) -> str:
    """Return `14:02:11` of an RFC 3339 time."""
    seconds = seconds_of(time)
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")


def _largest_unit(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def age(time: str | None, now: float) -> str:
    """Return how long ago `time` was, in its largest unit: `3 m ago`; older than 99 days as a date."""
    seconds = seconds_of(time)
    if seconds is None:
        return "never"
    past = now - seconds
    if past < 1:
        return "just now"
    if past > 99 * 86400:
        return datetime.fromtimestamp(seconds, UTC).strftime("%-d %b %Y")
    return f"{_largest_unit(past)} ago"


def since(time: str | None, now: float) -> str:
    """Return how long something lasts: `2 h`."""
    seconds = seconds_of(time)
    return "" if seconds is None else _largest_unit(max(0.0, now - seconds))


def ahead(time: str | None, now: float) -> str:
    """Return when something is due: `in 5 m`, `1 Dec`."""
    seconds = seconds_of(time)
    if seconds is None:
        return "–"
    left = seconds - now
    if left <= 0:
        return "now"
    if left >= 86400:
        return datetime.fromtimestamp(seconds, UTC).strftime("%-d %b")
    return f"in {_largest_unit(left)}"


def duration(seconds: float | None) -> str:
    """Return a duration as `0.2 s`, `41 s`, `3:12`, `1:02:03`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def stopwatch(seconds: float) -> str:
    """Return a running time as `00:03:12`."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def remaining(seconds: float | None) -> str:
    """Return an estimate as `about 3:12 left`."""
    return "" if seconds is None or seconds < 1 else f"about {duration(seconds)} left"


def type_name(value: str) -> str:
    """Return a mirror type's name on screen."""
    return _TYPES.get(value, clean(value))


def family_name(value: str) -> str:
    """Return a family's name on screen."""
    return _FAMILIES.get(value, clean(value))


def kind_name(value: str) -> str:
    """Return a run kind's name on screen."""
    return _KINDS.get(value, clean(value))


def mode_name(value: str) -> str:
    """Return a mirror mode's name on screen."""
    return str(MirrorMode(value)) if value in set(MirrorMode) else clean(value)


_STATES: Mapping[str, tuple[Sign, Tone]] = {
    RunState.PENDING: (Sign.WAIT, Tone.MUTED),
    RunState.RUNNING: (Sign.BUSY, Tone.BUSY),
    RunState.STOPPING: (Sign.STOPPED, Tone.WARN),
    RunState.STOPPED: (Sign.STOPPED, Tone.WARN),
    RunState.COMPLETED: (Sign.OK, Tone.OK),
    RunState.INCOMPLETE: (Sign.WARN, Tone.WARN),
    RunState.FAILED: (Sign.BAD, Tone.BAD),
}

_STEPS: Mapping[str, tuple[Sign, Tone]] = {
    StepState.WAITING: (Sign.WAIT, Tone.MUTED),
    StepState.RUNNING: (Sign.BUSY, Tone.BUSY),
    StepState.DONE: (Sign.OK, Tone.OK),
    StepState.SKIPPED: (Sign.SKIPPED, Tone.MUTED),
    StepState.FAILED: (Sign.BAD, Tone.BAD),
}

_PRIVACY_TONES: Mapping[str, Tone] = {
    Privacy.PUBLIC: Tone.PLAIN,
    Privacy.AUTHENTICATED: Tone.ACCENT,
    Privacy.PRIVATE: Tone.WARN,
}


def state_cell(state: str) -> Cell:
    """Return a run's or mirror's state as glyph and word."""
    sign, tone = _STATES.get(state, (Sign.WAIT, Tone.PLAIN))
    return Cell(f"{sign} {clean(state)}", tone)


def step_cell(state: str) -> Cell:
    """Return a step's state as its glyph."""
    sign, tone = _STEPS.get(state, (Sign.WAIT, Tone.PLAIN))
    return Cell(sign, tone)


def privacy_cell(privacy: str) -> Cell:
    """Return who may fetch from a channel."""
    return Cell(clean(privacy), _PRIVACY_TONES.get(privacy, Tone.PLAIN))


def frozen_cell(channel: Channel) -> Cell:
    """Return whether a channel is frozen, as glyph and word."""
    return Cell(f"{Sign.FROZEN} frozen", Tone.ACCENT) if channel.frozen else Cell("live", Tone.MUTED)
