"""What a worker keeps by a policy, name index and early cuts and all, is what py-rattler says of every record."""

import asyncio
from pathlib import Path
from typing import Any

import rattler

from firth_protocol.types import Rules
from firthd.index.messages import JudgementResult
from tests.daemon.policies.records import rules_of
from tests.support.judging import WorkerPath, random_specs, reference, worker_path
from tests.support.records import Records, real_environment, real_records, write_indexes


def test_the_kept_set_is_that_of_the_reference_library(tmp_path: Path) -> None:
    path = worker_path(tmp_path)
    everything = {(subdir, name) for subdir, listed in real_records().items() for name in listed}
    assert path.kept(None) == path.kept(Rules()) == everything
    specs = random_specs(100, seed=1)
    for start in range(0, 100, 20):
        allow, exclude = specs[start : start + 14], specs[start + 14 : start + 20]
        kept = path.kept(rules_of(packages={"allow": allow, "exclude": exclude}))
        assert kept == reference(allow) - reference(exclude), (allow, exclude)
        assert path.result is not None
        assert path.result.judgement is not None
        assert sum(path.result.judgement.counts.values()) == len(everything) - len(kept)


def test_a_closure_over_real_records_needs_nothing_that_is_there(tmp_path: Path) -> None:
    path = worker_path(tmp_path)
    rules = rules_of(
        packages={"allow": ["numpy >=1.20", "pandas", "flask"], "include_dependencies": True},
        platforms={"in": ["linux-64"]},
    )
    kept = path.kept(rules)
    assert {subdir for subdir, _ in kept} == {"linux-64", "noarch"}
    names = {real_records()[subdir][filename]["name"] for subdir, filename in kept}
    assert names >= {"numpy", "pandas", "flask", "python", "libblas", "jinja2", "_libgcc_mutex"}
    assert names.isdisjoint({"requests", "r-base", "vc"})
    assert path.result is not None
    assert path.result.judgement is not None
    for missing in path.result.judgement.missing:
        assert missing.chain
        assert missing.why in {"the source has no such package", "no version that is kept meets it"}


def solved(path: WorkerPath, **packages: Any) -> JudgementResult:
    rules = rules_of(packages={"include_dependencies": True, **packages}, platforms={"in": ["linux-64"]})
    return path.solved(rules)


def test_what_is_cut_from_real_records_solves_and_what_is_excluded_is_told_with_its_chain(tmp_path: Path) -> None:
    path = worker_path(tmp_path)
    allow = ["openssl", "zlib"]
    assert solved(path, allow=allow).unsolvable == []
    found = solved(path, allow=allow, exclude=["ca-certificates"])
    (missing,) = [one for one in found.missing if one.requirement == "ca-certificates"]
    assert missing.why == "what there is is left out by packages: excluded by `ca-certificates`"
    assert [name.partition("-")[0] for name in missing.chain] == ["openssl"]
    (unsolvable,) = found.unsolvable
    assert unsolvable.startswith("openssl on linux-64: ")
    assert "ca-certificates" in unsolvable
    deeper = solved(path, allow=["zlib"], exclude=["_openmp_mutex"])
    (missing,) = [one for one in deeper.missing if one.requirement.startswith("_openmp_mutex")]
    assert [name.partition("-")[0] for name in missing.chain] == ["zlib", "libgcc"]


def test_what_nothing_needs_is_not_looked_at_and_that_changes_nothing(tmp_path: Path) -> None:
    path = worker_path(tmp_path)
    rules = {
        "packages": {"allow": ["pandas", "flask"], "exclude": ["tzdata"], "include_dependencies": True},
        "exceptions": ["requests"],
        "licenses": {"not_in": ["GPL3"], "unknown": "allow"},
        "legacy": False,
        "keep_latest": 3,
    }
    found = []
    for every in ({}, {"min_age": 1}):  # an age is counted of every record: nothing is put off
        kept = path.kept(rules_of(**rules, **every))
        assert path.result is not None
        judgement = path.result.judgement
        assert judgement is not None
        found.append((kept, judgement.missing, judgement.kept, judgement.bytes, sum(judgement.counts.values())))
    assert found[0] == found[1]
    assert found[0][0]


ROOTS = ("python", "numpy", "pandas")


def environment(folder: Path, records: Records) -> list[str]:
    """Return the names that py-rattler's solver makes an environment of, out of these records alone."""
    folder.mkdir()
    for subdir, file in write_indexes(folder, records).items():
        (folder / subdir).mkdir()
        file.rename(folder / subdir / "repodata.json")
    channel = rattler.Channel(folder.as_uri())
    indexes = [rattler.SparseRepoData(channel, part, str(folder / part / "repodata.json")) for part in records]
    virtual = [
        rattler.GenericVirtualPackage(rattler.PackageName(name), rattler.Version(version), rattler.BuildString("0"))
        for name, version in (("__glibc", "2.28"), ("__linux", "5.10"), ("__unix", "0"))
    ]
    solved = rattler.solve_with_sparse_repodata(
        [rattler.MatchSpec(root) for root in ROOTS], indexes, virtual_packages=virtual
    )

    async def names() -> list[str]:
        return [one.name.normalized for one in await solved]

    return asyncio.run(names())


def test_an_environment_cut_by_names_and_dependencies_solves_with_nothing_missing(tmp_path: Path) -> None:
    path = worker_path(tmp_path, real_environment())
    kept = path.kept(rules_of(packages={"allow": list(ROOTS), "include_dependencies": True}))
    assert path.result is not None
    assert path.result.judgement is not None
    assert path.result.judgement.missing == []
    cut = {
        part: {name: one for name, one in listed.items() if (part, name) in kept}
        for part, listed in real_environment().items()
    }
    names = environment(tmp_path / "cut", cut)
    assert {*ROOTS, "libopenblas", "six", "tzdata", "ca-certificates"} <= set(names)
    assert "scipy" not in {one["name"] for listed in cut.values() for one in listed.values()}
    found = path.solved(rules_of(packages={"allow": list(ROOTS), "include_dependencies": True}))
    assert (found.missing, found.unsolvable, found.notes) == ([], [], [])


def test_an_environment_of_which_one_dependency_is_excluded_tells_the_chain(tmp_path: Path) -> None:
    path = worker_path(tmp_path, real_environment())
    found = path.solved(
        rules_of(packages={"allow": list(ROOTS), "include_dependencies": True, "exclude": ["libopenblas"]})
    )
    assert {one.requirement.partition(" ")[0] for one in found.missing} == {"libopenblas"}
    for one in found.missing:
        assert one.why == "what there is is left out by packages: excluded by `libopenblas`"
        assert one.chain[0].startswith(("numpy-", "pandas-"))
        assert one.chain[-1].startswith("libblas-")
    assert [text.partition(" on ")[0] for text in found.unsolvable] == ["numpy", "pandas"]
    assert all("libopenblas" in text for text in found.unsolvable)
