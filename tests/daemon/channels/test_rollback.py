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
