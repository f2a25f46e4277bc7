"""Advisories as OSV writes them: which versions they name, which are one flaw, and what a rule makes of them."""

import os
import random
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol.errors import Invalid, TooLarge
from firth_protocol.types import AdvisoryStatus, CveRule, Family
from firthd.families.conda.policing import POLICING
from firthd.families.python import requirement as python
from firthd.families.r import requirement as r
from firthd.index.advisories import read_task
from firthd.index.messages import AdvisoriesParams
from firthd.policies.advisories import Advisory, Affected, Flaws, Meaning, VersionEvent, in_range, same_flaws
from firthd.policies.osv import Skipped, advisories_of
from tests.daemon.policies.records import facts

V3 = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
V4 = "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"
MODIFIED = "2026-03-01T10:00:00Z"


class Policing:
    """A family's order and names, as far as advisories ask."""

    def __init__(self, family: Family, module: Any) -> None:
        self.family = family
        self.version_key = module.version_key

    def name_key(self, name: str) -> str:
        return name.lower() if self.family is Family.PYTHON else name


PYTHON, R = Policing(Family.PYTHON, python), Policing(Family.R, r)


def osv(**fields: Any) -> bytes:
    return msgspec.json.encode({"id": "PYSEC-2026-1", "modified": MODIFIED} | fields)


def affected(name: str, *events: dict[str, str], versions: list[str] | None = None, kind: str = "ECOSYSTEM") -> Any:
    ecosystem = "CRAN" if name[0].isupper() else "PyPI"
    return {
        "package": {"ecosystem": ecosystem, "name": name},
        "ranges": [{"type": kind, "events": list(events)}] if events else [],
        "versions": versions or [],
    }


def one(document: bytes) -> Advisory:
    found = advisories_of(document, {"PyPI": PYTHON, "CRAN": R})  # type: ignore[dict-item]
    assert isinstance(found, Advisory), found
    return found


RANGES: list[tuple[Any, Any, str, str]] = [
    # whose order, what is affected, versions that are, versions that are not
    (
        PYTHON,
        affected(
            "alpha-lib",
            {"introduced": "0"},
            {"fixed": "1.4.2"},
            {"introduced": "2.0a1"},
            {"fixed": "2.0.1"},
            versions=["1.4.1", "2.0"],
        ),
        "0.1 1.4.1 1.4.2rc1 2.0a1 2.0",
        "1.4.2 1.9 2.0.dev3 2.0.1 1!0.5",
    ),
    (
        R,
        affected("Rbeta", {"introduced": "0.1-3"}, {"fixed": "0.1-9"}, versions=["0.1-3", "0.1-8"]),
        "0.1-3 0.1.3 0.1-8 0.1.8.1",
        "0.1-2 0.1-9 0.1-10 0.2",
    ),
    (PYTHON, affected("gamma-tool", versions=["0.0.1", "0.0.2"]), "0.0.2 0.0.2.0", "0.0.3"),
    (
        PYTHON,
        affected("epsilon", {"introduced": "3.0"}, {"last_affected": "3.2"}),
        "3.0 3.2",
        "2.9 3.0rc1 3.2.1 3.2.post1 3.2+local",
    ),
    (
        PYTHON,
        affected("zeta", {"introduced": "1.0"}, {"limit": "2.0"}, versions=["2004d"]),
        "1.0 1.9 2.0rc1 2004d",
        "0.9 2.0",
    ),
    (PYTHON, affected("eta", {"fixed": "2.0"}, {"introduced": "1.0"}, {"limit": "*"}), "1.0 1.9", "0.9 2.0"),
]


@pytest.mark.parametrize(("policing", "what", "bad", "good"), RANGES)
def test_the_versions_that_an_advisory_names(policing: Any, what: Any, bad: str, good: str) -> None:
    (package,) = one(osv(affected=[what])).affected
    flaws = Meaning(policing)
    name = what["package"]["name"]
    assert [version for version in bad.split() if not flaws.affects(package, facts(name, version))] == []
    assert [version for version in good.split() if flaws.affects(package, facts(name, version))] == []


