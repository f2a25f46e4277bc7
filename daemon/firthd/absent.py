"""The only place that words what does not exist: whoever may not see a thing gets the same answer, letter by letter."""

from firth_protocol.errors import NotFound


def no_channel(name: str) -> NotFound:
    """Return the answer for a channel that there is not, or not for this caller."""
    return NotFound(f"there is no channel {name!r}", hint="`channel.list` shows the channels", channel=name)


def no_mirror(ref: int | str) -> NotFound:
    """Return the answer for a mirror that there is not, or not for this caller; `ref` as it was given."""
    return NotFound(f"there is no mirror {ref!r}", hint="an id, or `channel:name`; `mirror.list` shows them")


def no_run(run: int) -> NotFound:
    """Return the answer for a run that there is not, or not for this caller."""
    return NotFound(f"there is no run {run}", hint="`run.list` shows the runs", run=run)
