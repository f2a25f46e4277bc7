"""What a judgement wants beside an index is brought once, up to a limit, and what was not is told."""

from pathlib import Path

from msgspec.structs import replace

from firth_protocol.types import Filters
from firthd.families.python.family import PYTHON
from firthd.index.messages import ReadParams
from firthd.mirrors.index import FetchedPart, Index
from firthd.mirrors.source import Job
from firthd.mirrors.wanted import WantedParts, with_known
from tests.daemon.mirrors.test_arrivals import JOB, row

GROWS = replace(JOB, filters=Filters(projects=["p0"]), mirrors_own=Filters())
PARAMS = ReadParams(formats="", state_db="", run_file="", channel_id=1, mirror_id=1, spools=[], only=["p0"], grows=True)


def part(number: int) -> FetchedPart:
    return FetchedPart(row=row(number), changed=True)


class Source:
    """Has all parts but one."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str] | None, str]] = []

    async def fetch(self, job: Job, tag: str) -> Index:
        self.asked.append((job.filters.projects, tag))
        names = job.filters.projects or []
        return Index(parts=[part(int(name[1:])) for name in names if name != "p9"], failed=names.count("p9"))


async def test_each_part_is_brought_once_and_not_more_than_there_may_be() -> None:
    source = Source()
    parts = WantedParts(GROWS, PYTHON, Index(parts=[part(0)]), Path("/c"), source.fetch, lambda text: None, most=4)
    assert await parts.bring(["p0", "p2", "p1"])
    assert await parts.bring(["p2", "p9"])
    assert await parts.bring(["p9", "p3", "p4"])  # what failed is asked for by the next run
    assert not await parts.bring(["p9", "p4"])
    assert source.asked == [(["p1", "p2"], "g1"), (["p9"], "g2"), (["p3"], "g3")]
    assert (parts.left, parts.told, parts.index.failed) == (["p4"], "p4", 1)
    params = parts.params(PARAMS)
    assert params.only == ["p0", "p1", "p2", "p3"]
    assert [spool.file for spool in params.spools] == ["/c/f0", "/c/f1", "/c/f2", "/c/f3"]


async def test_nothing_is_brought_for_whoever_asks_no_source_or_has_a_list_of_its_own() -> None:
    source = Source()
    quiet = WantedParts(GROWS, PYTHON, Index(parts=[part(0)]), Path("/c"), None, lambda text: None)
    assert not await quiet.bring([f"p{number}" for number in range(9)])
    assert quiet.told == "p1, p2, p3 and 5 more"
    named = replace(JOB, filters=Filters(projects=["p0"]))
    bound = WantedParts(named, PYTHON, Index(parts=[part(0)]), Path("/c"), source.fetch, lambda text: None)
    assert not await bound.bring(["p1"])
    assert bound.params(PARAMS) is PARAMS
    assert source.asked == []


def test_what_was_brought_before_is_asked_for_with_what_is_allowed() -> None:
    known = {name: row(1) for name in ("p7", "+list", "p0")}
    assert with_known(GROWS, PYTHON, known).filters.projects == ["p0", "p7"]
    assert with_known(JOB, PYTHON, known) is JOB
