"""A policy from its making to what clients see: kept, left out, refused, explained, and changed without a run by hand."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol.errors import Conflict, InUse, Invalid
from firth_protocol.types import RunState
from tests.support.world import World, edit, world


async def ended(w: World, run: Any) -> Any:
    done = await w.daemon.ended(run.id)
    assert done.state is RunState.COMPLETED, done
    return done


async def refusal(w: World, path: str) -> tuple[int, str]:
    reply = await w.get(path)
    return reply.status, msgspec.json.decode(reply.body)["detail"] if reply.status >= 400 else ""


async def test_a_policy_keeps_what_it_allows_and_acts_at_once_when_it_changes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.call("policy.create", name="few", rules={"packages": {"allow": ["alpha"], "exclude": ["alpha 1.9"]}})
        mirror = await w.mirror("passive", policy="few")
        assert (mirror.policy, mirror.in_force.of, mirror.in_force.judges) == ("few", "mirror", True)
        run = await w.run()
        assert run.state is RunState.COMPLETED
        names = await w.names(subdirs=("noarch",))
        print(names, run.counts)
        assert names
        assert all(name.startswith("alpha-") for name in names)
        assert "alpha-1.9-0.conda" not in names
        status, told = await refusal(w, "/repo/main/noarch/alpha-1.9-0.conda")
        assert (status, "policy few" in told, "excluded by `alpha 1.9`" in told) == (403, True, True)
        assert (await w.get("/repo/main/noarch/nothing-1.9-0.conda")).status == 404
        policy = await w.call("policy.get", policy="few")
        reply = await w.call(
            "policy.update", policy="few", revision=policy.revision, rules={"packages": {"allow": ["alpha"]}}
        )
        (run,) = reply.runs
        await ended(w, run)
        assert await w.names(subdirs=("noarch",)) == names | {"alpha-1.9-0.conda"}
        assert (await w.get("/repo/main/noarch/alpha-1.9-0.conda")).status == 200
