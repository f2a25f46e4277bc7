"""The scripts of protocol/scripting.md, run as they stand against a daemon, a source and a chat of the test's own."""

import ast
import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from msgspec import Struct

from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import DaemonProcess
from tests.support.documents import ROOT, blocks
from tests.support.upstream import Fault, FaultyUpstream

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(300)]

PAGE = (ROOT / "protocol/scripting.md").read_text()
SCRIPTS = {
    int(number): text for number, text in re.findall(r"^## (\d+)\.(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}


class Done(Struct):
    status: int
    out: str
    err: str


class Desk(Struct):
    """Where somebody who writes scripts sits: a folder, firthctl on PATH, a daemon, a source, a chat."""

    folder: Path
    environ: dict[str, str]
    daemon: DaemonProcess
    source: FaultyUpstream
    channel: ChannelFolder
    names: dict[str, str]
    said: "asyncio.Queue[str]"

    async def bash(self, script: str) -> Done:
        process = await self.start(script)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())

    async def start(self, script: str) -> asyncio.subprocess.Process:
        for name, real in self.names.items():
            script = script.replace(name, real)
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            "bash", "-eu", "-o", "pipefail", "-c", script,
            cwd=self.folder, env=self.environ, stdout=pipe, stderr=pipe, start_new_session=True,
        )  # fmt: skip

    async def does(self, number: int, part: int = 0) -> str:
        """Run a script of the page, which must succeed; return what it wrote."""
        done = await self.bash(blocks(SCRIPTS[number], "sh")[part])
        assert done.status == 0, done
        return done.out

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


