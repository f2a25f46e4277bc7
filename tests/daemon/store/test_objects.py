"""Served objects: what every kept generation shows, whatever was published, taken back, gone back to and dropped."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firthd.channels.drops import gaps
from firthd.store import object_files, objects
from firthd.store.database import Database, Tx
from firthd.store.objects import ObjectRow
from firthd.store.run_file import RunFile
from tests.support.state import opened, sha

CHANNEL = 1
Shown = dict[str, str]
"""path -> sha256"""


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as found:
        yield found


def row(path: str, text: str, **fields: object) -> ObjectRow:
    values = {"family": "conda", "path": path, "sha256": sha(text), "size": 5, "file": sha(text)}
    return ObjectRow(**(values | fields))  # type: ignore[arg-type]  # the fields are the test's to say


async def shown(db: Database, number: int, paths: list[str]) -> Shown:
    found = {}
    for path in paths:
        one = await db.read(lambda r, path=path: objects.find(r, CHANNEL, number, "conda", path))  # type: ignore[misc]
        if one is not None:
            found[path] = one.sha256
    return found


async def copy_all(db: Database, path: Path, number: int) -> None:
    async with db.attached(path) as schema:
        after: str | None = ""
        while after is not None:
            after = await db.write(
                lambda tx, after=after: objects.copy(tx, schema, CHANNEL, "conda", number, after)  # type: ignore[misc]
            )


async def count(db: Database, where: str = "1") -> int:
    return int(await db.read(lambda r: r.value(f"SELECT count(*) FROM object WHERE {where}")))


PATHS = [f"p{number}" for number in range(12)]


class Channel:
    """A channel's objects beside a plain model of them: one dictionary a generation."""

    def __init__(self, db: Database, folder: Path, seed: int) -> None:
        self.db = db
        self.folder = folder
        self.random = random.Random(seed)
        self.kept: dict[int, Shown] = {0: {}}
        self.number = 0

    async def put(self, number: int, wanted: Shown, start: Shown) -> None:
        path = self.folder / f"run {self.random.random()}"
        with RunFile(str(path)) as file:
            file.start_render()
            file.files((name, sha(text), 5) for name, text in wanted.items() if start.get(name) != text)
            file.ended(name for name in start if name not in wanted)
        await copy_all(self.db, path, number)

    def altered(self, start: Shown) -> Shown:
        wanted = dict(start)
        for path in self.random.sample(PATHS, 4):
            if self.random.random() < 0.3:
                wanted.pop(path, None)
            else:
                wanted[path] = f"{path} {self.random.randrange(3)}"
        return wanted

    async def publish(self, *, crash: bool, earlier: int | None) -> None:
        await objects.take_back(self.db, CHANNEL, self.number, 0)
        start = self.kept[self.number]
        if earlier is not None:
            await objects.show_again(self.db, CHANNEL, self.number + 1, earlier)
            start = self.kept[earlier]
        wanted = self.altered(start) if self.random.random() < 0.7 else start
        await self.put(self.number + 1, wanted, start)
        before = self.kept[self.number]
        different = sum(before.get(path) != wanted.get(path) for path in PATHS)
        assert await self.db.read(lambda r: objects.differences(r, CHANNEL, self.number + 1)) == different
        if not crash:
            self.number += 1
            self.kept[self.number] = wanted

    async def drop(self) -> None:
        dropped = [number for number in self.kept if number != self.number and self.random.random() < 0.3]
        for number in dropped:
            del self.kept[number]
        for low, high in gaps(list(self.kept), dropped):
            await object_files.drop_between(self.db, CHANNEL, low, high, 0)

    async def check(self) -> None:
        for number, wanted in self.kept.items():
            expected = {path: sha(text) for path, text in wanted.items()}
            assert await shown(self.db, number, PATHS) == expected, number


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(3, 12))])
async def test_every_kept_generation_shows_what_it_was_published_with(db: Database, tmp_path: Path, seed: int) -> None:
    channel = Channel(db, tmp_path, seed)
    for _ in range(25):
        back = channel.random.choice(list(channel.kept)) if channel.random.random() < 0.3 else None
        await channel.publish(crash=channel.random.random() < 0.25, earlier=back)
        await channel.check()
        if channel.random.random() < 0.3:
            await channel.drop()
            await channel.check()
    await objects.take_back(db, CHANNEL, channel.number, 0)
    everything = [number for number in range(1, channel.number) if number not in channel.kept]
    for low, high in gaps(list(channel.kept), everything):
        await object_files.drop_between(db, CHANNEL, low, high, 0)
    named = {(path, text) for wanted in channel.kept.values() for path, text in wanted.items()}
    files = await db.read(lambda r: r.rows("SELECT DISTINCT file FROM object"))
    assert {file.hex() for (file,) in files} == {sha(text) for _, text in named}
    assert await count(db, "since > until") == 0


