"""A state of the first schema becomes served objects: every kept generation serves the same bytes as before."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firthd.store import objects
from firthd.store.opening import migrate, migrations
from tests.support.state import opened, sha

PLAIN, ZST, SHARDS = "noarch/repodata.json", "noarch/repodata.json.zst", "noarch/repodata_shards.msgpack.zst"
Files = dict[str, tuple[str, int]]
"""path -> (what stands for its bytes, stored)"""

OBJECTS = next(number for number, sql in migrations() if "CREATE TABLE object (" in sql)
KEPT: dict[int, Files] = {  # 3 and 5 are not kept any more
    1: {PLAIN: ("plain 1", 0), ZST: ("zst 1", 1), SHARDS: ("index 1", 1)},
    2: {PLAIN: ("plain 1", 0), ZST: ("zst 1", 1), SHARDS: ("index 1", 1), "linux-64/repodata.json": ("linux 2", 1)},
    4: {PLAIN: ("plain 4", 0), ZST: ("zst 4", 1), SHARDS: ("index 4", 1)},
    6: {PLAIN: ("plain 1", 0), ZST: ("zst 1", 1), SHARDS: ("index 4", 1), "linux-64/repodata.json": ("linux 2", 1)},
    7: {PLAIN: ("plain 1", 1), ZST: ("zst 1", 1), SHARDS: ("index 7", 1), "linux-64/repodata.json": ("linux 7", 1)},
}


def old_state(path: Path) -> None:
    """Write a state of the first schema with a channel that was published seven times, and one that was deleted."""
    with closing(sqlite3.connect(path, isolation_level=None)) as state:
        for number, sql in migrations():
            if number < OBJECTS:
                state.executescript(sql)
                state.execute(f"PRAGMA user_version = {number}")
        for channel, deleted_at in ((1, None), (2, 5)):
            state.execute(
                "INSERT INTO channel(id, name, privacy, generation, created_at, updated_at, deleted_at)"
                " VALUES (?, 'main', 'public', 7, 0, 0, ?)",
                (channel, deleted_at),
            )
            for generation in range(1, 8):
                state.execute(
                    "INSERT INTO generation VALUES (?, ?, ?, 0, 'run', NULL, 0, 0, 0, 0, 0, '', ?)",
                    (channel, generation, generation, int(generation in KEPT)),
                )
                for file, (text, stored) in KEPT.get(generation, {}).items():
                    state.execute(
                        "INSERT INTO published_file VALUES (?, ?, 'conda', ?, ?, ?, ?)",
                        (channel, generation, file, bytes.fromhex(sha(text)), len(text), stored),
                    )
        for name, pack, offset in (("one", "pack 1", 0), ("two", "pack 1", 10), ("three", "pack 2", 0)):
            state.execute(
                "INSERT INTO shard VALUES (1, ?, ?, ?, 10)",
                (bytes.fromhex(sha(name)), bytes.fromhex(sha(pack)), offset),
            )


@pytest.fixture
def old(tmp_path: Path) -> Path:
    old_state(tmp_path / "firth.sqlite")
    return tmp_path


async def test_every_kept_generation_shows_the_same_bytes(old: Path) -> None:
    async with opened(old) as db:
        for number, files in KEPT.items():
            every = {path for some in KEPT.values() for path in some}
            for path in sorted(every):
                found = await db.read(
                    lambda r, number=number, path=path: objects.find(r, 1, number, "conda", path)  # type: ignore[misc]
                )
                if path not in files:
                    assert found is None, (number, path)
                    continue
                assert found is not None, (number, path)
                text, _ = files[path]
                assert (found.sha256, found.size) == (sha(text), len(text))
                packed = path == PLAIN and text == "plain 4"
                again = path == PLAIN and number in (1, 2)  # taken away then, and there again today
                if packed or again:
                    assert (found.encoding, found.file) == ("zstd", sha(text.replace("plain", "zst")))
                else:
                    assert (found.encoding, found.file) == (None, sha(text))
        assert await db.read(lambda r: r.value("SELECT count(*) FROM object WHERE NOT lasting")) == 12
        assert await db.read(lambda r: r.value("SELECT count(*) FROM object WHERE channel_id = 2")) == 0


async def test_shards_are_found_whatever_the_generation(old: Path) -> None:
    async with opened(old) as db:
        for number in (1, 7, 9):
            path = f"shards/{sha('two')}.msgpack.zst"
            found = await db.read(
                lambda r, number=number, path=path: objects.find(r, 1, number, "conda", path)  # type: ignore[misc]
            )
            assert found is not None
            assert (found.sha256, found.file, found.offset, found.size) == (sha("two"), sha("pack 1"), 10, 10)
        packs = await db.read(lambda r: r.rows("SELECT file, size FROM pack ORDER BY size"))
        assert packs == [(bytes.fromhex(sha("pack 2")), 10), (bytes.fromhex(sha("pack 1")), 20)]


async def test_nothing_is_beyond_the_pointer(old: Path) -> None:
    async with opened(old) as db:
        before = await db.read(lambda r: r.rows("SELECT * FROM object ORDER BY id"))
        await objects.take_back(db, 1, 7, 0)
        assert await db.read(lambda r: r.rows("SELECT * FROM object ORDER BY id")) == before


def test_the_copy_is_whole_while_somebody_reads(old: Path) -> None:
    """A read view that is held over a checkpoint keeps it from finishing: the file alone is not the state then."""
    path = old / "firth.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("PRAGMA journal_mode = WAL")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM channel").fetchone()
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("UPDATE channel SET description = 'written last'")
        migrate(path, 1234)
    with closing(sqlite3.connect(old / f"firth.sqlite.schema-{OBJECTS - 1}.1234")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("SELECT DISTINCT description FROM channel").fetchall() == [("written last",)]
        assert copy.execute("SELECT count(*) FROM published_file").fetchone() == (36,)