SCORES: list[tuple[Any, float | None]] = [
    ([{"type": "CVSS_V3", "score": V3}], 9.8),
    ([{"type": "CVSS_V3", "score": f"{V3}/E:P/RL:O/RC:C"}], 9.8),
    ([{"type": "CVSS_V4", "score": V4}], 9.3),
    ([{"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:P/I:P/A:P"}], 7.5),
    ([{"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:P/I:P/A:P"}, {"type": "CVSS_V3", "score": V3}], 9.8),
    ([{"type": "CVSS_V3", "score": "9.8"}], None),
    ([{"type": "CVSS_V3", "score": None}], None),
    ([{"type": "Ubuntu", "score": "high"}], None),
    ([], None),
]


@pytest.mark.parametrize(("severity", "score"), SCORES)
def test_the_score_comes_from_a_vector(severity: Any, score: float | None) -> None:
    assert one(osv(affected=[affected("a", {"introduced": "0"})], severity=severity)).score == score
    inside = affected("a", {"introduced": "0"}) | {"severity": severity}
    assert one(osv(affected=[inside])).score == score


def test_what_counts_for_nothing_is_told() -> None:
    gone = one(osv(affected=[affected("a", {"introduced": "0"})], withdrawn=MODIFIED))
    assert gone.withdrawn
    assert Flaws(PYTHON, CveRule(), [gone]).worst(facts("a")) is None  # type: ignore[arg-type]
    for document in (
        b"{",
        b"[]",
        osv(id="MAL-0000-ghsa-abc", affected=[affected("a", versions=["1"])]),
        osv(affected=[affected("a", {"introduced": "0"}) | {"package": {"ecosystem": "npm", "name": "a"}}]),
        osv(affected=[]),
    ):
        assert isinstance(advisories_of(document, {"PyPI": PYTHON, "CRAN": R}), Skipped)  # type: ignore[dict-item]
    git = affected("a", {"introduced": "0"}, kind="GIT", versions=["1.0"])
    assert one(osv(affected=[git])).affected[0].ranges == []
    odd = affected("a", {"introduced": "0", "fixed": "1"}, versions=["1.0"])
    assert one(osv(affected=[odd])).affected[0].ranges == []


def test_a_malicious_package_counts_as_ten() -> None:
    found = one(osv(id="MAL-2026-1", affected=[affected("a", versions=["1.0"])]))
    assert (found.malicious, found.told_score) == (True, 10.0)


def flaw(id_: str, *, score: float | None = None, aliases: tuple[str, ...] = (), **more: Any) -> Advisory:
    package = Affected(family="conda", name="n", spec="n <2")
    return Advisory(id=id_, score=score, aliases=list(aliases), affected=[package], **more)


def test_aliases_are_one_flaw() -> None:
    chain = [flaw("A", aliases=("CVE-1",)), flaw("B", aliases=("CVE-1", "CVE-2"), score=5.0), flaw("C", score=3.0)]
    other = flaw("D", aliases=("CVE-2",), status=AdvisoryStatus.CLEARED)
    found = same_flaws([*chain, other])
    assert {found["A"], found["B"], found["D"]} == {found["A"]}
    assert (found["A"].score, found["A"].status) == (5.0, AdvisoryStatus.CLEARED)
    assert found["C"].score == 3.0
    by_hand = same_flaws([flaw("A", score=9.0, score_set=2.0), flaw("B", aliases=("A",), score=8.0)])
    assert by_hand["B"].score == 2.0


RULES: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    # the rule, the advisory, whether what it names is kept out
    ({"score": {"op": ">=", "value": 7}}, {"score": 7.0}, True),
    ({"score": {"op": ">=", "value": 7}}, {"score": 6.9}, False),
    ({"score": {"op": ">", "value": 7}}, {"score": 7.0}, False),
    ({"score": {"op": "<", "value": 7}}, {"score": 6.9}, True),
    ({"score": {"op": ">=", "value": 7}}, {"score": None}, True),
    ({"score": {"op": ">=", "value": 7}, "unscored": "allow"}, {"score": None}, False),
    ({"score": {"op": ">=", "value": 7}, "unscored": "allow"}, {"malicious": True}, True),
    ({"score": {"op": ">=", "value": 7}}, {"score": 9.0, "score_set": 1.0}, False),
    ({"statuses": {"not_in": ["cleared"]}}, {"score": 1.0}, True),
    ({"statuses": {"not_in": ["cleared"]}}, {"score": 9.0, "status": AdvisoryStatus.CLEARED}, False),
    ({"unreviewed": "allow", "score": {"op": ">=", "value": 1}}, {"score": 9.0}, False),
    ({"unreviewed": "allow", "score": {"op": ">=", "value": 1}}, {"score": 9.0, "status": AdvisoryStatus.ACTIVE}, True),
]


