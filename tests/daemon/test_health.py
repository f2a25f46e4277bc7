"""What is wrong, and who is told of it."""

from pathlib import Path

from firth_protocol.types import Role
from firthd.access import Caller
from tests.support.upstream import Fault
from tests.support.world import world


async def test_what_is_wrong_is_told_to_those_who_see_the_channel(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        w.upstream.fail("*", Fault(status=500), times=None)
        await w.run()
        status = w.daemon.daemon.health.status
        theirs = await status(Caller(uid=1, pid=1, user="a", role=Role.READER, channels=("main",)))
        others = await status(Caller(uid=2, pid=2, user="b", role=Role.READER, channels=("other",)))
        assert [problem.subject for problem in theirs.health] == ["mirror main:m"]
        assert others.health == []
        facts = await w.daemon.daemon.db.read(
            lambda r: r.rows("SELECT channel FROM event WHERE type = 'health_changed' OR type LIKE '%health%'")
        )
        assert facts == [("main",)]


async def test_what_was_wrong_with_a_mirror_goes_with_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("passive")
        w.upstream.fail("*", Fault(status=500), times=None)
        await w.run()
        health = w.daemon.daemon.health
        await health.forget_gone()
        assert [problem.subject for problem in await health.health()] == ["mirror main:m"]
        mirror = await w.call("mirror.get", mirror=mirror.id)
        await w.call("mirror.update", mirror=mirror.id, revision=mirror.revision, name="renamed")
        await health.forget_gone()
        assert await health.health() == []
