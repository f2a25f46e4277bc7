"""The only place that knows when the screen is at rest: what was sent has been taken in, with all that came of it.

A key goes from the widget that has the focus up to the application, from message queue to message queue, and what it
causes goes other ways. At rest every queue is empty, every widget is mounted, and nobody is in the middle of a message:
most handlers never pause, those of the application, of screens and of what has the focus may, so these are asked.

Where others are at work, facts come in without a pause and some queue always holds one. So nobody waits for a rest that
never comes: when every queue has been gone through as many times as a message can be passed on, what was sent before
has been taken in.
"""

import asyncio
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from textual.app import App
from textual.dom import DOMNode
from textual.widget import Widget

PAUSE_S = 0.002
"""How often it is looked whether a widget that is being put up is there, and whether who pauses has answered."""
TURNS = 20
"""How many turns of the loop are waited through before pauses are made: most answer within a few."""
ROUNDS = 2
"""How often all must have been found at rest: who answered first may have got something from who answered last."""
HOPS = 16
"""How often a message of a key can be passed on, with what comes of it: twice the way up from the deepest widget."""


async def calm(app: App[Any]) -> None:
    """Wait until whatever was sent before has been taken in, with all that came of it."""
    rounds = hops = 0
    while rounds < ROUNDS and hops < HOPS:
        nodes = list(_nodes(app))
        busy = [node for node in nodes if node.message_queue_size]
        if busy:
            rounds, hops = 0, hops + 1
            await _answers(busy)
        elif not all(node.is_mounted for node in nodes if isinstance(node, Widget) and node.is_attached):
            rounds = 0
            await asyncio.sleep(PAUSE_S)
        else:
            rounds += 1
            focused = app.focused
            await _answers({app, *app.screen_stack, *(focused.ancestors_with_self if focused is not None else ())})


def _nodes(app: App[Any]) -> Iterator[DOMNode]:
    yield app
    for screen in app.screen_stack:
        yield screen
        yield from screen.walk_children(Widget)


async def _answers(asked: Iterable[DOMNode]) -> None:
    """Wait until everybody asked has taken in what was in their queues; not for those who end meanwhile."""
    waiting: set[DOMNode] = set()

    def answer(node: DOMNode) -> None:
        waiting.discard(node)

    for node in asked:
        if node.is_running and node.call_later(partial(answer, node)):
            waiting.add(node)
    turns = 0
    while any(node.is_running for node in waiting):
        turns += 1
        await asyncio.sleep(0 if turns < TURNS else PAUSE_S)