@pytest.mark.parametrize(("rule", "fields", "out"), RULES)
def test_what_a_rule_counts(rule: dict[str, Any], fields: dict[str, Any], out: bool) -> None:
    flaws = Flaws(POLICING, msgspec.convert(rule, CveRule), [flaw("A", **fields)])
    verdict = flaws.worst(facts("n", "1.0"))
    assert (verdict is not None) is out
    assert flaws.worst(facts("n", "2.0")) is None
    assert verdict is None or (verdict.rule, verdict.why.startswith("A (")) == ("cve", True)


def test_a_range_without_a_beginning_holds_nothing() -> None:
    assert not in_range(r.version_key("1.0"), [VersionEvent(fixed="2.0")], r.version_key)


def test_a_folder_a_zip_and_one_file_are_read(tmp_path: Path) -> None:
    def made(number: int) -> bytes:
        return osv(id=f"PYSEC-{number}", affected=[affected("Alpha", {"introduced": "0"}, {"fixed": f"1.{number}"})])

    folder, packed, single = tmp_path / "osv", tmp_path / "all", tmp_path / "one.json"
    (folder / "deep").mkdir(parents=True)
    (folder / "1.json").write_bytes(made(1))
    (folder / "deep" / "2.json").write_bytes(made(2))
    (folder / "3.json").write_bytes(b"{")
    (folder / "notes.txt").write_bytes(made(4))
    (folder / "link.json").symlink_to(tmp_path / "secret")
    with zipfile.ZipFile(packed, "w") as archive:
        for number in (1, 2):
            archive.writestr(f"CRAN/{number}.json", made(number))
        archive.writestr("../3.json", b"[]")
    single.write_bytes(made(1))
    for place, read, skipped in ((folder, 2, 1), (packed, 2, 1), (single, 1, 0)):
        params = AdvisoriesParams(
            place=str(place),
            own=False,
            policings=["firthd.families.r.policing:POLICING"],
            out=str(tmp_path / "out"),
            max_bytes=10_000,
        )
        found = read_task(params, lambda progress: None)
        assert (found.read, found.skipped) == (read, skipped)
        lines = (tmp_path / "out").read_bytes().splitlines()
        assert [msgspec.json.decode(line)["id"] for line in lines] == [f"PYSEC-{one}" for one in (1, 2)][:read]
        with pytest.raises(TooLarge):
            read_task(msgspec.structs.replace(params, max_bytes=100), lambda progress: None)
    packed.write_bytes(packed.read_bytes()[:200])
    with pytest.raises(Invalid, match="cannot be read"):
        read_task(msgspec.structs.replace(params, place=str(packed)), lambda progress: None)


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damage_within_a_zip_and_what_is_no_file_are_told(tmp_path: Path, packing: int) -> None:
    packed, pipe = tmp_path / "all.zip", tmp_path / "pipe"
    with zipfile.ZipFile(packed, "w", packing) as archive:
        archive.writestr("1.json", osv(summary=random.Random(1).randbytes(3000).hex()))
    content = bytearray(packed.read_bytes())
    content[60:600] = bytes(540)
    packed.write_bytes(content)
    os.mkfifo(pipe)
    for place in (packed, pipe):
        params = AdvisoriesParams(
            place=str(place), own=False, policings=[], out=str(tmp_path / "out"), max_bytes=10_000_000
        )
        with pytest.raises(Invalid, match="cannot be read"):
            read_task(params, lambda progress: None)
