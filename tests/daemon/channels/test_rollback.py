"""Rolling back: once is enough, however often it is asked for or carried out."""

from pathlib import Path

from firth_protocol.types import RunState
from tests.support.conda import PackageSpec
from tests.support.world import world


async def test_rolling_back_to_what_is_shown_makes_no_generation(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        old = await w.names()
        w.source.add(PackageSpec(name="delta"))
        await w.run()
        for _ in range(2):
            reply = await w.call("channel.rollback", channel="main", generation=2)
            assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED
            channel = await w.call("channel.get", channel="main")
            assert (channel.frozen, channel.generation) == (True, 4)
            assert await w.names() == old


async def test_rolling_back_and_unfreezing_count_what_clients_see(tmp_path: Path) -> None:
    """Two mirrors of one source: the files of the younger one are shadowed, and in no count."""
    async with world(tmp_path) as w:
        for name in ("m", "second"):
            await w.mirror("passive", name)
        await w.run("main:m")
        await w.run("main:second")
        before = (await w.call("channel.generations", channel="main")).items[0]
        for number in range(5):
            w.source.add(PackageSpec(name=f"late{number}"))
        await w.run("main:m")
        await w.run("main:second")
        reply = await w.call("channel.rollback", channel="main", generation=before.number)
        await w.daemon.ended(reply.run.id)
        back = (await w.call("channel.generations", channel="main")).items[0]
        assert (back.added, back.removed) == (0, 5)
        reply = await w.call("channel.unfreeze", channel="main")
        await w.daemon.ended(reply.run.id)
        forth = (await w.call("channel.generations", channel="main")).items[0]
        assert (forth.added, forth.removed) == (5, 0)
        changed = await w.call("channel.changes", channel="main", generation=forth.number)
        assert len(changed.items) == 5
        assert forth.artifacts == sum([len(await w.records(subdir)) for subdir in ("noarch", "linux-64")])