async def test_a_run_file_is_copied_in_short_transactions_and_only_what_differs_is_written(
    db: Database, tmp_path: Path
) -> None:
    many = objects.BATCH * 2 + 10
    with RunFile(str(tmp_path / "run")) as file:
        file.start_render()
        file.files((f"f{number:05}", sha(str(number)), 3) for number in range(many))
        file.packed([("s/x", b"x" * 32, 7, b"p" * 32, 11)])
    with RunFile(str(tmp_path / "later")) as file:
        file.start_render()
        file.files([("f00001", sha("1"), 3), ("f00002", sha("another"), 3)])
        file.ended(["s/x", "was never there"])
    for number, name in ((1, "run"), (2, "later"), (2, "later")):  # twice: what is staged already is left alone
        await copy_all(db, tmp_path / name, number)
    assert await count(db) == many + 2
    assert await count(db, "since = 2") == 1
    assert await count(db, "until = 2") == 2
    found = await db.read(lambda r: objects.find(r, CHANNEL, 1, "conda", "s/x"))
    assert found is not None
    assert (found.lasting, found.offset, found.size, found.file) == (True, 11, 7, (b"p" * 32).hex())
    assert await db.read(lambda r: objects.find(r, CHANNEL, 9, "conda", "s/x")) == found  # whatever the generation


async def test_what_goes_by_its_own_hash_waits_for_the_grace_period(db: Database) -> None:
    for number in range(1, 4):
        path = f"s/{number}"
        await db.write(
            lambda tx, number=number, path=path: objects.show(  # type: ignore[misc]
                tx, CHANNEL, number, [row(path, path, offset=number, file=sha("pack"), lasting=True)]
            )
        )
        await db.write(
            lambda tx, number=number, path=path: tx.execute(  # type: ignore[misc]
                "UPDATE object SET until = ? WHERE path = ?", (number + 1, path)
            )
        )
    assert await object_files.drop_between(db, CHANNEL, 1, 3, 1000) == set()
    assert await count(db) == 3
    assert await object_files.drop_lasting(db, CHANNEL, 999, 5000) == set()
    await object_files.drop_between(db, CHANNEL, 1, 3, 4000)  # its time is that of the first look
    assert await object_files.drop_lasting(db, CHANNEL, 1000, 5000) == {bytes.fromhex(sha("pack"))}
    assert await db.read(lambda r: objects.find(r, CHANNEL, 1, "conda", "s/2")) is None
    assert await count(db) == 2


async def test_a_plain_copy_gives_way_to_its_compressed_twin(db: Database) -> None:
    for number in (1, 2, 3):
        rows = [row(path, f"{path} {number}") for path in ("repodata.json", "repodata.json.zst", "notices.json")]
        await db.write(lambda tx, number=number, rows=rows: objects.show(tx, CHANNEL, number, rows))  # type: ignore[misc]
    assert await object_files.keep_packed_only(db, CHANNEL, 3, 7) == 2
    assert await object_files.keep_packed_only(db, CHANNEL, 3, 7) == 0
    for number in (1, 2, 3):
        found = await db.read(lambda r, number=number: objects.find(r, CHANNEL, number, "conda", "repodata.json"))  # type: ignore[misc]
        assert found is not None
        assert found.sha256 == sha(f"repodata.json {number}")
        plain = number == 3
        assert found.encoding == (None if plain else "zstd")
        assert found.file == sha(f"repodata.json{'' if plain else '.zst'} {number}")
    gone = await db.read(lambda r: object_files.unnamed(r, 7))
    assert set(gone) == {sha("repodata.json 1"), sha("repodata.json 2")}


