"""The only place that starts work beside the drawing; it ends with the widget or application that it belongs to."""

import asyncio
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


class Repeated:
    """Work that is asked for again and again, but done once at a time: asked meanwhile, it is done once more after.

    Nothing is cancelled half way, so a burst of events costs two calls and the last one sees everything.
    """

    def __init__(self, owner: DOMNode, work: Callable[[], Coroutine[Any, Any, None]], *, group: str) -> None:
        self._owner = owner
        self._work = work
        self._group = group
        self._at_work = False
        self._again = False
        self._waiting: list[asyncio.Event] = []

    @property
    def at_work(self) -> bool:
        return self._at_work

    async def caught_up(self) -> None:
        """Wait until what is under way, or was asked for, is done; not for what is asked for later."""
        for _ in range(2 if self._again else 1):
            if self._at_work:
                self._waiting.append(asyncio.Event())
                await self._waiting[-1].wait()

    def ask(self) -> None:
        """Have the work done, beginning now or when what is under way has ended."""
        self._again = True
        if not self._at_work:
            self._at_work = True
            start(self._owner, self._loop, group=self._group)

    async def _loop(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._work()
                self._tell()
        finally:
            self._at_work = False
            self._tell()

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.set()
