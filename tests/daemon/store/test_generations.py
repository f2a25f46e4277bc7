"""Generations: what each one changed, what is kept, and the package lists of each."""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.methods import ChannelChanges
from firth_protocol.types import Cause, Change
from firthd.channels import browse
from firthd.store import generations, paging, summaries, usage
from firthd.store.artifacts import mirror_totals
from firthd.store.database import Tx
from firthd.store.generations import DRAFT
from firthd.store.summaries import PACKAGE_ORDERS, SummaryRow
from firthd.store.usage import Download
from tests.support.clock import START_MS
from tests.support.state import Shelf, shelf

DAY_MS = 86_400_000


@pytest.fixture
async def s(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as found:
        yield found


@pytest.fixture
async def history(s: Shelf) -> Shelf:
    """Four generations (a 1; b for a 2; c 3; back to 1) and a draft (d)."""
    ids = await s.change(add=["a-1", "z-1"])
    await s.publish(time=START_MS)
    ids |= await s.change(mirror=2, add=["b-1"], close=[ids["a-1"]])
    await s.publish(time=START_MS + DAY_MS)
    ids |= await s.change(add=["c-1"])
    ids |= await s.change(add=["passing-1"])
    await s.change(close=[ids["passing-1"]])
    await s.publish(time=START_MS + 2 * DAY_MS)
    await s.publish(time=START_MS + 3 * DAY_MS, shows=1)
    await s.change(add=["d-1"], close=[ids["z-1"]])
    return s


async def changes(s: Shelf, low: int, high: int, *, limit: int = 100) -> tuple[list[str], list[str]]:
    """Return what entered and what left, each read in pages."""
    found: list[list[str]] = []
    for came in (True, False):
        names: list[str] = []
        after = (0, 0)
        while True:
            page = await s.db.read(
                lambda r, came=came, after=after: generations.changes_page(  # type: ignore[misc]
                    r, s.channel_id, low, high, came=came, after=after, limit=limit
                )
            )
            if not page:
                break
            assert len(page) <= limit
            names += [row.filename.removesuffix(".conda") for row in page]
            after = (page[-1].set_id, page[-1].id)
        found.append(names)
    return found[0], found[1]


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_what_came_and_went_between_two_numbers(history: Shelf, limit: int) -> None:
    for low, high, expected in (
        (0, 1, (["a-1", "z-1"], [])),
        (1, 2, (["b-1"], ["a-1"])),
        (2, 3, (["c-1"], [])),  # what came and went inside is no change
        (0, 3, (["z-1", "b-1", "c-1"], [])),
        (1, 3, (["b-1", "c-1"], ["a-1"])),
        (3, DRAFT, (["d-1"], ["z-1"])),
        (1, DRAFT, (["b-1", "c-1", "d-1"], ["a-1", "z-1"])),
        (3, 3, ([], [])),
    ):
        assert await changes(history, low, high, limit=limit) == expected, (low, high)
        if high != DRAFT:
            counted = await history.db.read(
                lambda r, low=low, high=high: generations.count_changes(r, history.channel_id, low, high)  # type: ignore[misc]
            )
            assert counted == (len(expected[0]), len(expected[1]))


async def counts(s: Shelf, low: int, high: int, draft: tuple[int, ...] = ()) -> tuple[int, int]:
    return await s.db.read(lambda r: generations.count_changes(r, s.channel_id, low, high, draft))


async def test_what_is_counted_is_what_clients_see(s: Shelf) -> None:
    """Files whose name an older mirror owns, or any mirror when they are the channel's own, are in no count."""
    names = [f"p{number}-1" for number in range(61)]
    first = await s.change(mirror=1, add=names)
    await s.change(mirror=2, add=[*names, "own-1"])
    await s.publish()
    assert await counts(s, 0, 1) == (62, 0)
    came, left = await changes(s, 0, 1)
    assert (sorted(came), left) == (sorted([*names, "own-1"]), [])
    # The owner stops offering two names: the next mirror's files appear.
    await s.change(mirror=1, close=[first["p0-1"], first["p1-1"]])
    await s.publish()
    assert await counts(s, 1, 2) == (2, 2)
    assert await counts(s, 0, 2) == (62, 0)
    # What is shadowed comes and goes unseen; the channel's own files come last.
    late = await s.change(mirror=2, add=["p5-2"])
    await s.publish()
    assert await counts(s, 2, 3) == (0, 0)
    await s.change(mirror=2, close=[late["p5-2"]])
    own = await s.change(mirror=0, add=["own-1", "kept-1", "p7-1"])
    await s.publish()
    assert await counts(s, 3, 4) == (1, 0)
    assert own
    drafts = {one.id for one in await s.db.read(lambda r: generations.finished_change_sets(r, s.channel_id))}
    assert not drafts
    await s.change(mirror=1, add=["new-1"], close=[first["p2-1"]])
    draft = tuple(one.id for one in await s.db.read(lambda r: generations.finished_change_sets(r, s.channel_id)))
    assert await counts(s, 4, DRAFT, draft) == (2, 1)
    assert await counts(s, 4, DRAFT) == (0, 0)
    assert await counts(s, 0, DRAFT, draft) == (64, 0)


async def listed(s: Shelf, generation: int | None, limit: int) -> dict[str, list[str]]:
    """Return what `channel.changes` lists, page by page."""
    found: dict[str, list[str]] = {"added": [], "closed": []}
    cursor: str | None = None
    while True:
        asked = ChannelChanges(channel="main", generation=generation, cursor=cursor, limit=limit)
        page = await s.db.read(partial(browse.changes_page, params=asked))
        item: Change
        for item in page.items:
            found[str(item.change)].append(item.filename.removesuffix(".conda"))
        cursor = page.following
        if cursor is None:
            return found
        assert len(page.items) == limit


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_a_rollback_is_told_as_the_way_back(history: Shelf, limit: int) -> None:
    assert await listed(history, 2, limit) == {"added": ["b-1"], "closed": ["a-1"]}
    assert await listed(history, 4, limit) == {"added": ["a-1"], "closed": ["b-1", "c-1"]}
    draft = await listed(history, None, limit)
    assert draft == {"added": ["b-1", "c-1", "d-1"], "closed": ["a-1", "z-1"]}  # the way to the present


async def test_reasons_and_mirrors_stand_beside_each_change(history: Shelf) -> None:
    rows = await history.db.read(
        lambda r: generations.changes_page(r, history.channel_id, 1, 2, came=True, after=(0, 0), limit=9)
    )
    assert [(row.mirror, row.reason, row.came) for row in rows] == [("second", "run", True)]
    rows = await history.db.read(
        lambda r: generations.changes_page(r, history.channel_id, 1, 2, came=False, after=(0, 0), limit=9)
    )
    assert [(row.mirror, row.reason, row.came) for row in rows] == [("first", "gone", False)]


async def test_change_sets_that_made_no_difference_join_the_generation_in_force(history: Shelf) -> None:
    sets = await history.db.read(lambda r: generations.finished_change_sets(r, history.channel_id))
    assert [(one.added, one.closed) for one in sets] == [(1, 1)]
    await history.db.write(lambda tx: generations.join_change_sets(tx, [one.id for one in sets], 4))
    assert await history.db.read(lambda r: generations.finished_change_sets(r, history.channel_id)) == []
    assert await changes(history, 3, 4) == (["d-1"], ["z-1"])


# --- change sets that nobody finishes ---------------------------------------------------------------------------


async def test_unfinished_change_sets_are_abandoned_and_nothing_else(history: Shelf) -> None:
    async def start() -> int:
        return await history.db.write(
            lambda tx: generations.open_change_set(
                tx, channel_id=history.channel_id, mirror_id=1, run_id=None, cause=Cause.RUN, now_ms=0
            )
        )

    first, second = await start(), await start()
    await history.db.write(lambda tx: generations.mark_abandoned(tx, first))
    assert await history.db.read(lambda r: generations.abandoned_change_sets(r, None)) == [first]
    assert await history.db.write(generations.abandon_open) == 1
    assert await history.db.read(lambda r: generations.abandoned_change_sets(r, history.channel_id)) == [first, second]
    assert await history.db.read(lambda r: generations.abandoned_change_sets(r, 99)) == []
    await history.db.write(lambda tx: generations.mark_discarded(tx, first))
    assert await history.db.read(lambda r: generations.abandoned_change_sets(r, None)) == [second]
    assert len(await history.db.read(lambda r: generations.finished_change_sets(r, history.channel_id))) == 1


# --- what is kept -------------------------------------------------------------------------------------------------


async def test_generations_are_found_by_number_by_time_and_by_their_neighbours(history: Shelf) -> None:
    channel, read = history.channel_id, history.db.read
    await history.db.write(lambda tx: generations.drop_generations(tx, channel, [2]))
    newest = await read(lambda r: generations.generations(r, channel, None, 2))
    assert [(one.number, one.shows) for one in newest] == [(4, 1), (3, 3)]
    older = await read(lambda r: generations.generations(r, channel, 3, 10))
    assert [(one.number, one.kept) for one in older] == [(2, False), (1, True)]
    assert await read(lambda r: generations.generation(r, channel, 9)) is None
    near = await read(lambda r: generations.nearest_kept(r, channel, 2))
    assert [one.number for one in near] == [1, 3]
    assert [one.number for one in await read(lambda r: generations.nearest_kept(r, channel, 0))] == [1]
    assert [one.number for one in await read(lambda r: generations.nearest_kept(r, channel, 99))] == [4]
    for moment, kept, expected in (
        (START_MS - 1, False, None),
        (START_MS, True, 1),
        (START_MS + DAY_MS, False, 2),
        (START_MS + DAY_MS, True, 1),
        (START_MS + 9 * DAY_MS, True, 4),
    ):
        found = await read(lambda r, m=moment, k=kept: generations.last_until(r, channel, m, kept=k))  # type: ignore[misc]
        assert (found.number if found else None) == expected
    assert [row[0] for row in await read(lambda r: generations.kept_generations(r, channel))] == [4, 3, 1]


# --- package lists ---------------------------------------------------------------------------------------------


async def summary(
    s: Shelf, number: int, name: str, *, files: int = 1, size: int = 1, family: str = "conda", **more: Any
) -> None:
    await s.db.write(
        lambda tx: tx.execute(
            "INSERT INTO package VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, NULL, '{}')",
            (
                s.channel_id,
                family,
                name,
                number,
                more.get("version", "1.0"),
                files,
                size,
                json.dumps(more.get("platforms", ["noarch"])),
                json.dumps(more.get("depends", [])),
            ),
        )
    )


async def packages(
    s: Shelf, number: int, *, sort: str = "name", limit: int = 3, **filters: Any
) -> tuple[list[SummaryRow], int]:
    """Return a generation's packages read page by page, and the total that each page tells."""
    by = paging.order(sort, PACKAGE_ORDERS)
    found: list[SummaryRow] = []
    totals: set[int] = set()
    cursor = None
    wanted: dict[str, Any] = {"family": None, "query": None, "platform": None, "stored": None} | filters
    while True:
        rows, total = await s.db.read(
            lambda r, cursor=cursor: summaries.packages_page(  # type: ignore[misc]
                r,
                s.channel_id,
                number,
                **wanted,
                descending=by.descending,
                order_sql=by.sql,
                page=paging.decode(cursor, sort, str),
                limit=limit,
            )
        )
        totals.add(total)
        found += [row for row, _ in rows]
        if len(rows) < limit:
            assert len(totals) == 1
            return found, totals.pop()
        last, value = rows[-1]
        cursor = paging.encode(sort, value, f"{last.family}/{last.name}")


async def test_a_package_that_an_earlier_generation_lacks_hides_nothing(s: Shelf) -> None:
    """What says that a package is gone is read like any other summary, at the next render."""
    await summary(s, 2, "late")
    await summaries.show_again(s.db, s.channel_id, 3, 1)
    rows = await s.db.read(lambda r: r.rows("SELECT number, files, hidden FROM package ORDER BY number"))
    assert rows[-1] == (3, 0, "{}")
    assert rows[-1][2] == rows[0][2]


@pytest.mark.parametrize("sort", [sign + name for name in PACKAGE_ORDERS for sign in ("", "-")])
@pytest.mark.parametrize("limit", [1, 3, 4, 50])
async def test_every_package_comes_once_and_in_order(s: Shelf, sort: str, limit: int) -> None:
    for number in range(12):
        await summary(s, 1, f"p{number:02}", files=1 + number % 3, size=number % 2)
    await summary(s, 1, "p03", family="r", files=2)
    fetched = {"p07": 2, "p02": 9, "p01": 2}
    today = [(Download(s.channel_id, "conda", name, 1, "1.0", 0), count) for name, count in fetched.items()]
    await s.db.write(lambda tx: usage.add(tx, today))
    found, total = await packages(s, 1, sort=sort, limit=limit)
    assert total == 13
    assert len({(row.family, row.name) for row in found}) == len(found) == 13
    key: dict[str, Callable[[SummaryRow], object]] = {
        "name": lambda row: row.name,
        "files": lambda row: row.files,
        "bytes": lambda row: row.bytes,
        "downloads": lambda row: fetched.get(row.name, 0),
    }
    column = sort.removeprefix("-")
    keys = [(key[column](row), f"{row.family}/{row.name}") for row in found]
    assert keys == sorted(keys, reverse=sort.startswith("-"))


async def test_a_summary_is_the_newest_one_up_to_a_generation(s: Shelf) -> None:
    await summary(s, 1, "a", version="1")
    await summary(s, 3, "a", version="3")
    await summary(s, 1, "gone")
    await summary(s, 2, "gone", files=0)
    await summary(s, 3, "late", depends=["a"])
    for number, expected in ((0, {}), (1, {"a": "1", "gone": "1.0"}), (2, {"a": "1"}), (9, {"a": "3", "late": "1.0"})):
        found, total = await packages(s, number)
        assert ({row.name: row.version for row in found}, total) == (expected, len(expected))
    one = await s.db.read(lambda r: summaries.package_summary(r, s.channel_id, 2, "conda", "a"))
    assert one is not None
    assert (one.version, one.platforms) == ("1", ["noarch"])
    assert await s.db.read(lambda r: summaries.package_summary(r, s.channel_id, 2, "conda", "gone")) is None
    for number, names in ((2, []), (3, ["late"])):
        found_names = await s.db.read(
            lambda r, n=number: summaries.dependants(r, s.channel_id, n, "conda", "a", 10)  # type: ignore[misc]
        )
        assert found_names == (names, len(names))
    await summaries.drop_unpublished_packages(s.db, s.channel_id, 2)
    assert {row.name for row in (await packages(s, 9))[0]} == {"a"}


async def test_package_lists_are_filtered(s: Shelf) -> None:
    ids = await s.change(add=["numpy-1.0", "scipy-1.0"])
    await s.publish()
    assert ids
    await s.store("numpy-1.0")
    await summary(s, 1, "numpy", platforms=["linux-64", "noarch"], depends=["python"])
    await summary(s, 1, "scipy", platforms=["linux-64-extra"], depends=["python-abi"])
    await summary(s, 1, "numpy", family="python", platforms=["noarch"])
    for filters, expected in (
        ({"query": "NUM"}, ["conda/numpy", "python/numpy"]),
        ({"query": "%"}, []),
        ({"family": "python"}, ["python/numpy"]),
        ({"platform": "linux-64"}, ["conda/numpy"]),
        ({"stored": True}, ["conda/numpy"]),
        ({"stored": False}, ["conda/scipy", "python/numpy"]),
    ):
        found, total = await packages(s, 1, **filters)
        assert sorted(f"{row.family}/{row.name}" for row in found) == expected, filters
        assert total == len(expected)
    names = await s.db.read(lambda r: summaries.dependants(r, s.channel_id, 1, "conda", "python", 10))
    assert names == (["numpy"], 1)


async def test_a_set_that_its_run_could_not_end_is_abandoned_with_it(s: Shelf) -> None:
    kept = await s.change(add=["kept-1"])
    lost = await s.change(add=["lost-1"])

    async def body(tx: Tx) -> list[int]:
        sets = [int(await tx.value("SELECT added_set FROM artifact WHERE id = ?", (row,))) for row in ids]
        for run, (change_set, finished) in enumerate(zip(sets, (None, 5), strict=True), 1):
            await tx.execute(
                "INSERT INTO run (id, kind, state, channel_id, mirror_id, cause, by, created_at, finished_at)"
                " VALUES (?, 'mirror', 'running', ?, 1, '', '', 1, ?)",
                (run, s.channel_id, finished),
            )
            await tx.execute("UPDATE change_set SET state = 'open', run_id = ? WHERE id = ?", (run, change_set))
        return sets

    ids = [kept["kept-1"], lost["lost-1"]]
    _, abandoned = await s.db.write(body)
    assert await s.db.read(lambda r: generations.abandoned_change_sets(r, None)) == [abandoned]
    assert await s.db.read(lambda r: generations.abandoned_change_sets(r, s.channel_id)) == [abandoned]
    totals = await s.db.read(lambda r: mirror_totals(r, s.channel_id, 1))
    assert totals.artifacts == 0
