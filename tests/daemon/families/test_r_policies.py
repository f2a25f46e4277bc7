"""A policy over R packages: their specs, licences, what comes with R, and what a source does not tell."""

from pathlib import Path

import msgspec
import pytest

from firth_protocol.errors import Invalid
from firth_protocol.types import Rules, RunState
from firthd.families.base import Entry
from firthd.families.r.policing import POLICING
from firthd.families.r.records import ARCHIVED, LISTED, archived_stanza
from firthd.policies.judge import Judge
from tests.support.cran import stanza
from tests.support.r_world import world


def test_facts_of_listed_and_archived_files() -> None:
    listed = POLICING.facts(
        "src/contrib",
        Entry("a_1.0.tar.gz", LISTED, stanza("a", "1.0", License="GPL (>= 2)", Imports="b (>= 1.0), utils")),
    )
    assert (listed.license, listed.platform, listed.filename) == ("GPL (>= 2)", "noarch", "a_1.0.tar.gz")
    assert [need and need.name for need in map(POLICING.dependency, listed.depends)] == ["b", None]
    old = POLICING.facts(
        "src/contrib/Archive",
        Entry("a/a_0.9.tar.gz", ARCHIVED, archived_stanza("a", "0.9", "a/a_0.9.tar.gz", 9, 86400)),
    )
    assert (
        old.indexed,
        POLICING.facts("bin/windows/contrib/4.3", Entry("a.zip", LISTED, stanza("a", "1"))).platform,
    ) == (
        86_400_000,
        "win-64",
    )
    unknown = Judge(msgspec.convert({"licenses": {"in": ["GPL2"]}}, Rules), POLICING)
    assert unknown.alone(listed) is None
    verdict = unknown.alone(old)
    assert verdict is not None
    assert "nobody knows" in verdict.why


def test_a_dependency_that_only_installers_read_is_read() -> None:
    need = POLICING.dependency("b (>=1.0)")
    assert need is not None
    assert (need.name, POLICING.dependency("R (>=3.5)")) == ("b", None)
    with pytest.raises(ValueError):
        POLICING.dependency("b (>= x)")


async def test_dependencies_come_along_in_an_r_channel(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        with pytest.raises(Invalid) as refused:
            await w.call("policy.create", name="p", rules={"packages": {"allow": ["beta 2.* h*"]}})
        assert "families" in refused.value.hint
        await w.call(
            "policy.create",
            name="p",
            families=["r"],
            rules={"packages": {"allow": ["beta >=2"], "include_dependencies": True, "exclude": ["alpha <1.1"]}},
        )
        run = await w.mirror(policy="p")
        assert run.state is RunState.COMPLETED, run
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        reply = await w.get("src/contrib/Archive/alpha/alpha_1.0.tar.gz")
        assert (reply.status, b"excluded by `alpha <1.1`" in reply.body) == (403, True)
        policy = await w.call("policy.get", policy="p")
        edit = await w.call(
            "policy.update", policy="p", revision=policy.revision, rules={"packages": {"allow": ["alpha"]}}
        )
        (again,) = edit.runs
        await w.call("run.wait", run=again.id)
        assert await w.listed() == ["alpha 1.1"]
