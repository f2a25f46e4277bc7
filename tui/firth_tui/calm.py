"""The only place that knows when the screen has come to rest: nothing that was sent is still to be taken in.

A key goes from the widget that has the focus up to the application, from message queue to message queue, and what it
causes goes other ways. At rest every queue is empty, every widget is mounted, and nobody is in the middle of a message:
most handlers never pause, those of the application, of screens and of what has the focus may, so these are asked.
"""

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

from textual.app import App
from textual.dom import DOMNode
from textual.widget import Widget

MOUNTING_S = 0.002
"""How often it is looked whether a widget that is being put up is there."""
ROUNDS = 2
"""How often all must have been found at rest: who answered first may have got something from who answered last."""


async def calm(app: App[Any]) -> None:
    """Wait until whatever was sent before has been taken in, with all that came of it."""
    rounds = 0
    while rounds < ROUNDS:
        nodes = list(_nodes(app))
        while any(node.message_queue_size for node in nodes):
            rounds = 0
            await asyncio.sleep(0)
        if not all(node.is_mounted for node in nodes if isinstance(node, Widget) and node.is_attached):
            rounds = 0
            await asyncio.sleep(MOUNTING_S)
        else:
            await _answers(app)
            rounds += 1


def _nodes(app: App[Any]) -> Iterator[DOMNode]:
    yield app
    for screen in app.screen_stack:
        yield screen
        yield from screen.walk_children(Widget)


async def _answers(app: App[Any]) -> None:
    """Wait until everybody who may pause in the middle of a message has taken one more."""
    focused = app.focused
    asked = {app, *app.screen_stack, *(focused.ancestors_with_self if focused is not None else ())}
    answers: asyncio.Queue[None] = asyncio.Queue()
    expected = sum(node.call_later(partial(answers.put_nowait, None)) for node in asked if node.is_running)
    for _ in range(expected):
        await answers.get()
