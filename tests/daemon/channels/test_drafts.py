"""Drafts that cannot be rendered: what one mirror brought never keeps another's from clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from firth_protocol.types import RunState
from firthd.config import Settings, UpstreamSettings
from firthd.store.database import Tx
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import settings_in
from tests.support.upstream import FaultyUpstream
from tests.support.world import World, world


@asynccontextmanager
async def with_bad(tmp_path: Path, settings: Settings | None = None) -> AsyncIterator[World]:
    """Give a world with the mirror `m`, and the mirror `bad` of another source, whose one file is zeta's."""
    other = ChannelFolder(tmp_path / "other", subdirs=("noarch",))
    other.add(PackageSpec(name="zeta"))
    async with world(tmp_path, settings=settings) as w, FaultyUpstream(folder=other.path) as second:
        await w.mirror("passive")
        await w.mirror("passive", name="bad", source=second.url)
        yield w


async def poison(w: World, mirror: str) -> dict[int, str]:
    """Damage a mirror's rows in the state itself, so that their render dies; return what they were."""

    async def body(tx: Tx) -> dict[int, str]:
        rows = await tx.rows(
            "SELECT a.id, a.version FROM artifact a JOIN mirror m ON m.id = a.mirror_id WHERE m.name = ?", (mirror,)
        )
        await tx.many("UPDATE artifact SET version = CAST(x'ff' AS TEXT) WHERE id = ?", [(row[0],) for row in rows])
        return {int(row[0]): str(row[1]) for row in rows}

    return await w.daemon.daemon.db.write(body)


async def heal(w: World, versions: dict[int, str]) -> None:
    async def body(tx: Tx) -> None:
        await tx.many("UPDATE artifact SET version = ? WHERE id = ?", [(text, row) for row, text in versions.items()])

    await w.daemon.daemon.db.write(body)


async def test_draft_that_cannot_be_rendered_holds_up_nobody_else(tmp_path: Path) -> None:
    async with with_bad(tmp_path) as w:
        await w.call("channel.freeze", channel="main")
        for name in ("m", "bad"):
            assert (await w.run(f"main:{name}")).state is RunState.COMPLETED
        versions = await poison(w, "bad")

        reply = await w.call("channel.unfreeze", channel="main")
        run = await w.daemon.ended(reply.run.id)
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert (run.error.kind, "mirror 'bad'" in run.error.message) == ("worker_lost", True)
        assert "alpha-1.10-0.conda" in await w.names()
        health = (await w.call("daemon.status")).health
        assert any("'bad'" in problem.text for problem in health)

        w.source.add(PackageSpec(name="delta"))
        run = await w.run()
        assert run.state is RunState.COMPLETED
        assert "delta-1.0-0.conda" in await w.names()
        assert (await w.run("main:bad")).state is RunState.FAILED
        assert (await w.run()).state is RunState.COMPLETED

        await heal(w, versions)
        assert (await w.run("main:bad")).state is RunState.COMPLETED
        assert {"delta-1.0-0.conda", "zeta-1.0-0.conda"} <= await w.names()
        assert (await w.call("daemon.status")).health == [], "all that a failed publication owed is there"


async def test_draft_that_takes_more_memory_than_there_is_holds_up_nobody_else(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, upstream=UpstreamSettings(timeout_s=5, max_index_bytes=1_000_000))
    async with with_bad(tmp_path, settings) as w:
        await w.call("channel.freeze", channel="main")
        for name in ("m", "bad"):
            assert (await w.run(f"main:{name}")).state is RunState.COMPLETED

        async def bloat(tx: Tx) -> None:
            await tx.execute(
                "UPDATE artifact_record SET raw = zeroblob(150000000) WHERE artifact_id IN"
                " (SELECT a.id FROM artifact a JOIN mirror m ON m.id = a.mirror_id WHERE m.name = 'bad')"
            )

        await w.daemon.daemon.db.write(bloat)
        run = await w.daemon.ended((await w.call("channel.unfreeze", channel="main")).run.id)
        assert run.error is not None
        assert "mirror 'bad'" in run.error.message
        assert "memory" in run.error.message
        assert "alpha-1.10-0.conda" in await w.names()


async def test_draft_that_cannot_be_rendered_does_not_keep_a_channel_rolled_back(tmp_path: Path) -> None:
    async with with_bad(tmp_path) as w:
        await w.run()
        w.source.add(PackageSpec(name="delta"))
        await w.run()
        await w.daemon.ended((await w.call("channel.rollback", channel="main", generation=2)).run.id)
        await w.run("main:bad")
        await poison(w, "bad")
        run = await w.daemon.ended((await w.call("channel.unfreeze", channel="main")).run.id)
        assert run.error is not None
        assert "mirror 'bad'" in run.error.message
        names = await w.names()
        assert "delta-1.0-0.conda" in names
        assert "zeta-1.0-0.conda" not in names


async def test_worker_that_dies_of_anothers_draft_fails_no_run_of_a_healthy_mirror(tmp_path: Path) -> None:
    """As after a start: nothing is known yet of what cannot be rendered."""
    async with with_bad(tmp_path) as w:
        await w.call("channel.freeze", channel="main")
        await w.run("main:bad")
        await poison(w, "bad")
        run = (await w.call("channel.unfreeze", channel="main")).run
        assert (await w.daemon.ended(run.id)).state is RunState.FAILED
        for number in range(2):
            w.source.add(PackageSpec(name=f"delta{number}"))
            run = await w.run()
            assert run.state is RunState.COMPLETED, run.error
            assert f"delta{number}-1.0-0.conda" in await w.names()
        notes = (await w.call("mirror.details", mirror="main:m")).notes
        assert not notes


async def test_row_of_an_older_state_that_cannot_be_written_is_left_out_and_named(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()

        async def body(tx: Tx) -> None:
            await tx.execute(
                "UPDATE artifact_record SET raw = CAST(replace(CAST(raw AS TEXT), '\"build_number\"',"
                " '\"x\": 1' || ? || ', \"build_number\"') AS BLOB)"
                " WHERE artifact_id IN (SELECT id FROM artifact WHERE filename = 'beta-2.0-0.conda')",
                ("0" * 400,),
            )
            await tx.execute("INSERT INTO setting(key, value) SELECT 'proven above', max(id) FROM artifact")

        await w.daemon.daemon.db.write(body)
        w.source.add(PackageSpec(name="beta", version="3.0"))
        run = await w.run()
        assert run.state is RunState.COMPLETED, run.error
        names = await w.names()
        assert {"alpha-1.10-0.conda", "beta-3.0-0.conda"} <= names
        assert "beta-2.0-0.conda" not in names
        assert any("beta-2.0-0.conda is left out" in note for note in (await w.call("run.get", run=run.id)).notes)


async def test_record_that_was_damaged_since_it_was_read_is_left_out_and_named(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.call("channel.freeze", channel="main")
        await w.run()
        names = set(w.source.records["noarch"]) | set(w.source.records["linux-64"])

        async def body(tx: Tx) -> None:
            await tx.execute(
                "UPDATE artifact_record SET raw = x'7b' WHERE artifact_id ="
                " (SELECT id FROM artifact WHERE filename = 'beta-2.0-0.conda')"
            )

        await w.daemon.daemon.db.write(body)
        run = await w.daemon.ended((await w.call("channel.unfreeze", channel="main")).run.id)
        assert run.state is RunState.COMPLETED, run.error
        assert await w.names() == names - {"beta-2.0-0.conda"}
        assert any("beta-2.0-0.conda is left out" in note for note in run.notes)
