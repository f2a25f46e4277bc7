"""Pages of lazy parts: how their rows come to count, and which versions stay."""

from pathlib import Path

import pytest

from firthd.mirrors.read_page import unneeded
from firthd.store import artifacts, generations, pages
from firthd.store.database import Tx
from firthd.store.pages import Fresh
from tests.support.clock import START_MS
from tests.support.state import Shelf, shelf

NOW = START_MS + 1_000_000


@pytest.mark.parametrize(
    ("read_at", "moments", "gone"),
    [
        pytest.param([10], [], [], id="the newest stays"),
        pytest.param([10, 20, 30], [], [10, 20], id="what no moment shows goes"),
        pytest.param([10, 20, 30], [20], [10], id="a moment shows what was read then"),
        pytest.param([10, 20, 30], [29], [10], id="until the next was read"),
        pytest.param([10, 20, 30], [5], [20], id="the first stands for the time before it"),
        pytest.param([10, 20, 30], [30, 40], [10, 20], id="the newest stands for the time after it"),
    ],
)
def test_a_superseded_version_stays_for_a_moment_that_shows_it(
    read_at: list[int], moments: list[int], gone: list[int]
) -> None:
    assert unneeded(read_at, moments) == gone


async def found(s: Shelf, name: str, now: int = NOW) -> bool:
    """Tell whether a client finds a file now."""
    listed = await s.db.read(
        lambda r: pages.find_file(r, s.channel_id, 1, "conda", "noarch", f"{name}.conda", None, now, 0)
    )
    return listed is not None and listed.file is not None


async def opened(s: Shelf, add: list[str], close: list[int]) -> tuple[int, dict[str, int]]:
    """Write the rows of a page that was read, as an open change set."""
    ids = await s.change(add=add, close=close)

    async def body(tx: Tx) -> int:
        change_set = int(await tx.value("SELECT max(id) FROM change_set WHERE state = 'finished'"))
        await tx.execute("UPDATE change_set SET state = 'open' WHERE id = ?", (change_set,))
        return change_set

    return await s.db.write(body), ids


async def some(s: Shelf, change_set: int, now: int) -> int:
    return await s.db.write(
        lambda tx: pages.take_in_some(tx, channel_id=s.channel_id, mirror_id=1, change_set=change_set, now_ms=now)
    )


async def whole(s: Shelf, change_set: int, now: int) -> None:
    await s.db.write(
        lambda tx: pages.take_in(
            tx,
            channel_id=s.channel_id,
            mirror_id=1,
            family="conda",
            part="noarch",
            fresh=Fresh(url_path="noarch/", body=b"x"),
            change_set=change_set,
            now_ms=now,
        )
    )


async def numbers(s: Shelf) -> tuple[int, int]:
    row = await s.db.read(lambda r: r.row("SELECT artifacts, bytes FROM mirror WHERE id = 1"))
    assert row is not None
    return row[0], row[1]


async def test_a_large_page_comes_in_batches_and_is_seen_at_once(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.publish()
        first, ids = await opened(s, ["old-1", "both-1"], [])
        await whole(s, first, START_MS)
        second, _ = await opened(s, [f"new{number}-1" for number in range(1_200)], [ids["old-1"]])
        assert [await some(s, second, START_MS + 1000) for _ in range(2)] == [500, 500]
        assert (await found(s, "old-1"), await found(s, "both-1"), await found(s, "new0-1")) == (True, True, False)
        assert await some(s, second, START_MS + 1000) == 201
        await whole(s, second, START_MS + 1000)
        assert (await found(s, "old-1"), await found(s, "both-1"), await found(s, "new0-1")) == (False, True, True)
        assert await numbers(s) == (1_201, 12_010)


async def test_a_page_that_is_cut_off_is_made_up_for_by_the_next_reading(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.publish()
        first, ids = await opened(s, [f"f{number}-1" for number in range(600)], [])
        await whole(s, first, START_MS)
        # Every file is replaced by another under its name; a crash comes in the middle.
        second, _ = await opened(s, [f"f{number}-1" for number in range(600)], list(ids.values()))
        assert await some(s, second, START_MS + 1000) == 500
        assert await some(s, second, START_MS + 1000) == 500
        await s.db.write(lambda tx: generations.mark_abandoned(tx, second))
        await artifacts.discard(s.db, second)
        assert all([await found(s, f"f{number}-1") for number in (0, 1, 599)])
        live = await s.db.read(lambda r: r.rows("SELECT id FROM artifact WHERE closed_set IS NULL"))
        assert len(live) == 400
        third, _ = await opened(s, [f"g{number}-1" for number in range(3)], [row[0] for row in live])
        await whole(s, third, START_MS + 2000)
        assert not await found(s, "f0-1")
        assert await found(s, "g0-1")
        assert (await numbers(s))[0] == 3
