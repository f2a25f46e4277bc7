"""Who gets a turn when there are not enough."""

import asyncio

from firthd.turns import Turns
from tests.support.clock import settle


async def test_who_is_pressed_goes_first_and_the_rest_by_arrival() -> None:
    turns, order, ends = Turns(1), list[str](), asyncio.Semaphore(0)

    async def work(name: str, *, pressed: bool = False) -> None:
        async with turns.turn(pressed=pressed):
            order.append(name)
            await ends.acquire()

    async with asyncio.TaskGroup() as group:
        group.create_task(work("read 1"))
        await settle()
        assert turns.none_free
        for name, pressed in (("read 2", False), ("render 1", True), ("read 3", False), ("render 2", True)):
            group.create_task(work(name, pressed=pressed))
        await settle()
        assert order == ["read 1"]
        for _ in range(5):
            ends.release()
    assert order == ["read 1", "render 1", "render 2", "read 2", "read 3"]
    assert not turns.none_free


async def test_a_turn_is_not_lost_whenever_its_owner_is_cancelled() -> None:
    turns, leave = Turns(1), asyncio.Event()

    async def work() -> None:
        async with turns.turn():
            await leave.wait()

    first = asyncio.create_task(work())
    await settle()
    waiting, given, last = (asyncio.create_task(work()) for _ in range(3))
    await settle()
    waiting.cancel()
    await settle()
    leave.set()
    await asyncio.wait([first])
    given.cancel()  # it has its turn by now, and has not run since
    await asyncio.wait_for(last, 1)
    assert not turns.none_free
