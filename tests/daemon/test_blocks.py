"""What was taken out of a channel is refused at every address at once, and no run brings it back."""

from pathlib import Path

import msgspec
import pytest

from firth_protocol.errors import Invalid, NotFound
from firth_protocol.types import RunState
from firthd.store.database import Tx
from tests.support.world import World, edit, world

ALPHA = "alpha-1.9-0.conda"


async def statuses(w: World, name: str = ALPHA, numbers: tuple[int, ...] = (2,)) -> set[tuple[int, str]]:
    """Return how a file answers at each of its addresses: status, and what conda shows of it."""
    found = set()
    for root in ("/repo/main", "/api/repo/main", *(f"/snapshot/{number}/main" for number in numbers)):
        reply = await w.get(f"{root}/noarch/{name}")
        told = msgspec.json.decode(reply.body)["detail"] if reply.status >= 400 else ""
        found.add((reply.status, told))
    return found


async def ended(w: World, run: int) -> None:
    assert (await w.daemon.ended(run)).state is RunState.COMPLETED


async def test_a_removed_package_is_refused_at_once_and_stays_away(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        before = await w.names()
        assert await statuses(w) == {(200, "")}
        dry = await w.call("package.remove", channel="main", spec="alpha 1.9", dry_run=True)
        assert (dry.files, dry.run) == ([f"noarch/{ALPHA}"], None)
        assert await statuses(w) == {(200, "")}
        reply = await w.call("package.remove", channel="main", spec="alpha 1.9", note="a bad build")
        assert (reply.total, reply.listed_until_unfrozen) == (1, False)
        refused = (403, f"{ALPHA} is blocked in main by `alpha 1.9`: a bad build")
        assert await statuses(w) == {refused}
        await ended(w, reply.run.id)
        assert before - await w.names() == {ALPHA}
        edit(w.source, "noarch", ALPHA, license="MIT")
        run = await w.run()
        assert run.state is RunState.COMPLETED
        assert before - await w.names() == {ALPHA}
        assert await statuses(w) == {refused}
        (block,) = (await w.call("channel.get", channel="main")).blocks
        assert (block.spec, block.note) == ("alpha 1.9", "a bad build")
        with pytest.raises(NotFound):
            await w.call("package.restore", channel="main", spec="alpha")
        back = await w.call("package.restore", channel="main", spec="alpha 1.9")
        await ended(w, back.run.id)
        assert await w.names() == before
        assert await statuses(w) == {(200, "")}
        assert (await w.call("channel.get", channel="main")).blocks == []
        with pytest.raises(Invalid):
            await w.call("package.remove", channel="main", spec="alpha >>=1")


async def test_a_removal_that_was_cut_off_is_made_up_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        before = await w.names()

        async def cut_off(tx: Tx) -> None:
            change_set = await tx.insert(
                "INSERT INTO change_set(channel_id, cause, state, created_at) VALUES (1, 'removal', 'abandoned', 0)"
            )
            await tx.execute(
                "UPDATE artifact SET closed_set = ?, closed_reason = 'blocked' WHERE filename = ?", (change_set, ALPHA)
            )

        await w.daemon.daemon.db.write(cut_off)
        reply = await w.call("package.remove", channel="main", spec="alpha 1.9")
        await ended(w, reply.run.id)
        await w.daemon.daemon.upkeep.round()
        assert before - await w.names() == {ALPHA}


async def test_an_active_run_does_not_download_what_is_blocked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        mirror = await w.mirror("active")
        reply = await w.call("package.remove", channel="main", spec="alpha 1.9")
        await ended(w, reply.run.id)
        run = await w.run(mirror.id)
        assert (run.state, run.counts.added) == (RunState.COMPLETED, 4)
        assert w.upstream.asked(f"*{ALPHA}") == []
        assert ALPHA not in await w.names()
        assert (await w.call("mirror.get", mirror="main:m")).artifacts == 4


async def test_a_frozen_channel_goes_on_listing_what_it_refuses(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        await w.call("channel.freeze", channel="main")
        reply = await w.call("package.remove", channel="main", spec="alpha 1.9")
        assert reply.listed_until_unfrozen
        assert {status for status, _ in await statuses(w)} == {403}
        await ended(w, reply.run.id)
        assert ALPHA in await w.names()
        unfrozen = await w.call("channel.unfreeze", channel="main")
        await ended(w, unfrozen.run.id)
        assert ALPHA not in await w.names()


async def test_packages_that_go_with_their_mirror_are_refused_until_another_offers_them(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        assert await statuses(w) == {(200, "")}
        reply = await w.call("mirror.delete", mirror="main:m", confirm="m", packages="remove")
        assert await statuses(w) == {(403, f"{ALPHA} was removed from main together with its mirror")}
        await ended(w, reply.run.id)
        assert {status for status, _ in await statuses(w)} == {403}
        assert (await w.get("/repo/main/noarch/never-1-0.conda")).status == 404
        await w.mirror("passive", name="again")
        await w.run("main:again")
        assert await statuses(w) == {(200, "")}
