"""The workflow of the README by firthctl and curl alone: real processes, their output and their exit status."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from firth_protocol.methods import METHODS
from tests.support.conda import ChannelFolder, PackageSpec, sample_channel
from tests.support.ctl import Done, ctl, ctl_on_a_terminal
from tests.support.daemon import DaemonProcess
from tests.support.upstream import Fault, FaultyUpstream
from tests.support.world import raw_records

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

DONE, ERROR, UNREACHABLE, USAGE, INCOMPLETE = range(5)
FILES = 5  # of the sample channel
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


class Scene:
    """A daemon process, a source, and firthctl with the daemon's socket."""

    def __init__(self, process: DaemonProcess, upstream: FaultyUpstream, source: ChannelFolder, url: str) -> None:
        self.process = process
        self.upstream = upstream
        self.source = source
        self.url = url

    async def ctl(self, *words: str, status: int = DONE) -> Done:
        done = await ctl(*words, socket=self.process.socket)
        assert done.status == status, done
        return done

    async def asks(self, *words: str) -> dict[str, Any]:
        """Return the one reply as JSON."""
        reply: dict[str, Any] = json.loads((await self.ctl(*words)).out)
        return reply

    async def lists(self, *words: str) -> list[dict[str, Any]]:
        """Return a list's items; a pipe gets one JSON object a line."""
        return [json.loads(line) for line in (await self.ctl(*words)).out.splitlines()]

    async def served(self, address: str = "repo/main") -> set[str]:
        """Return the names of all files that clients are offered."""
        names: set[str] = set()
        async with aiohttp.ClientSession() as http:
            for subdir in ("noarch", "linux-64"):
                async with http.get(f"{self.url}/{address}/{subdir}/repodata.json") as reply:
                    names |= set(raw_records(await reply.read())) if reply.status == 200 else set()
        return names

    @property
    def new_mirror(self) -> tuple[str, ...]:
        return ("mirror.create", "channel=main", "name=upstream", "type=conda", f"source={self.upstream.url}")


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    source = sample_channel(folder / "source")
    async with FaultyUpstream(folder=source.path) as upstream, DaemonProcess(folder) as process:
        client = await process.start()
        url = await process.url(client)
        await client.close()  # from here on only what a user has
        yield Scene(process, upstream, source, url)
        assert await process.terminate() == 0


