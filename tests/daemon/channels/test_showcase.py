"""What pages for people are given: packages in any order, page by page, versions, files, needs, days."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firth_protocol.errors import Unavailable
from firth_protocol.types import Family, MirrorType, Privacy
from firthd.channels.needs import Needs
from firthd.channels.published import View
from firthd.channels.showcase import Dependency, Showcase, Wanted
from firthd.families.addresses import PageAt
from firthd.families.conda.family import CONDA
from firthd.families.python.family import PYTHON
from firthd.store.database import Database, Tx
from firthd.store.made_pages import MadePage
from tests.support.clock import START_MS
from tests.support.state import Shelf, add_channel, add_mirror, opened

FAMILIES = {Family.CONDA: CONDA, Family.PYTHON: PYTHON}


class Pages:
    """Pages of lazy parts: project to the file names on it."""

    def __init__(self) -> None:
        self.files: dict[str, list[str]] = {}
        self.asked: list[tuple[str, str]] = []

    async def page(
        self, channel_id: int, family: Family, at: PageAt, as_of_ms: int | None, client: str
    ) -> MadePage | None:
        self.asked.append((at.part, client))
        names = self.files.get(at.part)
        if names is None:
            return None
        body = json.dumps({"files": [{"filename": name} for name in names]}).encode()
        return MadePage(sha256="", size=len(body), body=body)


class Shown:
    """A state with a channel, and what pages read of it."""

    def __init__(self, db: Database, channel_id: int, pages: Pages) -> None:
        self.db, self.channel_id, self.pages = db, channel_id, pages
        self.shelf = Shelf(db, channel_id)
        self.showcase = Showcase(db, FAMILIES, Needs(db, Path, FAMILIES), pages)

    def view(self, number: int, **fields: int) -> View:
        return View(
            channel_id=self.channel_id, channel="main", privacy=Privacy.PUBLIC, generation=number, shows=number,
            published_at_ms=START_MS, **fields,
        )  # fmt: skip

    async def summaries(self, rows: Sequence[tuple[str, str, int, int, int]]) -> None:
        """Write summaries: family, name, number, files, bytes."""

        async def body(tx: Tx) -> None:
            await tx.many(
                "INSERT INTO package(channel_id, family, name, number, version, versions, files, bytes, platforms,"
                " depends, hidden) VALUES (?, ?, ?, ?, '1.' || ?, 1, ?, ?, '[\"noarch\"]', '[]', '{}')",
                [(self.channel_id, family, name, at, at, files, size) for family, name, at, files, size in rows],
            )

        await self.db.write(body)

    async def write(self, sql: str, *params: object) -> None:
        await self.db.write(lambda tx: tx.execute(sql, params))


@asynccontextmanager
async def shown(folder: Path) -> AsyncIterator[Shown]:
    async with opened(folder) as db:
        yield Shown(db, await db.write(add_channel), Pages())


@pytest.mark.parametrize("order", ["name", "updated"])
async def test_pages_in_any_order_hold_each_package_once(tmp_path: Path, order: str) -> None:
    dice = random.Random(order)
    latest: dict[str, tuple[str, int, int, int]] = {}
    rows = []
    for number in range(1, 5):  # most packages change, some go
        for name in (f"p{dice.randrange(140):03}" for _ in range(70)):
            if latest.get(name, ("", 0, 0, 0))[1] != number:
                files = dice.choice([0, 1, 2, 3])
                latest[name] = (name, number, files, files * dice.randrange(50))
                rows.append(("conda", *latest[name]))
    beyond = [("conda", f"p{number:03}", 5, 1, 1) for number in range(140)]  # of a generation that is not looked at
    column = ["name", "updated"].index(order)
    async with shown(tmp_path) as s:
        await s.summaries([*rows, *beyond, ("python", "p001", 1, 1, 1)])
        for descending in (False, True):
            wanted = Wanted(family=Family.CONDA, order=order, descending=descending)
            expected = sorted(
                (row for row in latest.values() if row[2]), key=lambda row: (row[column], row[0]), reverse=descending
            )
            seen = []
            page = await s.showcase.listing(s.view(4), wanted, len(expected))
            starts = []
            while True:
                seen += [(one.name, one.number, one.files, one.bytes) for one in page.packages]
                starts.append(page.packages[0].name)
                if page.after is None:
                    break
                turned = Wanted(family=Family.CONDA, order=order, descending=descending, place=page.after)
                page = await s.showcase.listing(s.view(4), turned, len(expected))
            assert seen == expected
            assert len(starts) > 1
            for start in starts[-2::-1]:
                turned = Wanted(family=Family.CONDA, order=order, descending=descending, place=page.before, back=True)
                page = await s.showcase.listing(s.view(4), turned, len(expected))
                assert page.packages[0].name == start
            assert page.before is None


async def test_a_text_is_found_anywhere_in_a_name_and_means_itself(tmp_path: Path) -> None:
    async with shown(tmp_path) as s:
        await s.summaries([("conda", name, 1, 1, 1) for name in ("r-base", "R_base", "rebase", "50%off", "other")])
        for query, names in (
            ("BASE", ["R_base", "r-base", "rebase"]),
            ("r_b", ["R_base"]),
            ("%", ["50%off"]),
            ("\\", []),
        ):
            found = await s.showcase.listing(s.view(1), Wanted(family=Family.CONDA, query=query), len(names))
            assert [one.name for one in found.packages] == names
            assert await s.showcase.count(s.view(1), [Family.CONDA], query) == {Family.CONDA: len(names)}
        await s.summaries([("python", f"many-{number}", 1, 1, 1) for number in range(1100)])
        assert await s.showcase.count(s.view(1), [Family.PYTHON], "many") == {Family.PYTHON: 1001}
        listing = await s.showcase.listing(s.view(1), Wanted(family=Family.PYTHON, query="many"), 1001)
        assert listing.total is None
        assert await s.showcase.listing(s.view(1), Wanted(family=Family.PYTHON, query="many"), 1001) is listing


async def test_a_search_over_channels_puts_the_exact_name_first(tmp_path: Path) -> None:
    async with shown(tmp_path) as s:
        await s.summaries(
            [("conda", name, 1, 1, 1) for name in ("zlib", "zlib-ng", "numpy")]
            + [("conda", "zlib-gone", 1, 0, 0), ("conda", "zlib-later", 2, 1, 1), ("python", "alpha-one", 1, 1, 1)]
        )
        found = await s.showcase.find([s.view(1)], "Zlib")
        assert [(one.name, one.channel_id) for one in found] == [("zlib", s.channel_id), ("zlib-ng", s.channel_id)]
        assert [one.name for one in await s.showcase.find([s.view(1)], "Alpha.One")] == ["alpha-one"]
        assert await s.showcase.find([], "zlib") == []


async def test_a_package_with_its_versions_files_and_needs(tmp_path: Path) -> None:
    async with shown(tmp_path) as s:
        await s.shelf.change(add=["tides-1.9", "tides-1.10"])
        record = {"name": "tides", "version": "1.10", "build": "0", "build_number": 0}
        record |= {"depends": ["python >=3.9", "Zlib", "gone"], "sha256": "00" * 32, "subdir": "noarch"}
        await s.write("UPDATE artifact_record SET raw = ?", json.dumps(record).encode())
        number = await s.shelf.publish()
        await s.summaries([("conda", "python", number, 1, 1), ("conda", "zlib", number, 1, 1)])
        found = await s.showcase.package(s.view(number), Family.CONDA, "TIDES", None, "")
        assert found is not None
        assert (found.name, found.version, [one.version for one in found.versions]) == (
            "tides",
            "1.10",
            ["1.10", "1.9"],
        )
        assert [(one.filename, one.since) for one in found.files] == [("tides-1.10.conda", START_MS)]
        assert (found.platforms, found.files_of_version) == (["noarch"], 1)
        assert found.depends == [
            Dependency("python >=3.9", "python"), Dependency("Zlib", "zlib"), Dependency("gone", None)
        ]  # fmt: skip
        older = await s.showcase.package(s.view(number), Family.CONDA, "tides", "1.9", "")
        assert older is not None
        assert older.version == "1.9"
        for name, version in (("tides", "7"), ("other", None), ("'; --", None), ("", None)):
            assert await s.showcase.package(s.view(number), Family.CONDA, name, version, "") is None


async def test_a_lazy_part_is_read_for_whoever_looks_and_shows_what_its_page_does(tmp_path: Path) -> None:
    async with shown(tmp_path) as s:
        mirror = await s.db.write(lambda tx: add_mirror(tx, s.channel_id, type=MirrorType.PYTHON))
        about = await s.showcase.channel(s.view(0))
        assert about is not None
        assert [(one.family, one.whole) for one in about.families] == [(Family.PYTHON, (mirror,))]
        await s.shelf.change(mirror=mirror, add=["alpha-1.0", "alpha-2.0"])
        await s.write("UPDATE artifact SET family = 'python', part = 'alpha'")
        s.pages.files = {"alpha": ["alpha-1.0.conda"]}  # the policy in force leaves the other out
        found = await s.showcase.package(s.view(0), Family.PYTHON, "Alpha", None, "10.0.0.7")
        assert found is not None
        assert [one.filename for one in found.files] == ["alpha-1.0.conda"]
        assert found.depends is None
        assert s.pages.asked == [("alpha", "10.0.0.7")]
        assert await s.showcase.package(s.view(0), Family.PYTHON, "beta", None, "") is None
        for part, at in (("alpha", 5), ("alpha", 7), ("beta", 9)):
            await s.write(
                "INSERT INTO page(mirror_id, part, read_at, checked_at, url_path, encoding, size, body)"
                " VALUES (?, ?, ?, 0, '', '', 0, x'00')", mirror, part, at,
            )  # fmt: skip
        read = await s.showcase.read_parts(s.view(0), about.families[0], "", None)
        assert [(one.name, one.read_at) for one in read.parts] == [("alpha", 7), ("beta", 9)]
        earlier = await s.showcase.read_parts(s.view(0, as_of_ms=6), about.families[0], "", None)
        assert [(one.name, one.read_at) for one in earlier.parts] == [("alpha", 5)]


async def test_only_kept_generations_are_days_to_look_at(tmp_path: Path) -> None:
    async with shown(tmp_path) as s:
        for number in range(3):
            await s.shelf.change(add=[f"a-{number}"])
            await s.shelf.publish(time=START_MS + number)
        await s.write("UPDATE generation SET kept = 0 WHERE number = 2")
        assert [one.number for one in await s.showcase.snapshots(s.view(3))] == [3, 1]
        then = await s.showcase.channel(s.view(1), 1)
        assert then is not None


async def test_whoever_would_wait_too_long_is_asked_to_come_again(tmp_path: Path) -> None:
    async with shown(tmp_path) as s:
        hasty = Showcase(s.db, FAMILIES, Needs(s.db, Path, FAMILIES), s.pages, patience_s=0.01)
        async with hasty._mine():
            with pytest.raises(Unavailable):
                await hasty.snapshots(s.view(1))
        asking = [asyncio.create_task(s.showcase.snapshots(s.view(1))) for _ in range(3)]
        asking[1].cancel()
        assert await asking[0] == await asking[2] == []
        assert await s.showcase.snapshots(s.view(1)) == []
