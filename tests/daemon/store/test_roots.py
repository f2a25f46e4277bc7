"""What holds a stored file, after a hundred publications: exactly what indexes, drafts, snapshots and grace name."""

import asyncio
import random
from collections.abc import Set
from pathlib import Path

import pytest

from firth_protocol.types import Cause
from firthd.store import artifacts, catalog, generations, pages, roots
from firthd.store.blobs import BlobStore
from firthd.store.database import Tx
from tests.support.clock import START_MS
from tests.support.state import Shelf, add_channel, add_mirror, sha, shelf

DAY_MS = 86_400_000
GRACE_MS = 7 * DAY_MS
NOW = START_MS + 200 * DAY_MS


async def held(s: Shelf, now_ms: int = NOW) -> dict[str, int]:
    found: dict[str, int] = {}
    after = b""
    while page := await s.db.read(lambda r, after=after: roots.page(r, after, now_ms, GRACE_MS)):  # type: ignore[misc]
        found |= {one.sha256.hex(): one.by for one in page}
        after = page[-1].sha256
    return found


async def test_after_a_hundred_runs_what_stays_is_what_roots_name(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    await asyncio.to_thread(store.prepare)
    async with shelf(tmp_path) as s:
        before: dict[str, int] = {}
        for day in range(100):
            before = await s.change(add=[f"moving-{day}"], close=before.values(), gap=10_000)
            await s.publish(time=START_MS + (day + 100) * DAY_MS)
            await s.store(f"moving-{day}")
        await s.change(add=["waiting-1"])
        await s.store("waiting-1")
        await s.store("nobodys-1")
        dropped = [number for number in range(1, 91) if number % 10]
        await s.db.write(lambda tx: generations.drop_generations(tx, s.channel_id, dropped))
        for name in [*(f"moving-{day}" for day in range(100)), "waiting-1", "nobodys-1"]:
            file = store.path(sha(name))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(name.encode())
        found = await held(s)
        kept = {f"moving-{number - 1}" for number in range(1, 101) if number not in dropped}
        graced = {f"moving-{day}" for day in range(100) if 200 - (day + 101) < 7}
        assert set(found.values()) == {
            roots.INDEX,
            roots.DRAFT,
            roots.GRACE,
            roots.SNAPSHOT,
            roots.NOTHING,
        }
        assert found[sha("moving-99")] == roots.INDEX
        assert found[sha("waiting-1")] == roots.DRAFT
        assert found[sha("moving-98")] == roots.GRACE
        assert found[sha("moving-9")] == roots.SNAPSHOT
        free = [bytes.fromhex(sha256) for sha256, by in found.items() if by == roots.NOTHING]
        gone = await s.db.write(lambda tx: roots.let_go(tx, free, NOW, GRACE_MS))
        assert all([await asyncio.to_thread(store.take_away, sha256, NOW * 2) for sha256 in gone])
        there = {file.read_text() for file in (tmp_path / "blobs").glob("??/??/*")}
        assert there == kept | graced | {"moving-99", "waiting-1"}
        assert {row[0].hex() for row in await s.db.read(lambda r: r.rows("SELECT sha256 FROM blob"))} == {
            sha(name) for name in there
        }
        assert await s.db.read(lambda r: r.value("SELECT count(*) FROM delivered")) == len(there)


async def test_what_has_come_to_be_needed_since_the_look_stays(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.store("back-1")
        assert await held(s) == {sha("back-1"): roots.NOTHING}
        await s.change(add=["back-1"])
        gone = await s.db.write(lambda tx: roots.let_go(tx, [bytes.fromhex(sha("back-1"))], NOW, GRACE_MS))
        assert gone == []


async def test_young_files_and_channels_that_are_gone(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.change(add=["shown-1"])
        await s.publish()
        await s.store("shown-1", "young-1")
        assert set((await held(s, START_MS + DAY_MS)).values()) == {roots.INDEX, roots.GRACE}
        await s.db.write(lambda tx: catalog.mark_channel_deleted(tx, s.channel_id, NOW))
        assert set((await held(s)).values()) == {roots.NOTHING}


async def page(s: Shelf, at_ms: int, add: list[str], close: list[int]) -> dict[str, int]:
    """Let a lazy page be read that lists `add` and no longer `close`."""
    ids = await s.change(add=add, close=close)

    async def body(tx: Tx) -> None:
        change_set = int(await tx.value("SELECT max(id) FROM change_set WHERE state = 'finished'"))
        await pages.take_in(
            tx,
            channel_id=s.channel_id,
            mirror_id=1,
            family="conda",
            part="noarch",
            fresh=pages.Fresh(url_path="noarch/", body=b"x"),
            change_set=change_set,
            now_ms=at_ms,
        )

    await s.db.write(body)
    await s.store(*add)
    return ids


async def test_what_an_earlier_version_of_a_lazy_page_lists_stays_as_long_as_the_version(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.publish()
        first = await page(s, START_MS, ["old-1"], [])
        await page(s, START_MS + DAY_MS, ["new-1"], list(first.values()))
        assert await held(s, START_MS + 5 * DAY_MS) == {sha("old-1"): roots.GRACE, sha("new-1"): roots.INDEX}
        assert await held(s) == {sha("old-1"): roots.SNAPSHOT, sha("new-1"): roots.INDEX}
        (snapshot,) = [
            one.snapshot for one in await s.db.read(lambda r: roots.page(r, b"", NOW, GRACE_MS)) if one.snapshot
        ]
        assert snapshot[1] == 1
        await s.publish(time=START_MS + 2 * DAY_MS)  # the page had lost the file by then
        again = [one.snapshot for one in await s.db.read(lambda r: roots.page(r, b"", NOW, GRACE_MS)) if one.snapshot]
        assert again == [snapshot]
        await s.db.write(lambda tx: tx.execute("DELETE FROM page WHERE read_at = ?", (START_MS,)))
        assert await held(s) == {sha("old-1"): roots.NOTHING, sha("new-1"): roots.INDEX}


def test_a_file_that_was_written_again_stays(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    store.prepare()
    file = store.path(sha("x"))
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert not store.take_away(sha("x"), 0)
    assert file.read_bytes() == b"x"
    assert store.take_away(sha("x"), NOW * 2)
    assert not file.exists()
    assert not store.take_away(sha("x"), 0)


async def test_what_a_run_at_work_has_closed_in_a_draft_stays_until_the_run_has_ended(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        ids = await s.change(add=["waiting-1"])
        await s.store("waiting-1")
        for state in ("open", "abandoned"):
            number = await begin(s, list(ids.values()))
            await s.db.write(lambda tx, n=number, st=state: set_state(tx, n, st))  # type: ignore[misc]
            assert await held(s) == {sha("waiting-1"): roots.DRAFT}
            await artifacts.discard(s.db, number)
        number = await begin(s, list(ids.values()))
        await s.db.write(lambda tx: set_state(tx, number, "finished"))
        assert await held(s) == {sha("waiting-1"): roots.NOTHING}
        run = await s.db.write(
            lambda tx: tx.insert(
                "INSERT INTO run(kind, state, channel_id, cause, by, created_at)"
                " VALUES ('mirror', 'running', ?, 'hand', 'uid 0', 0)",
                (s.channel_id,),
            )
        )
        await s.db.write(lambda tx: tx.execute("UPDATE change_set SET run_id = ? WHERE id = ?", (run, number)))
        assert await held(s) == {sha("waiting-1"): roots.DRAFT}, "a stop takes back what its run has finished"


async def begin(s: Shelf, close: list[int]) -> int:
    """Let a run be at work that has closed rows so far; return its change set."""

    async def body(tx: Tx) -> int:
        number = await generations.open_change_set(
            tx, channel_id=s.channel_id, mirror_id=1, run_id=None, cause=Cause.RUN, now_ms=START_MS
        )
        await tx.many(
            "UPDATE artifact SET closed_set = ?, closed_reason = 'gone' WHERE id = ?", [(number, row) for row in close]
        )
        return number

    return await s.db.write(body)


async def set_state(tx: Tx, change_set: int, state: str) -> None:
    await tx.execute("UPDATE change_set SET state = ? WHERE id = ?", (state, change_set))


class Model:
    """What a channel's generations show, kept as sets of rows; it knows nothing of how the state says so."""

    def __init__(self, s: Shelf, mirror: int) -> None:
        self.shelf, self.mirror = s, mirror
        self.names: dict[int, str] = {}  # row -> name-version
        self.live: set[int] = set()  # published, and what is published next begins with it
        self.added: set[int] = set()  # by what waits to be published
        self.closed: set[int] = set()
        self.passed_by: set[int] = set()  # added and closed again before anybody saw it
        self.unseen_at: dict[int, int] = {}  # it has its grace all the same, unless it was let go before
        self.shown: dict[int, set[int]] = {}  # kept generation -> rows
        self.every: dict[int, set[int]] = {}
        self.gone_at: dict[int, int] = {}
        self.deleted = False

    def of(self, rows: set[int]) -> set[str]:
        return {self.names[row] for row in rows}

    def holds(self, now_ms: int, blobs: Set[str]) -> dict[str, int]:
        if self.deleted:
            return {}
        graced = {row for row, at in self.gone_at.items() if at + GRACE_MS > now_ms}
        graced |= {
            row for row, at in self.unseen_at.items() if at + GRACE_MS > now_ms and sha(self.names[row]) in blobs
        }
        snapshots = set().union(*self.shown.values()) if self.shown else set()
        by = ((roots.SNAPSHOT, snapshots), (roots.GRACE, graced), (roots.DRAFT, self.added), (roots.INDEX, self.live))
        return {name: kind for kind, rows in by for name in self.of(rows)}

    async def step(self, chance: random.Random, now_ms: int) -> None:
        what = chance.choice(("change", "change", "publish", "publish", "drop", "roll back", "interrupted", "delete"))
        if self.deleted or (what == "delete" and chance.random() < 0.9):
            return
        if what == "change":
            names = [f"p{number}-{chance.randrange(3)}" for number in chance.sample(range(12), 3)]
            there = sorted(row for row in (self.live - self.closed) | self.added if self.names[row] in names)
            there += chance.sample(sorted(self.added), min(1, len(self.added)))
            ids = await self.shelf.change(
                mirror=self.mirror, add=names, close=set(there), gap=chance.choice((1, 9, 40_000, 65_536, 300_000))
            )
            self.names |= {row: name for name, row in ids.items()}
            self.closed |= set(there) - self.added
            self.passed_by |= set(there) & self.added
            self.added = (self.added - set(there)) | set(ids.values())
            await self.shelf.store(*ids)
        elif what == "publish" and (self.added or self.closed):
            number = await self.shelf.publish(time=now_ms)
            self.gone_at |= dict.fromkeys(self.closed, now_ms)
            self.unseen_at |= dict.fromkeys(self.passed_by, now_ms)
            self.live = (self.live - self.closed) | self.added
            self.added, self.closed, self.passed_by = set(), set(), set()
            self.shown[number] = self.every[number] = set(self.live)
        elif what == "drop" and len(self.shown) > 1:
            numbers = chance.sample(sorted(self.shown)[:-1], 1)
            await self.shelf.db.write(
                lambda tx: generations.drop_generations(tx, self.shelf.channel_id, sorted(numbers))
            )
            self.shown = {number: rows for number, rows in self.shown.items() if number not in numbers}
        elif what == "roll back" and self.shown:
            shows = chance.choice(sorted(self.shown))
            origin = await self.shelf.db.read(lambda r: generations.generation(r, self.shelf.channel_id, shows))
            assert origin is not None
            number = await self.shelf.publish(time=now_ms, shows=origin.shows)
            self.shown[number] = self.every[number] = self.every[shows]
        elif what == "interrupted":
            close = sorted((self.live - self.closed) | self.added)
            number = await begin(self.shelf, chance.sample(close, min(4, len(close))))
            if chance.random() < 0.5:
                await self.shelf.db.write(lambda tx: set_state(tx, number, "abandoned"))
            self.open = number
        elif what == "delete":
            await self.shelf.db.write(lambda tx: catalog.mark_channel_deleted(tx, self.shelf.channel_id, now_ms))
            self.deleted = True

    open: int | None = None

    async def settle(self) -> None:
        """Discard what an interrupted run has left."""
        if self.open is not None:
            await artifacts.discard(self.shelf.db, self.open)
            self.open = None


async def random_life(folder: Path, seed: int, steps: int) -> set[int]:
    """Let two channels change at random; gc has to let go of what a model says. Return every reason seen."""
    chance, seen, now_ms = random.Random(seed), set[int](), START_MS
    async with shelf(folder) as first:
        second = Shelf(first.db, await first.db.write(lambda tx: add_channel(tx, "second")))
        fourth = await first.db.write(lambda tx: add_mirror(tx, second.channel_id, "fourth"))
        models = (Model(first, 1), Model(second, fourth))
        for step in range(steps):
            now_ms += chance.choice((0, DAY_MS, 9 * DAY_MS))
            for model in models:
                await model.step(chance, now_ms)
            look = max(now_ms, START_MS + GRACE_MS + roots.YOUNG_MS)  # none is young
            seen |= await agree(models, look, let_go=chance.random() < 0.4, where=f"seed {seed}, step {step}")
            for model in models:
                await model.settle()
    return seen


async def agree(models: tuple[Model, Model], now_ms: int, *, let_go: bool, where: str) -> set[int]:
    """Compare what the state says of every stored file with the models; return every reason seen."""
    db = models[0].shelf.db
    told: dict[str, int] = {}
    blobs = sorted(row[0].hex() for row in await db.read(lambda r: r.rows("SELECT sha256 FROM blob")))
    for model in models:
        for name, by in model.holds(now_ms, set(blobs)).items():
            told[sha(name)] = min(by, told.get(sha(name), by))
    assert set(told) <= set(blobs), f"{where}: what is held has been let go"
    wanted = dict.fromkeys(blobs, roots.NOTHING) | told
    assert await held(models[0].shelf, now_ms) == wanted, where
    again = await db.read(lambda r: roots.missing_again(r, blobs))
    rows = {row for ids in again.values() for row in ids}
    for model in models:
        if model.open is None and not model.deleted:
            assert rows & set(model.names) == (model.live - model.closed) | model.added, where
    every = sorted({sha(name) for model in models for name in model.names.values()})
    assert await db.read(lambda r: roots.unneeded(r, [*every, sha("never-1")])) == [sha("never-1")], where
    if let_go:
        free = [bytes.fromhex(sha256) for sha256 in blobs]
        gone = await db.write(lambda tx: roots.let_go(tx, free, now_ms, GRACE_MS))
        assert set(gone) == {sha256 for sha256, by in wanted.items() if by == roots.NOTHING}, where
    return set(wanted.values())


async def test_gc_lets_go_of_exactly_what_a_model_says_that_nothing_holds(tmp_path: Path) -> None:
    assert await random_life(tmp_path, 3, 20) == {
        roots.INDEX,
        roots.DRAFT,
        roots.GRACE,
        roots.SNAPSHOT,
        roots.NOTHING,
    }


@pytest.mark.deep
@pytest.mark.timeout(300)
async def test_gc_and_a_model_agree_in_forty_lives(tmp_path: Path) -> None:
    for seed in range(40):
        await random_life(tmp_path / str(seed), seed, 40)
