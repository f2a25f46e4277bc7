"""When the screen is at rest, and that nobody waits for a rest that never comes."""

import asyncio

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from firth_tui.calm import calm


class Nested(App[None]):
    """A few widgets below each other."""

    def compose(self) -> ComposeResult:
        with Vertical(), Vertical():
            yield Static("leaf")


async def test_what_was_sent_before_has_been_taken_in_with_all_that_came_of_it() -> None:
    app = Nested()
    async with app.run_test():
        taken: list[int] = []

        def passed_on(hops: int) -> None:
            taken.append(hops)
            if hops:
                (app.screen if hops % 2 else app.query_one(Static)).call_later(passed_on, hops - 1)

        app.call_later(passed_on, 6)
        await calm(app)
        assert taken == [6, 5, 4, 3, 2, 1, 0]


async def test_nobody_waits_until_nothing_comes_any_more() -> None:
    app = Nested()
    async with app.run_test():
        leaf = app.query_one(Static)

        async def slowly() -> None:
            await asyncio.sleep(0)

        async def others() -> None:
            while True:
                while leaf.message_queue_size < 3:
                    leaf.call_later(slowly)
                await asyncio.sleep(0)

        work = asyncio.create_task(others())
        taken = asyncio.Event()
        app.call_later(taken.set)
        async with asyncio.timeout(10):
            await calm(app)
        assert leaf.message_queue_size
        assert taken.is_set()
        work.cancel()
