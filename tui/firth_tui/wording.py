"""The only place that puts the daemon's advice, which speaks of methods, into words of what stands on the screen."""

import re
from collections.abc import Mapping

from firth_tui.action_table import ACTIONS
from firth_tui.actions import key_name

UNCHECKED = "check: false"
"""How the daemon says that a source may be taken without asking it; the form offers that when it is saved again."""

_PHRASES: Mapping[str, str] = {
    f"`{UNCHECKED}` takes the address without asking": "saving again takes the address without asking",
    "`mirror.run` with `accept_removals` true goes ahead": "running it again by hand asks whether to go ahead",
    "`package.list` with `query` finds names": "the filter of the list finds names",
}
_METHODS: Mapping[str, str] = {
    action.method: f"{action.label} ({key_name(action.key)})" for action in reversed(ACTIONS) if action.method
}
_METHOD = re.compile(r"`([a-z]+\.[a-z_]+)`")


def for_people(text: str) -> str:
    """Return advice with actions instead of methods and parameters."""
    for phrase, words in _PHRASES.items():
        text = text.replace(phrase, words)
    return _METHOD.sub(lambda match: _METHODS.get(match[1], match[0]), text)