async def test_the_readme_from_an_empty_daemon_to_a_rollback(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        created = await s.asks("channel.create", "main", "description=what we build with")
        assert (created["channel"]["generation"], created["channel"]["description"]) == (1, "what we build with")
        found = await s.asks("mirror.check", "type=conda", f"source={s.upstream.url}")
        assert sorted(found["subdirs"]) == ["linux-64", "noarch"]
        made = await s.ctl(
            *s.new_mirror, 'filters={"subdirs": ["noarch", "linux-64"]}', "schedule=daily", "run_now=true", "--wait"
        )
        assert f"main:upstream  completed: {FILES} added, generation 2" in made.err
        assert json.loads(made.out)["run"]["state"] == "completed"  # as it ended
        assert json.loads(made.out)["mirror"]["schedule"] == "0 0 * * *"
        shown = await s.asks("channel.get", "main")
        assert shown["addresses"]["conda"] == f"{s.url}/repo/main"
        before = await s.served()
        assert len(before) == FILES

        assert (await s.asks("channel.freeze", "main"))["changed"] is True
        assert (await s.asks("channel.freeze", "main"))["changed"] is False
        s.source.add(PackageSpec(name="delta"))
        s.source.remove("noarch", "alpha-1.9-0.conda")
        ran = await s.ctl("mirror.run", "main:upstream", "--wait")
        assert "completed: 1 added, 1 removed" in ran.err
        changes = await s.lists("channel.changes", "main")
        assert {(change["change"], change["filename"]) for change in changes} == {
            ("added", "delta-1.0-0.conda"),
            ("closed", "alpha-1.9-0.conda"),
        }
        assert (await s.asks("channel.get", "main"))["draft"] == {"change_sets": 1, "added": 1, "removed": 1}
        assert await s.served() == before

        thawed = await s.ctl("channel.unfreeze", "main", "--wait")
        assert "completed" in thawed.err
        assert "generation 3" in thawed.err
        after = before - {"alpha-1.9-0.conda"} | {"delta-1.0-0.conda"}
        assert await s.served() == after
        packages = await s.lists("package.list", "main")
        assert {package["name"]: package["versions"] for package in packages} == {
            "alpha": 2,
            "beta": 1,
            "delta": 1,
            "gamma": 1,
        }
        generations = await s.lists("channel.generations", "main")
        assert [(one["number"], one["cause"]) for one in generations] == [(3, "unfreeze"), (2, "run"), (1, "create")]

        back = await s.ctl("channel.rollback", "main", "generation=1", "--wait")
        assert "completed" in back.err
        assert await s.served() == set()
        assert (await s.asks("channel.get", "main"))["frozen"] is True
        assert await s.served("snapshot/2/main") == before
        await s.ctl("channel.unfreeze", "main", "--wait")
        assert await s.served() == after
        audit = await s.lists("audit.list")
        assert audit[0]["method"] == "channel.unfreeze"
        assert {entry["method"] for entry in audit} == {
            "channel.create",
            "mirror.create",
            "channel.freeze",
            "mirror.run",
            "channel.unfreeze",
            "channel.rollback",
        }


async def test_wait_tells_the_steps_on_stderr(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.ctl("channel.create", "main")
        await s.ctl(*s.new_mirror, "mode=active")
        index, file = asyncio.Event(), asyncio.Event()
        s.upstream.fail("noarch/repodata.json.zst", Fault(until=index), times=None)
        s.upstream.fail("noarch/beta*", Fault(until=file))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "firth_protocol.ctl", "--socket", str(s.process.socket), "mirror.run", "main:upstream", "--wait"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        err = process.stderr
        assert err is not None

        async def told(step: str) -> str:
            """Return the line that tells a step; the lines come one for each step that takes its time."""
            async with asyncio.timeout(30):
                while line := (await err.readline()).decode():
                    if step in line:
                        return line
            pytest.fail(f"firthctl ended without {step}")

        first = await told("/8 ")
        assert first.startswith("run 1  main:upstream  ")
        index.set()
        assert f" / {FILES} files" in await told("6/8 ")
        file.set()
        rest = (await err.read()).decode()
        assert f"main:upstream  completed: {FILES} added, generation 2" in rest
        assert json.loads(await process.stdout.read())["run"]["state"] == "completed"
        assert await process.wait() == DONE


async def test_each_exit_status_has_its_cause(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.ctl("channel.create", "main")
        refused = await s.ctl("channel.create", "main", status=ERROR)
        assert refused.out == ""
        assert "conflict: " in refused.err
        assert "not_found: " in (await s.ctl("channel.get", "nowhere", status=ERROR)).err
        away = await ctl("channel.list", socket=tmp_path / "no.sock")
        assert (away.status, away.out) == (UNREACHABLE, "")
        assert str(tmp_path / "no.sock") in away.err
        for words in (
            ("channel.frieze", "main"),
            ("channel.get",),
            ("channel.get", "main", "colour=red"),
            ("--colour",),
        ):
            wrong = await s.ctl(*words, status=USAGE)
            assert wrong.out == ""
            assert wrong.err.startswith("firthctl: ")
        assert "channel.freeze" in (await s.ctl("channel.frieze", "main", status=USAGE)).err

        s.upstream.fail("noarch/beta*", Fault(status=404), times=None)
        partly = await s.ctl(*s.new_mirror, "mode=active", "run_now=true", "--wait", status=INCOMPLETE)
        assert f"incomplete: {FILES - 1} added, 1 failed, generation 2" in partly.err
        assert json.loads(partly.out)["run"]["state"] == "incomplete"
        failed = json.loads((await s.ctl("mirror.details", "main:upstream")).out)["failed"]
        assert [(one["filename"], bool(one["reason"])) for one in failed] == [("beta-2.0-0.conda", True)]
        s.upstream.heal()
        s.upstream.fail("*repodata*", Fault(status=403), times=None)
        broken = await s.ctl("mirror.run", "main:upstream", "--wait", status=ERROR)
        assert "failed; " in broken.err
        assert "403" in broken.err
        s.upstream.heal()
        assert "completed: 1 added" in (await s.ctl("mirror.run", "main:upstream", "--wait")).err
        s.source.add(PackageSpec(name="zeta"))
        s.upstream.fail("noarch/zeta*", Fault(until=asyncio.Event()), times=None)
        running = asyncio.create_task(s.ctl("mirror.run", "main:upstream", "--wait", status=ERROR))
        await s.upstream.arrived("noarch/zeta*")
        await s.ctl("mirror.stop", "main:upstream", "--wait", status=ERROR)
        assert "main:upstream  stopped" in (await running).err
        nothing = await s.ctl("channel.freeze", "main", "--wait")
        assert "started no run" in nothing.err


async def test_a_person_at_a_terminal_gets_tables_and_one_line_of_progress(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        await s.ctl("channel.create", "main")
        await s.ctl(*s.new_mirror, "run_now=true", "--wait")
        listed = await ctl_on_a_terminal("mirror.list", socket=s.process.socket, columns=100)
        head, row = listed.out.splitlines()
        assert head.split()[:3] == ["ID", "CHANNEL", "NAME"]
        assert row.split()[:3] == ["1", "main", "upstream"]
        assert "completed" in row
        ran = await ctl_on_a_terminal("mirror.run", "main:upstream", "--wait", socket=s.process.socket)
        assert ran.status == DONE
        assert "completed" in ran.out
        assert "\x1b[2J" not in ran.out


@needs_curl
async def test_curl_is_a_complete_client(tmp_path: Path) -> None:
    async with scene(tmp_path) as s:
        made = await curl_rpc(s, {"jsonrpc": "2.0", "id": 1, "method": "channel.create", "params": {"name": "main"}})
        assert made["id"] == 1
        as_of = (await curl_rpc(s, request("channel.list")))["result"]["as_of"]
        watching = await asyncio.create_subprocess_exec(
            *("curl", "-sN", "--unix-socket", str(s.process.socket)),
            f"http://firth/events?topics=channel,run&after={as_of}",
            stdout=asyncio.subprocess.PIPE,
        )
        assert watching.stdout is not None
        source = {"channel": "main", "name": "upstream", "type": "conda", "source": s.upstream.url, "run_now": True}
        batch = await curl_rpc(
            s, [request("mirror.create", **source), request("channel.freeze", channel="nowhere"), {"no": "call"}]
        )
        run = batch[0]["result"]["run"]["id"]
        assert [reply.get("error", {}).get("data", {}).get("kind") for reply in batch] == [
            None,
            "not_found",
            "invalid_request",
        ]
        events: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            while not any(event["type"] == "run.finished" for event in events):
                line = await watching.stdout.readline()
                assert line
                if line.strip():
                    events.append(json.loads(line))
        watching.terminate()
        await watching.wait()
        assert {event["ids"].get("run", run) for event in events} == {run}
        assert {event["topic"] for event in events} == {"channel", "run"}
        numbers = [int(event["cursor"].rpartition(":")[2]) for event in events]
        assert numbers == sorted(set(numbers))
        assert (await curl_rpc(s, request("run.get", run=run)))["result"]["state"] == "completed"
        listed = await curl_rpc(s, request("channel.get", channel="main"))
        assert listed["result"]["generation"] == 2
        notified = await curl(
            s, "http://firth/rpc", "-w", "%{http_code}", "-d", '{"jsonrpc":"2.0","method":"daemon.status"}'
        )
        assert notified == b"204"
        about = json.loads(await curl(s, "http://firth/"))
        assert about["api"] == 1
        assert b"firth_" in await curl(s, "http://firth/metrics")
        document = (await curl_rpc(s, request("rpc.discover")))["result"]
        assert {method["name"] for method in document["methods"]} == set(METHODS)


def request(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


async def curl_rpc(s: Scene, body: Any) -> Any:
    return json.loads(await curl(s, "http://firth/rpc", "-d", json.dumps(body)))


async def curl(s: Scene, *words: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--max-time", "30", "--unix-socket", str(s.process.socket)),
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return out
