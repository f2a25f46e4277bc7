"""A source's project list and what hangs on it: quarantine, serials of a channel's own, lists of what is left out."""

import json
import random
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol.types import RunState
from firthd.families.python.names import by_one_spelling, in_one_spelling, normalised, valid_name
from firthd.families.python.page import ListedProject, Named
from firthd.families.python.render import PIECE_MOST, cut, html_pieces, joined_lists, json_pieces
from tests.support.clock import FakeClock
from tests.support.daemon import HastyClock, in_process_daemon
from tests.support.python import JSON, PythonIndex, PythonWorld, python_world, sample_index
from tests.support.upstream import Fault
from tests.support.world import Reply

VALID = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,4}[A-Za-z0-9])?"
FILES = "/repo/main/packages"


async def serials(w: PythonWorld) -> dict[str, int | None]:
    reply = await w.get("/repo/main/simple/", {"Accept": JSON})
    return {one["name"]: one.get("_last-serial") for one in json.loads(reply.body)["projects"]}


@given(st.lists(st.text("aZ0-_.\n é", max_size=5) | st.just("x" * 201) | st.from_regex(VALID, fullmatch=True)))
def test_names_are_spelled_together_as_each_by_itself(names: list[str]) -> None:
    spelled = in_one_spelling(names)
    assert by_one_spelling(names) == {normalised(name): name for name in names}
    if not all(valid_name(name) for name in names):
        assert spelled is None
    else:
        assert spelled == "\n".join(map(normalised, names)).encode()


def test_a_new_name_changes_few_pieces_of_a_long_list() -> None:
    order = sorted(f"project-{number * 7919 % 100_003:06}" for number in range(30_000))
    before = [order[one] for one in cut(order)]
    assert [name for part in before for name in part] == order
    assert 15 <= len(before) <= 30
    assert max(map(len, before)) <= PIECE_MOST
    for name in ("aaa", "project-0500005", "zzz"):
        after = sorted([*order, name])
        pieces = [after[one] for one in cut(after)]
        assert sum(part not in before for part in pieces) <= 3, name


@pytest.mark.parametrize("known", [{}, {"b": 7, "new": 3, "c-c": None}])
def test_lists_are_joined_by_who_counts_a_projects_changes(known: dict[str, int | None]) -> None:
    own = {name: ListedProject(name, serial) for name, serial in known.items()}
    told = [ListedProject("A", 1), ListedProject("b", 2), ListedProject("C.c", 3)]
    mixed = [told[2], told[0], ListedProject("a", 9), told[1]]
    for lists in ([told], [mixed], [told, [ListedProject("b", 5)]], [[ListedProject("b")], told]):
        named = [Named(in_one_spelling([one.name for one in found]) or b"", found) for found in lists]
        order, projects = joined_lists(own, named)
        assert order == sorted({"a", "b", "c-c"} | known.keys())
        shown = {name: (one.name, one.serial) for name, one in zip(order, projects, strict=True)}
        assert shown["a"] == ("A", 1)
        assert shown["b"] == ("b", known.get("b") or 2)
        assert shown["c-c"] == ("C.c", 3)


def test_pieces_make_up_the_list() -> None:
    order = [f"p{number:05}" for number in range(5_000)]
    projects = [ListedProject(name.upper(), number or None) for number, name in enumerate(order)]
    parts = list(cut(order))
    assert len(parts) > 2
    as_json = b"".join(one.make() for one in json_pieces([projects[part] for part in parts]))
    told = [{"name": name.upper(), "_last-serial": number} for number, name in enumerate(order)]
    del told[0]["_last-serial"]
    assert json.loads(as_json) == {"meta": {"api-version": "1.4"}, "projects": told}
    pieces = list(html_pieces([(order[part], projects[part]) for part in parts]))
    page = b"".join(one.make() for one in pieces).decode()
    assert page.count("<br />") == 5_000
    assert '<a href="p04999/">P04999</a>' in page
    later = [ListedProject(one.name, 9) for one in projects]
    again = html_pieces([(order[part], later[part]) for part in parts])
    assert [one.mark for one in again] == [one.mark for one in pieces]  # a serial is not in it


