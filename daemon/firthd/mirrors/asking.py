"""The only place that drives a family's requests, and says what an answer means that is none of what was asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from firth_protocol.errors import Upstream
from firthd.families.base import Answer, Ask, Requests

_ABSENT = frozenset({404, 410})


async def walk(
    requests: Requests,
    ask: Callable[[Ask], Awaitable[Answer]],
    same: Callable[[Sequence[str]], None] = lambda parts: None,
) -> list[Answer]:
    """Ask for what a family's requests want, a batch at a time, and return every answer in the order of the asks.

    `same` hears of the parts that need not be asked for.
    """
    answers: list[Answer] = []
    batch = next(requests, None)
    while batch is not None:
        places = asyncio.Semaphore(batch.at_once)
        if batch.same:
            same(batch.same)
            await asyncio.sleep(0)  # a batch of nothing else would hold the event loop

        async def one(asked: Ask, places: asyncio.Semaphore = places) -> Answer:
            async with places:
                return await ask(asked)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(asked)) for asked in batch.asks]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        got = [task.result() for task in tasks]
        answers += got
        try:
            batch = requests.send(got)
        except StopIteration:
            batch = None
    return answers


def odd(statuses: Iterable[int]) -> int | None:
    """Return a status among those of a part's forms that does not just say that there is none."""
    return next((status for status in statuses if status not in _ABSENT), None)


def not_it(part: str, status: int) -> Upstream:
    """Return what to say of a part that is neither there nor said to be absent."""
    return Upstream(
        f"the source answered {status} for {part}, and what came is no page of it",
        hint="look at the source",
        status=status,
    )
