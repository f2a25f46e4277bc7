"""Policies for longer: 2,000 random specs against py-rattler itself, days that pass, names and blocks and own files."""

from pathlib import Path

import pytest

from tests.daemon.policies.records import rules_of
from tests.daemon.test_policies import ALPHA, BETA, DAY_MS, answer, change, ended, make, shown
from tests.support.conda import PackageSpec, sample_channel
from tests.support.daemon import HastyClock
from tests.support.judging import random_specs, reference, worker_path
from tests.support.world import world

pytestmark = [pytest.mark.deep, pytest.mark.timeout(900)]

SPECS = 2000
A_POLICY = 8


def test_two_thousand_specs(tmp_path: Path) -> None:
    path = worker_path(tmp_path)
    specs = random_specs(SPECS, seed=2)
    for start in range(0, SPECS, A_POLICY):
        some = specs[start : start + A_POLICY]
        allow, exclude = some[: A_POLICY // 2], some[A_POLICY // 2 :]
        kept = path.kept(rules_of(packages={"allow": allow, "exclude": exclude}))
        assert kept == reference(allow) - reference(exclude), (allow, exclude)


async def test_age_lets_packages_in_by_themselves(tmp_path: Path) -> None:
    clock = HastyClock()
    async with world(tmp_path, clock=clock) as w:
        await make(w, "cool", min_age=3)
        await w.mirror("passive", policy="cool")
        await w.run()
        assert await shown(w) == {*ALPHA, BETA}  # the first look counts from the build
        w.source.add(PackageSpec(name="fresh"))
        run = await w.run()
        assert (await shown(w), [one.reason for one in run.counts.filtered]) == ({*ALPHA, BETA}, ["min_age"])
        status, told = await answer(w, "fresh-1.0-0.conda")
        assert (status, "min_age: it is too young; it enters on" in told) == (403, True)
        clock.shift_ms += 4 * DAY_MS
        governor = w.daemon.daemon.governance.governor
        before = (await w.call("run.list")).items[0].id
        while clock.now_ms() % DAY_MS < 3_600_000:
            clock.shift_ms += 3_600_000
        await governor.daily()
        await governor.daily()  # once a day is enough
        due = [run for run in (await w.call("run.list")).items if run.id > before]
        for run in due:
            await ended(w, run)
        assert [run.kind for run in due] == ["refilter"]
        assert await shown(w) == {*ALPHA, BETA, "fresh-1.0-0.conda"}
        sights = "SELECT count(*) FROM first_sight"
        assert await w.daemon.daemon.db.read(lambda r: r.value(sights)) == 6
        gone = await w.call("mirror.delete", mirror="main:m", confirm="m", packages="remove")
        await ended(w, gone.run)
        await governor.daily()
        assert await w.daemon.daemon.db.read(lambda r: r.value(sights)) == 0


async def test_what_a_channel_keeps_of_its_own_and_what_a_block_gives_back_is_judged_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await make(w, "no-ten", packages={"exclude": ["alpha ==1.10"]})
        mirror = await w.mirror("passive")
        await w.run()
        blocked = await w.call("package.remove", channel="main", spec="alpha")
        await ended(w, blocked.run)
        reply = await w.call("mirror.update", mirror="main:m", revision=mirror.revision, policy="no-ten")
        await ended(w, reply.run)
        (one, *_) = (await w.call("package.explain", channel="main", spec="alpha 1.10")).items
        assert (one.verdict, one.why) == ("blocked", "blocked by `alpha`")
        back = await w.call("package.restore", channel="main", spec="alpha")
        await ended(w, back.run)
        assert await shown(w) == {"alpha-1.0-0.tar.bz2", "alpha-1.9-0.conda", BETA}

        for name in ("alpha-1.9-0.conda", BETA):
            assert (await answer(w, name))[0] == 200
        gone = await w.call("mirror.delete", mirror="main:m", confirm="m", packages="keep")
        await ended(w, gone.run)
        assert await shown(w) == {"alpha-1.9-0.conda", BETA}
        await make(w, "no-beta", packages={"exclude": ["beta"]})
        again = await w.mirror("passive", name="again", policy="no-beta")
        await w.run("main:again")
        gone = await w.call("mirror.delete", mirror="main:again", confirm="again", packages="keep")
        await ended(w, gone.run)
        assert again.in_force is not None
        assert await shown(w) == {"alpha-1.9-0.conda", BETA}
        for policy, left in (("no-beta", {"alpha-1.9-0.conda"}), (None, {"alpha-1.9-0.conda", BETA})):
            channel = await w.call("channel.get", channel="main")
            reply = await w.call("channel.update", channel="main", revision=channel.revision, policy=policy)
            assert (await answer(w, BETA))[0] == (403 if policy else 200)
            for run in reply.runs:
                await ended(w, run)
            assert await shown(w) == left


async def test_a_name_that_a_policy_gives_up_is_anothers_and_one_that_it_only_drops_is_not(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        other = sample_channel(tmp_path / "other")
        for name in list(other.records["noarch"]):
            other.records["noarch"][name] |= {"sha256": "ab" * 32, "license": "BSD-3-Clause"}
        other.write()
        await make(w, "mine", packages={"exclude": ["alpha"]}, licenses={"in": ["BSD"]})
        await w.mirror("passive", policy="mine")
        await w.mirror("passive", name="second", source=other.path.as_uri(), check=False)
        await w.run()
        await w.run("main:second")
        # beta is the first mirror's although its licence keeps it out; alpha has been given up
        assert await shown(w) == ALPHA
        status, told = await answer(w, BETA)
        assert (status, "licenses: MIT" in told) == (403, True)
        await change(w, "mine", packages={"exclude": ["beta"]}, licenses={"in": ["BSD"]})
        assert await shown(w) == {BETA}


async def test_what_a_deleted_mirror_left_is_judged_by_the_channel(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active")
        await w.run()
        await make(w, "no-beta", packages={"exclude": ["beta"]})
        channel = await w.call("channel.get", channel="main")
        reply = await w.call("channel.update", channel="main", revision=channel.revision, policy="no-beta")
        for run in reply.runs:
            await ended(w, run)
        assert (await answer(w, BETA))[0] == 403
        gone = await w.call("mirror.delete", mirror="main:m", confirm="m", packages="keep")
        await ended(w, gone.run)
        assert await shown(w) == ALPHA
        assert (await answer(w, BETA))[0] == 403
        assert (await w.get(f"/snapshot/2/main/noarch/{BETA}")).status == 403