@pytest.mark.deep
async def test_of_a_long_list_is_written_what_has_changed(tmp_path: Path) -> None:
    index = PythonIndex()
    for number in range(20_000):
        name = f"p{number:05}"
        index.projects[name], index.spelled[name], index.serial[name] = [], f"P{number:05}", number + 1
    async with python_world(tmp_path, index) as w:

        async def get(accept: str, at: str = "/repo", **headers: str) -> Reply:
            return await w.get(f"{at}/main/simple/", {"Accept": accept, **headers})

        def written() -> tuple[int, int]:
            with closing(sqlite3.connect(w.daemon.state / "firth.sqlite")) as state:
                newest = "SELECT generation FROM channel WHERE name = 'main'"
                rows = f"SELECT lasting, count(*) FROM object WHERE since = ({newest}) GROUP BY lasting"
                found = dict(state.execute(rows).fetchall())
            return found.get(0, 0), found.get(1, 0)

        await w.python("passive")
        await w.run("main:p")
        first = {accept: await get(accept) for accept in (JSON, "text/html")}
        assert json.loads(first[JSON].body)["projects"][7] == {"name": "P00007", "_last-serial": 8}
        assert written()[1] > 20
        index.serial["p00007"] = 30_000
        await w.run("main:p")
        assert written() == (1, 1)  # the list of the pieces in JSON, and one piece
        assert (await get("text/html")).body == first["text/html"].body
        index.projects["p10000-x"], index.spelled["p10000-x"], index.serial["p10000-x"] = [], "P10000.x", 30_001
        await w.run("main:p")
        assert written()[0] == 2
        assert 2 <= written()[1] <= 6
        for accept in (JSON, "text/html"):
            now = await get(accept)
            assert (now.status, len(now.body)) == (200, int(now.headers["Content-Length"]))
            assert b"P10000.x" in now.body
            assert (await get(accept, "/snapshot/2")).body == first[accept].body
            middle = await get(accept, Range="bytes=100000-300000")
            assert (middle.status, middle.body) == (206, now.body[100_000:300_001])
            assert (await get(accept, **{"If-None-Match": now.headers["ETag"]})).status == 304
            head = await w.get("/repo/main/simple/", {"Accept": accept}, "HEAD")
            assert (head.status, head.headers["Content-Length"]) == (200, str(len(now.body)))
            assert (await get(accept, "/snapshot/2")).headers["ETag"] != now.headers["ETag"]
        ended = (await w.call("channel.rollback", channel="main", generation=2)).run
        await w.daemon.ended(ended.id)
        assert (await get(JSON)).body == first[JSON].body
        ended = (await w.call("channel.unfreeze", channel="main")).run
        await w.daemon.ended(ended.id)
        newest = await get(JSON)
        assert b"P10000.x" in newest.body
        largest = max((tmp_path / "state" / "rendered").rglob("*"), key=lambda file: file.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
        with suppress(aiohttp.ClientError):
            await get(JSON)
        with suppress(aiohttp.ClientError):
            await get("text/html")
        await w.run("main:p")
        assert (await get(JSON)).body == newest.body


@pytest.mark.deep
async def test_the_lists_of_kept_generations_stay_and_the_others_go(tmp_path: Path) -> None:
    index, chance, clock = PythonIndex(), random.Random(7), HastyClock()
    for number in range(20_000):
        name = f"p{number:05}"
        index.projects[name], index.spelled[name], index.serial[name] = [], f"P{number:05}", number + 1
    async with python_world(tmp_path, index, clock=clock) as w:
        shown: dict[int, dict[str, bytes]] = {}

        def used() -> int:
            return sum(file.stat().st_size for file in (w.daemon.state / "rendered").rglob("*") if file.is_file())

        async def get(accept: str, at: str) -> bytes:
            return (await w.get(f"{at}/main/simple/", {"Accept": accept})).body

        async def shows_what_it_showed(newest: int) -> None:
            for number in range(newest - 9, newest + 1):
                for accept, body in shown.get(number, {}).items():
                    assert await get(accept, f"/snapshot/{number}") == body

        await w.python("passive")
        keep = {"days": 0, "months": 0}
        await w.call("channel.update", channel="main", revision=1, keep_generations=keep)
        for serial in range(30_000, 30_025):
            await w.run("main:p")
            newest = (await w.call("channel.get", channel="main")).generation
            shown[newest] = {accept: await get(accept, "/repo") for accept in (JSON, "text/html")}
            await shows_what_it_showed(newest)
            for name in chance.sample(sorted(index.serial), 200):
                index.serial[name] = serial
            for name in chance.sample(sorted(index.serial), 20):
                del index.projects[name], index.spelled[name], index.serial[name]
        before = used()
        for _ in range(3):  # generations, what only they had, and the files of these: each a while after the other
            clock.shift_ms += 8 * 86_400_000
            await w.daemon.daemon.upkeep.round()
        assert used() < before * 0.55  # of 25 generations ten are kept
        await shows_what_it_showed(newest)


async def test_a_project_that_its_list_has_dropped_is_looked_at_by_the_run(tmp_path: Path) -> None:
    """A lazy mirror has read the page once; nobody asks for it again, and its files must not be given any more."""
    async with python_world(tmp_path) as w:
        await w.python("passive")
        await w.run("main:p")
        held = {name: w.index.projects[name][0] for name in ("alpha-one", "beta", "gamma")}
        for name, file in held.items():
            await w.page(name)
            assert (await w.get(f"{FILES}/{name}/{file.filename}")).status == 200
        w.index.unlisted = {"beta", "gamma"}
        w.index.status["beta"] = {"status": "quarantined", "reason": "malware"}
        w.upstream.fail("simple/gamma/", Fault(status=404), times=None)
        w.upstream.requests.clear()
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert {seen.path for seen in w.upstream.asked()} - {"simple/simple/gamma/"} == {
            "simple/",
            "simple/beta/",
            "simple/gamma/",
        }
        refused = await w.get(f"{FILES}/beta/{held['beta'].filename}")
        assert (refused.status, b"malware" in refused.body) == (403, True)
        assert (await w.page("beta"))["files"] == []  # whatever its source goes on listing
        assert await w.page("gamma") == 404
        found = await w.call("package.get", channel="main", family="python", name="alpha-one")
        assert [file.generation for file in found.files] == [None]


@pytest.mark.deep
async def test_a_list_that_drops_a_page_whose_source_is_silent_fails_no_run(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("passive")
        await w.run("main:p")
        await w.page("beta")
        w.index.unlisted = {"beta"}
        w.upstream.fail("simple/beta/", Fault(status=500), times=None)
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("beta")) == 2


@pytest.mark.deep
async def test_a_channels_own_list_counts_what_it_shows(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.python("active")
        await w.run("main:p")
        first = await serials(w)
        assert set(first.values()) == {2}
        w.index.add("beta", "3.0")
        await w.run("main:p")
        second = await serials(w)
        assert second == first | {"beta": 3}
        ended = (await w.call("channel.rollback", channel="main", generation=2)).run
        await w.daemon.ended(ended.id)
        assert await serials(w) == first
        ended = (await w.call("channel.unfreeze", channel="main")).run
        await w.daemon.ended(ended.id)
        assert (await serials(w))["beta"] not in {None, 2}


@pytest.mark.deep
async def test_channels_of_one_source_differ_in_nothing_but_what_they_count(tmp_path: Path) -> None:
    """A serial is the generation that shows a page first: a channel with a history counts further than a new one."""
    async with python_world(tmp_path / "one") as w, in_process_daemon(tmp_path / "two") as second:
        await w.python("active")
        await w.run("main:p")
        for version in ("3.0", "4.0"):
            w.index.add("beta", version)
            await w.run("main:p")
        await second.client.call("channel.create", name="copy")
        fields = {"channel": "copy", "name": "p", "type": "python", "mode": "active", "check": False}
        await second.client.call("mirror.create", source=f"{w.upstream.url}/simple/", **fields)
        assert (await second.run("copy:p")).state is RunState.COMPLETED
        for path in ("", "beta/", "gamma/", "alpha-one/"):
            for accept in (JSON, "text/html"):
                ours = await w.get(f"/repo/main/simple/{path}", {"Accept": accept})
                address = f"{second.url}/repo/copy/simple/{path}"
                async with w.http.get(address, headers={"Accept": accept}) as answer:
                    theirs = await answer.read()
                if path or accept != JSON:
                    assert ours.body == theirs, path
                    continue
                lists = [json.loads(body) for body in (ours.body, theirs)]
                counted = [{one["name"]: one.pop("_last-serial") for one in found["projects"]} for found in lists]
                assert lists[0] == lists[1]
                assert counted == [
                    {"alpha-one": 2, "beta": 4, "gamma": 2},
                    {"alpha-one": 2, "beta": 2, "gamma": 2},
                ]


@pytest.mark.deep
async def test_what_a_policy_leaves_out_is_listed_without_metadata(tmp_path: Path) -> None:
    async with python_world(tmp_path) as w:
        await w.call("policy.create", name="few", rules={"packages": {"exclude": ["beta"]}})
        await w.python("active", policy="few")
        await w.run("main:p")
        page = await w.call("mirror.excluded", mirror="main:p")
        assert (page.total, [one.filename for one in page.items]) == (
            2,
            ["beta-1.0-py3-none-any.whl", "beta-2.0-py3-none-any.whl"],
        )
        refused = await w.get(f"{FILES}/beta/beta-1.0-py3-none-any.whl.metadata")
        assert refused.status == 403


@pytest.mark.deep
async def test_a_page_that_is_read_on_request_says_which_serial_it_is(tmp_path: Path) -> None:
    async with python_world(tmp_path, sample_index(), clock=FakeClock(auto=True)) as w:
        await w.python("passive")
        await w.run("main:p")
        page = await w.page("beta")
        assert page["meta"]["_last-serial"] == w.index.serial["beta"] == (await serials(w))["beta"]
        assert f"<!--SERIAL {w.index.serial['beta']}-->" in await w.page("beta", accept="text/html")


@pytest.mark.deep
async def test_a_lazy_mirror_has_the_digest_of_its_list(tmp_path: Path) -> None:
    async with python_world(tmp_path / "one") as w, in_process_daemon(tmp_path / "two") as second:
        await second.client.call("channel.create", name="copy")
        fields = {"channel": "copy", "name": "p", "type": "python", "mode": "passive", "check": False}
        await second.client.call("mirror.create", source=f"{w.daemon.url}/repo/main/simple/", **fields)
        await w.python("passive")
        digests = []
        for name in ("new", "newer"):
            for run in (await w.run("main:p"), await second.run("copy:p")):
                assert run.state is RunState.COMPLETED, run
            ours, theirs = [
                (await client.call("channel.generations", channel=channel)).items[0].digest
                for client, channel in ((w.daemon.client, "main"), (second.client, "copy"))
            ]
            assert ours == theirs
            digests.append(ours)
            w.index.add(name, "1.0")
            await w.page("beta")  # what clients ask for makes no other content
        assert digests[0] != digests[1]