_OF = "SELECT 1 FROM object WHERE channel_id = 1"
INDEXES = {
    f"{_OF} AND until IS NULL AND since = 5 AND id > 7 ORDER BY id LIMIT 5": "until=? AND since=? AND rowid>?",
    f"{_OF} AND until IS NULL AND since > 5 AND since < 9 ORDER BY since, id LIMIT 5": "until=? AND since>?",
    f"{_OF} AND until = 3 AND since = 2 AND id > 7 ORDER BY id LIMIT 5": "until=? AND since=? AND rowid>?",
    f"{_OF} AND until = 3 AND since > 3 ORDER BY since, id LIMIT 5": "until=? AND since>?",
    f"{_OF} AND until > 3 AND until <= 9 ORDER BY until, since, id LIMIT 5": "until>? AND until<?",
    f"{_OF} AND unnamed_at <= 3 LIMIT 5": "object_unnamed",
    f"{_OF} AND until <= 3 AND encoding IS NULL AND offset IS NULL AND NOT lasting LIMIT 5": "object_plain",
    "SELECT 1 FROM object WHERE file = x'00'": "object_file",
    "SELECT DISTINCT family, name FROM package INDEXED BY package_number WHERE channel_id = 1 AND number > 5"
    " AND number < 9 AND (family, name) > ('', '') ORDER BY family, name LIMIT 5": "package_number",
}


@pytest.mark.parametrize(("sql", "index"), INDEXES.items())
async def test_what_is_asked_has_an_index(db: Database, sql: str, index: str) -> None:
    plan = await db.read(lambda r: r.rows(f"EXPLAIN QUERY PLAN {sql}"))
    assert any(index in str(step) for step in plan), plan
    if " id " in sql:
        assert not any("TEMP B-TREE" in str(step) for step in plan), plan


async def test_what_differs_is_sought_by_its_number(db: Database) -> None:
    sql = f"EXPLAIN QUERY PLAN {objects.DIFFERENT}"
    plan = str(await db.read(lambda r: r.rows(sql, {"channel": 1, "number": 2})))
    assert plan.count("(channel_id=? AND until=?)") == plan.count("(channel_id=? AND until=? AND since=?)") == 1, plan


async def test_rows_are_walked_once_however_many_they_are(db: Database) -> None:
    """Ends and beginnings of many objects at once: no transaction looks at more than a batch."""
    many = objects.BATCH * 3 + 7
    before = [row(f"f{number:05}", f"old {number}", lasting=bool(number % 2)) for number in range(many)]
    after = [row(f"f{number:05}", f"new {number}", lasting=bool(number % 2)) for number in range(many)]
    for number, rows in ((1, before), (2, after)):
        await db.write(lambda tx, number=number, rows=rows: objects.show(tx, CHANNEL, number, rows))  # type: ignore[misc]
    walked: list[int] = []

    async def walk(tx: Tx) -> None:
        place = (0, objects.LAST, objects.LAST)
        while page := await objects.ended(tx, CHANNEL, place, 2):
            assert len(page) <= objects.BATCH
            walked.extend(one[2] for one in page)
            place = (page[-1][0], page[-1][1], page[-1][2])

    await db.write(walk)
    assert len(walked) == len(set(walked)) == many
    await objects.show_again(db, CHANNEL, 3, 1)
    assert await count(db, "until IS NULL AND since = 3") == many
    assert await count(db, "until = 3 AND since = 2") == many
    await object_files.drop_between(db, CHANNEL, 1, 3, 9)  # generation 2 is kept no longer
    assert await count(db, "since = 2") == await count(db, "unnamed_at = 9") == many // 2
    assert await count(db, "since = 1") == await count(db, "since = 3") == many


async def test_what_is_not_published_yet_is_not_found_where_something_is(db: Database) -> None:
    """It may be taken back, and its pack with it, while somebody remembers where it lay."""
    await db.write(
        lambda tx: objects.show(tx, CHANNEL, 1, [row("s/x", "x", file=sha("first"), offset=1, lasting=True)])
    )
    await db.write(lambda tx: tx.execute("UPDATE object SET until = 2"))
    await db.write(lambda tx: objects.show(tx, CHANNEL, 3, [row("s/x", "x", file=sha("next"), offset=2, lasting=True)]))
    for number, file in ((1, "first"), (2, "first"), (3, "next")):
        found = await db.read(lambda r, number=number: objects.find(r, CHANNEL, number, "conda", "s/x"))  # type: ignore[misc]
        assert found is not None
        assert found.file == sha(file), number


async def test_what_is_put_in_force_is_found_by_its_path(db: Database) -> None:
    def staged(where: str) -> str:
        return f"EXPLAIN QUERY PLAN SELECT o.id {objects.SAME_PATH} AND {where}"

    async def plans(tx: Tx) -> str:
        await objects.show(tx, CHANNEL, 1, [row("a", "x")])  # makes the table that is staged in
        key = {"channel": CHANNEL, "number": 1}
        found = [await tx.rows(staged(where), key) for where in ("o.until = :number", "o.until IS NULL")]
        return str([tuple(line) for one in found for line in one])

    told = await db.write(plans)
    assert told.count("object_path") == 2
    assert "object_until" not in told