def program(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


@asynccontextmanager
async def chat(said: "asyncio.Queue[str]") -> AsyncIterator[str]:
    async def hook(request: web.Request) -> web.Response:
        said.put_nowait((await request.json())["text"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/hooks/KEY", hook)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield site.name
    finally:
        await runner.cleanup()


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    channel = ChannelFolder(folder / "source", ("noarch",))
    channel.add(*(PackageSpec(name="tides", version=version) for version in ("2026.1", "2026.2")))
    said: asyncio.Queue[str] = asyncio.Queue()
    program(folder / "bin", "firthctl", f'exec {sys.executable} -m firth_protocol.ctl "$@"')
    program(folder / "bin", "mail", 'printf "%s " "$@" >>mails; cat >>mails')
    (folder / "work").mkdir()
    async with (
        FaultyUpstream(folder=folder / "source") as upstream,
        chat(said) as hook,
        DaemonProcess(folder) as process,
    ):
        client = await process.start()
        names = {
            "https://conda.example.org/forge": upstream.url,
            "http://packages.example.org": await process.url(client),
            "https://chat.example.org": hook,
            "/var/lib/firth": str(process.state),
        }
        environ = os.environ | {"PATH": f"{folder}/bin:{os.environ['PATH']}", "FIRTH_SOCKET": str(process.socket)}
        found = Desk(
            folder=folder / "work", environ=environ, daemon=process, source=upstream, names=names, said=said,
            channel=channel,
        )  # fmt: skip
        await client.close()
        made = await found.bash(
            "firthctl channel.create main; firthctl mirror.create main name=forge type=conda mode=active"
            " source=https://conda.example.org/forge"
        )
        assert made.status == 0, made
        yield found


async def test_the_ten_scripts(tmp_path: Path) -> None:
    assert sorted(SCRIPTS) == list(range(1, 11))
    async with desk(tmp_path) as d:
        await nightly(d)
        await course(d)
        await promotion(d)
        await watching(d)
        await health(d)
        await ansible(d)
        assert (await d.does(7)).splitlines() == [
            f'{{"mirror.name":"{name}","mirror.schedule":"0 0 * * 0"}}' for name in ("forge", "promoted")
        ]
        assert re.fullmatch(r"frozen,generation\ntrue,\d+\n", await d.does(8))
        assert json.loads(d.read("back.json"))["run"]["state"] == "completed"
        await d.bash("firthctl channel.unfreeze main --wait")
        assert await d.does(9) == "name,version\ntides,2026.1\n"
        assert json.loads(d.read("removed.json"))["total"] == 2  # of both mirrors
        for _ in range(7):
            (d.daemon.state / f"out/backup-2020-01-0{_ + 1}T000000").mkdir(parents=True)
        await d.does(10)
        kept = sorted(file.name for file in (d.daemon.state / "out").iterdir())
        assert len(kept) == 5
        assert json.loads(d.read("backup.json"))["run"]["state"] == "completed"


async def nightly(d: Desk) -> None:
    assert await d.does(1) == "main:forge is whole\n"
    assert json.loads(d.read("nightly.json"))["run.counts"]["added"] > 0
    assert not (d.folder / "mails").exists()
    d.source.fail("*", Fault(status=403), times=None)
    await d.does(1)
    assert d.read("mails").startswith("-s main:forge ended with status 1 ops@example.org run ")
    assert "403" in d.read("mails")
    d.source.heal()


async def course(d: Desk) -> None:
    assert await d.does(2) == '{"changed":true,"channel.frozen":true}\n'
    number = int(d.read("number.txt"))
    d.channel.add(PackageSpec(name="late"))
    await d.bash("firthctl mirror.run main:forge --wait")
    assert json.loads(await d.does(2, 1))["change"]["added"] == 1
    thawed = json.loads(d.read("unfrozen.json"))
    assert thawed["channel"]["generation"] == number + 1  # as it is after the run
    assert thawed["channel"]["draft"] is None


async def promotion(d: Desk) -> None:
    await d.does(3)
    await d.does(3, 1)
    assert json.loads(d.read("promoted.json"))["run"]["state"] == "completed"
    assert d.read("changes.csv").startswith("change,filename\n")


async def watching(d: Desk) -> None:
    script = blocks(SCRIPTS[4], "sh")[0]
    process = await d.start(script)
    try:
        d.source.fail("*", Fault(status=403), times=None)
        async with asyncio.timeout(60):
            while d.said.empty():  # what happens before it listens is not told
                await d.bash("firthctl mirror.run main:forge --wait")
        text = await d.said.get()
        assert "run.finished" in text
        assert "state=failed" in text
    finally:
        d.source.heal()
        os.killpg(process.pid, 15)
        await process.communicate()


async def health(d: Desk) -> None:
    script = blocks(SCRIPTS[5], "sh")[0]
    ill = await d.bash(script)
    assert ill.status == 1, ill
    assert ill.out.startswith('WARNING - {"health":[{"subject":"')
    await d.bash("firthctl mirror.run main:forge --wait")
    well = await d.bash(script)
    assert (well.status, well.out) == (0, "OK - nothing is wrong\n"), well
    away = await d.bash(f"export FIRTH_SOCKET=/nowhere\n{script}")
    assert away.status == 2
    assert away.out.startswith("CRITICAL - firthctl: firthd cannot be reached on /nowhere")


async def ansible(d: Desk) -> None:
    """Do what Ansible does with the two tasks: their words as they are, twice."""
    tasks = blocks(SCRIPTS[6], "yaml")[0]
    made, frozen = ([word.strip() for word in line.split(",")] for line in re.findall(r"argv: \[(.*)\]", tasks))
    is_changed = re.findall(r"frozen.stdout == ('.*')", tasks)[0]

    async def play() -> tuple[bool, bool]:
        first = await d.bash("exec " + " ".join(f"'{word}'" for word in made))
        second = await d.bash("exec " + " ".join(f"'{word}'" for word in frozen))
        assert first.status == 0 or "conflict" in first.err, first
        assert second.status == 0, second
        return first.status == 0, second.out.rstrip("\n") == ast.literal_eval(is_changed)

    assert await play() == (True, True)
    assert await play() == (False, False)
