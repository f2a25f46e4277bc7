"""Whatever the shape of what records need, a closure ends, in bounded time and memory, and tells the truth."""

import random
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

import pytest
import rattler

from firthd.families.base import Entry, Facts
from firthd.families.conda.policing import POLICING
from firthd.families.policing import Policing
from firthd.families.python.policing import POLICING as PYTHON
from firthd.index import solve
from firthd.index.solve import Solver, SolveResult
from firthd.policies.closure import CHAIN_MAX, CUT, Closure, newest
from firthd.policies.shelf import Candidate, Shelf
from firthd.workers import apart
from tests.daemon.policies.records import facts

LINUX, WIN, ANY = "linux-64", "win-64", "noarch"


class Everything:
    """All records by name, whole."""

    def __init__(self, records: Iterable[Facts], policing: Policing = POLICING) -> None:
        self.policing = policing
        self.by_name: dict[str, list[Candidate]] = {}
        for number, one in enumerate(records):
            self.by_name.setdefault(one.name, []).append(Candidate(one, number, one.name, excepted=False))

    def there(self) -> Set[str]:
        return self.by_name.keys()

    def candidates(self, key: str) -> Sequence[Candidate] | None:
        return self.by_name.get(key)

    def depends(self, one: Candidate, platform: str, extra: str) -> Iterable[str]:
        return self.policing.depends(one.facts, platform, extra)

    def whole(self, one: Candidate) -> Facts:
        return one.facts

    def close(
        self, root: str, *, latest: int | None = None, compared_max: int = 10**9, listed_max: int = 10
    ) -> Closure:
        platforms = {one.facts.platform for some in self.by_name.values() for one in some}
        closure = Closure(self.policing, self, platforms, latest, compared_max, listed_max)
        for one in self.by_name[root]:
            one.kept = one.direct = True
        closure.close(self.by_name[root])
        return closure

    @property
    def kept(self) -> set[str]:
        return {one.facts.filename for some in self.by_name.values() for one in some if one.kept}


def version_of(rng: random.Random, endings: Sequence[str]) -> str:
    numbers = ".".join(str(rng.choice((0, 1, 2, 3, 10))) for _ in range(rng.choice((1, 2, 3))))
    return numbers + rng.choice(endings)


def test_bounds_are_what_the_reference_library_says() -> None:
    rng = random.Random(1)
    plain = ("", "", "", "a0", "rc1", "dev0", "a", "b2")
    for _ in range(3000):
        version = version_of(rng, (*plain, ".post1", "_1", ".0a0", "-1", "+1", "x"))
        low, high = version_of(rng, plain), version_of(rng, plain)
        text = f"n {rng.choice(('>=', '>', '<', '<='))}{low}"
        if text[2] == ">" and rng.random() < 0.7:
            text += f"{rng.choice((',', ', '))}{rng.choice(('<', '<='))}{high}"
        shelf = Shelf([Candidate(facts("n", version), 0, "n", excepted=False)], POLICING.order)
        bounds = POLICING.bounds(text)
        assert bounds is not None, text
        span = shelf.span(bounds)
        assert span is not None, text
        record = rattler.PackageRecord(
            name="n", version=version, build=rattler.BuildString("0"), build_number=0, subdir=ANY
        )
        assert shelf.any_in(span, LINUX, ANY) == rattler.MatchSpec(text).matches(record), (text, version)


@pytest.mark.parametrize(
    "text", ["__glibc >=2.17", "n.conda", "n 1.0", "n =1.0", "n >=1.*", "n >=1|<0.5", "c::n", "n[build=x]", "n 1.0 b_0"]
)
def test_what_is_more_than_bounds_is_left_to_the_parser(text: str) -> None:
    assert POLICING.bounds(text) is None


def test_the_newest_of_a_span_are_those_of_all_that_meet_it() -> None:
    rng = random.Random(3)
    versions = ["1.0", "1.0.0", "1.1", "2.0rc1", "2.0", "2.0a1", "3", "3.0", "4dev1", "x_y-z"]
    for _ in range(500):
        some = [
            Candidate(facts("n", rng.choice(versions), part=rng.choice((ANY, LINUX, WIN))), number, "n", excepted=False)
            for number in range(rng.randrange(1, 9))
        ]
        shelf, latest = Shelf(some, POLICING.order), rng.randrange(1, 4)
        text = rng.choice(["n", "n >=1.0", "n <2.0", "n >1.1,<=3", "n >=2.0a1"])
        bounds, need = POLICING.bounds(text), POLICING.dependency(text)
        assert bounds is not None
        assert need is not None
        span = shelf.span(bounds)
        assert span is not None
        met = [one for one in some if one.facts.platform in (LINUX, ANY) and need.matches(one.facts)]
        found, _ = shelf.newest(span, LINUX, ANY, latest, POLICING.prerelease)
        assert {id(one) for one in found} == {id(one) for one in newest(met, latest, POLICING)}
        assert {id(one) for one in shelf.untaken(span, LINUX, ANY)} == {id(one) for one in met}
        assert list(shelf.untaken(span, LINUX, ANY)) == []


