"""The only place that starts work beside the drawing; it ends with the widget or application that it belongs to."""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, cast

from textual.dom import DOMNode
from textual.worker import Worker


def start(
    owner: DOMNode,
    work: Callable[..., Coroutine[Any, Any, None]],
    *arguments: object,
    group: str,
    exclusive: bool = False,
) -> None:
    """Run `work(*arguments)` as a worker of `owner`; an exclusive one cancels what its group still does.

    The coroutine is made when the worker begins: one that is cancelled before never was.
    """
    call = cast(Callable[[], Coroutine[None, None, None]], partial(work, *arguments))
    worker: Worker[None] = owner.run_worker(call, group=group, exclusive=exclusive)
    del worker
