"""What is remembered of what is published."""

from pathlib import Path

from firth_protocol.types import Privacy
from firthd.channels.published import Published, View
from firthd.store import objects
from tests.support.clock import START_MS, FakeClock
from tests.support.state import sha, shelf


async def test_names_that_are_made_up_push_out_nothing_that_is_there(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.publish()
        row = objects.whole("conda", "noarch/x", sha("x"), 1)
        await s.db.write(lambda tx: objects.show(tx, s.channel_id, 1, [row]))
        published = Published(s.db, FakeClock(), 0)
        view = View(
            channel_id=s.channel_id,
            channel="main",
            privacy=Privacy.PUBLIC,
            generation=1,
            shows=1,
            published_at_ms=START_MS,
        )
        assert await published.object(view, "conda", "noarch/x") is not None
        for number in range(1_100):
            assert await published.object(view, "conda", f"noarch/{number}") is None
        assert (len(published._objects), len(published._absent)) == (1, 1_000)
        published.forget_objects()
        assert (len(published._objects), len(published._absent)) == (0, 0)
