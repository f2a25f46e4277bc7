"""What nobody asks a passive mirror for leaves the store after some days, and comes again on request."""

from pathlib import Path

import pytest

from firth_protocol.errors import Invalid
from tests.support.daemon import HastyClock
from tests.support.world import World, world

DAY_MS = 86_400_000


def stored(w: World) -> set[str]:
    return {file.name for file in w.daemon.daemon.blobs.root.glob("[0-9a-f][0-9a-f]/*/*")}


async def test_what_nobody_asks_for_is_dropped_and_comes_again(tmp_path: Path) -> None:
    clock = HastyClock()
    async with world(tmp_path, clock=clock) as w:
        records = w.source.records["noarch"]
        used, unused, shared, *_ = records
        digest = {name: record["sha256"] for name, record in records.items()}
        await w.mirror("passive")
        await w.run()
        await w.call("channel.create", name="other")
        await w.mirror("passive", channel="other")
        await w.run("other:m")
        for name in (used, unused, shared):
            assert (await w.get(f"/repo/main/noarch/{name}")).status == 200
        assert (await w.get(f"/repo/other/noarch/{shared}")).status == 200
        clock.shift_ms += 100 * DAY_MS  # so long nobody has counted
        revision = (await w.call("mirror.get", mirror="main:m")).revision
        await w.call("mirror.update", mirror="main:m", revision=revision, drop_unused_days=3, check=False)
        await w.daemon.daemon.upkeep.round()
        assert stored(w) == {digest[used], digest[unused], digest[shared]}

        clock.shift_ms += 2 * DAY_MS
        assert (await w.get(f"/repo/main/noarch/{used}")).status == 200
        await w.daemon.daemon.upkeep.round()
        clock.shift_ms += 2 * DAY_MS
        asked = len(w.upstream.asked(f"noarch/{unused}"))
        await w.daemon.daemon.upkeep.round()
        assert stored(w) == {digest[used], digest[shared]}  # the other channel's goes on having it
        mirror = await w.call("mirror.get", mirror="main:m")
        assert (mirror.stored, mirror.drop_unused_days) == (1, 3)
        assert (await w.call("mirror.get", mirror="other:m")).stored == 1

        reply = await w.get(f"/repo/main/noarch/{unused}")
        assert (reply.status, reply.body) == (200, (w.source.path / "noarch" / unused).read_bytes())
        assert len(w.upstream.asked(f"noarch/{unused}")) == asked + 1
        assert (await w.get(f"/repo/main/noarch/{shared}")).status == 200
        await w.daemon.daemon.upkeep.round()
        assert (await w.call("mirror.get", mirror="main:m")).stored == 3
        assert (await w.call("daemon.status")).health == []

        with pytest.raises(Invalid) as caught:
            await w.mirror("active", name="a", drop_unused_days=3)
        assert caught.value.data["path"] == "$.drop_unused_days"