def test_a_long_way_is_told_by_its_end_and_a_short_one_is_the_shortest() -> None:
    length = 3000
    records = [facts(f"p{n}", depends=[f"p{n + 1} >=1", "base"]) for n in range(length)]
    known = Everything([*records, facts("base", depends=["lacking"])])
    far, near = known.close("p0").missing(str)
    assert (far.requirement, near.requirement) == ("lacking", f"p{length} >=1")
    assert far.chain == ["p0-1.0-0.conda", "base-1.0-0.conda"]
    assert near.chain[0] == CUT
    assert near.chain[-1] == f"p{length - 1}-1.0-0.conda"
    assert len(near.chain) == CHAIN_MAX + 1


def test_what_is_missing_is_counted_beyond_what_is_listed() -> None:
    records = [facts("app", depends=[f"gone{n}" for n in range(30)], part=LINUX), facts("app", depends=["lost"])]
    closure = Everything(records).close("app")
    missing = closure.missing(str)
    assert len(missing) + closure.unlisted == 31
    assert {one.platform for one in missing} == {LINUX, ANY}
    assert [one.requirement for one in missing if one.platform == LINUX] == [f"gone{n}" for n in range(10)]


@pytest.mark.parametrize("latest", [None, 1])
def test_more_comparisons_than_anyone_waits_for_leave_the_name_to_decide(latest: int | None) -> None:
    builds = [facts("base", f"1.{n}", build=f"h{n}", part=LINUX) for n in range(100)]
    needs = [f"base * h{n}" for n in range(50)]
    exact = Everything([*builds, facts("app", depends=needs, part=LINUX)])
    closure = exact.close("app", latest=latest)
    assert (len(exact.kept), closure.unchecked) == (51, 0)
    bounded = Everything([*builds, facts("app", depends=needs, part=LINUX)])
    closure = bounded.close("app", latest=latest, compared_max=1000)
    assert exact.kept < bounded.kept == {one.filename for one in [*builds, facts("app")]}
    assert closure.unchecked > 0
    assert closure.missing(str) == []


def test_what_only_one_platform_asks_for_and_nothing_meets_is_missing() -> None:
    wheel = facts("app", depends=["gone; sys_platform == 'win32'"], part="app", platform=ANY)
    others = [facts("other", part="other", platform=platform) for platform in (LINUX, WIN)]
    (one,) = Everything([wheel, *others], PYTHON).close("app").missing(str)
    assert one.requirement.startswith("gone")


def test_a_solver_that_finds_no_memory_or_no_end_fails_nobody(tmp_path: Path) -> None:
    params = solve.SolveParams(policing="firthd.families.conda.policing:POLICING", kept="/nowhere", wanted=[])
    assert apart(solve.SOLVE, params, SolveResult, memory_bytes=100 * 1000**2, timeout_s=60) is None
    assert apart(solve.SOLVE, params, SolveResult, memory_bytes=1 << 40, timeout_s=0.01) is None


def test_a_solver_is_not_asked_about_more_than_it_can_bear_and_that_is_told(tmp_path: Path) -> None:
    solver = Solver(tmp_path)
    for number in range(solve.SOLVED_RECORDS + 1):
        solver.keep(LINUX, Entry(f"n-{number}-0.conda", "packages.conda", b"{}"))
    assert list(tmp_path.iterdir()) == []
    assert solver.ask("", [("n", LINUX)], lambda progress: None) == ([], f"{solve.NOT_ASKED}: too much is allowed")
    nowhere = Solver(tmp_path / "gone")
    nowhere.keep(LINUX, Entry("n-1-0.conda", "packages.conda", b"{}"))
    told = nowhere.ask("", [("n", LINUX)], lambda progress: None)
    assert told == ([], f"{solve.NOT_ASKED}: there is no room for it: No such file or directory")
