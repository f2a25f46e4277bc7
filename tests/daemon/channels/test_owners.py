"""Which mirror a name belongs to, from its source to clients: by what it offers, not by which files are there."""

from pathlib import Path

import pytest

from firth_protocol.types import RunState
from firthd.store import summaries
from tests.support.conda import PackageSpec, sample_channel
from tests.support.state import shelf
from tests.support.upstream import FaultyUpstream
from tests.support.world import world

pytestmark = pytest.mark.timeout(120)


async def test_mirrors_of_one_source_own_names_together(tmp_path: Path) -> None:
    """Each takes some parts of one source; a third one of another source stays behind both."""
    other = sample_channel(tmp_path / "other")
    other.add(PackageSpec(name="alpha", version="99", subdir="linux-64"), PackageSpec(name="theirs"))
    async with world(tmp_path) as w, FaultyUpstream(folder=other.path) as second:
        w.source.add(PackageSpec(name="alpha", version="7", subdir="linux-64"))
        await w.mirror("passive", "a", filters={"subdirs": ["noarch"]})
        await w.mirror("passive", "z", source=second.url)
        await w.mirror("passive", "b", filters={"subdirs": ["linux-64"]})
        for name in ("a", "z", "b"):
            await w.run(f"main:{name}")
        names = await w.names()
        assert {"alpha-7-0.conda", "theirs-1.0-0.conda"} <= names
        assert "alpha-99-0.conda" not in names
        assert (await w.get("/repo/main/linux-64/alpha-7-0.conda")).status == 200
        assert (await w.get("/repo/main/linux-64/alpha-99-0.conda")).status == 404
        assert "conda/alpha" in (await w.call("mirror.details", mirror="main:z")).shadowed
        assert (await w.call("mirror.details", mirror="main:b")).shadowed == ["conda/gamma"]  # that `a` does not offer
        row = (await w.call("channel.get", channel="main")).families[0]
        assert row.artifacts == len(await w.records("noarch")) + len(await w.records("linux-64"))
        # The same mirror twice: what both have shows, and is counted, once.
        before = (await w.call("channel.generations", channel="main")).items[0]
        await w.mirror("passive", "twin", filters={"subdirs": ["noarch"]})
        assert (await w.run("main:twin")).state is RunState.COMPLETED
        after = (await w.call("channel.generations", channel="main")).items[0]
        assert (after.number, after.digest) == (before.number, before.digest)


async def test_a_name_in_several_parts_is_offered_until_the_last_one_goes(tmp_path: Path) -> None:
    other = sample_channel(tmp_path / "other")
    other.add(PackageSpec(name="both", version="66"))
    async with world(tmp_path) as w, FaultyUpstream(folder=other.path) as second:
        w.source.add(PackageSpec(name="both"), PackageSpec(name="both", subdir="linux-64"))
        await w.mirror("passive")
        await w.mirror("passive", "z", source=second.url)
        await w.run()
        await w.run("main:z")
        w.source.remove("noarch", "both-1.0-0.conda")
        await w.run()
        assert "both-66-0.conda" not in await w.names()
        w.source.remove("linux-64", "both-1.0-0.conda")
        await w.run()
        assert "both-66-0.conda" in await w.names()
        w.source.add(PackageSpec(name="both", version="1.1", subdir="linux-64"))
        await w.run()
        assert "both-66-0.conda" not in await w.names()
        await w.call("mirror.delete", mirror="main:m", confirm="m", packages="remove")
        for run in (await w.call("run.list")).items:
            await w.daemon.ended(run.id)
        assert "both-66-0.conda" in await w.names()
        assert "both-1.1-0.conda" not in await w.names()


async def test_an_index_follows_when_a_mirrors_source_is_no_longer_anothers(tmp_path: Path) -> None:
    other = sample_channel(tmp_path / "other")
    async with world(tmp_path) as w, FaultyUpstream(folder=other.path) as second:
        made = await w.mirror("passive", source=second.url)
        await w.mirror("passive", "z", source=second.url)
        await w.run()
        other.add(PackageSpec(name="alpha", version="100"))
        await w.run("main:z")
        assert "alpha-100-0.conda" in await w.names()
        await w.call("mirror.update", mirror="main:m", revision=made.revision, source=w.upstream.url)
        await w.run()  # it has the same files, and changes nothing but who owns their names
        assert "alpha-100-0.conda" not in await w.names()
        assert (await w.get("/repo/main/noarch/alpha-100-0.conda")).status == 404


async def test_summaries_that_no_kept_generation_shows_go(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:

        async def write(number: int, name: str, files: int = 1) -> None:
            sql = "INSERT INTO package VALUES (?, 'conda', ?, ?, '1', 1, ?, 1, '[]', '[]', NULL, '{}')"
            await s.db.write(lambda tx: tx.execute(sql, (s.channel_id, name, number, files)))

        async def left() -> set[tuple[str, int]]:
            rows = await s.db.read(lambda r: r.rows("SELECT name, number FROM package"))
            return {(row[0], row[1]) for row in rows}

        for name, numbers in {"each": [1, 2, 3, 4, 5, 6], "early": [1], "second": [2, 5]}.items():
            for number in numbers:
                await write(number, name)
        await write(2, "passing")
        await write(4, "passing", files=0)
        await write(1, "gone")
        await write(6, "gone", files=0)
        kept = {(1, "each"), (5, "each"), (6, "each"), (1, "early"), (5, "second"), (1, "gone"), (6, "gone")}
        await summaries.drop_between(s.db, s.channel_id, 1, 5)  # 1 and 5 are kept, 2 to 4 are not
        assert await left() == {(name, number) for number, name in kept}
        await summaries.drop_between(s.db, s.channel_id, 0, 6)
        assert await left() == {("each", 6), ("early", 1), ("second", 5)}
