"""Index servers that nobody here wrote: each is mirrored, and pip and uv install from what became of it."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from firth_protocol.types import RunState
from tests.support.daemon import in_process_daemon
from tests.support.python import Installer, PythonIndex, PythonWorld, python_world, sample_index

pytestmark = [pytest.mark.deep, pytest.mark.timeout(600)]

SERVERS = ["simple-repository-server", "pypiserver", "devpi-server", "dumb-pypi"]
PLACE = Path(sys.prefix) / "outside-python"
"""An environment of their own: what they need is nothing that Firth needs."""
START_S = 60


@pytest.fixture(scope="module")
def programs() -> Callable[[str], str]:
    """Return what gives the path of a server's program; skip where they cannot be installed."""
    python = PLACE / "bin" / "python"
    stamp = PLACE / "installed"
    if not stamp.is_file():
        made = subprocess.run([sys.executable, "-m", "venv", str(PLACE)], capture_output=True, text=True, check=False)
        if made.returncode == 0:
            command = [str(python), "-m", "pip", "install", "-q", *SERVERS]
            made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
        if made.returncode != 0:
            pytest.skip(f"LOUD: other index servers could not be installed: {made.stderr[-300:]}")
        stamp.touch()
    return lambda name: str(PLACE / "bin" / name)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def packages_in(folder: Path, index: PythonIndex) -> Path:
    folder.mkdir(parents=True)
    for files in index.projects.values():
        for file in files:
            (folder / file.filename).write_bytes(file.content)
    return folder


async def ran(*command: str) -> None:
    await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)


@asynccontextmanager
async def server(command: list[str], url: str, cwd: Path) -> AsyncIterator[None]:
    """Run a server until the block ends; it answers when the block begins."""
    with (cwd / "server.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as http:
            while True:
                assert process.returncode is None, (cwd / "server.log").read_text()[-2000:]
                try:
                    async with http.get(url):
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)  # nobody is told when it listens
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def simple_repository(programs: Callable[[str], str], folder: Path, index: PythonIndex) -> AsyncIterator[str]:
    packages = folder / "packages"
    for project, files in index.projects.items():
        (packages / project).mkdir(parents=True)
        for file in files:
            (packages / project / file.filename).write_bytes(file.content)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [programs("simple-repository-server"), "--host", "127.0.0.1", "--port", str(port), str(packages)]
    async with server(command, f"{url}/simple/", folder):
        yield f"{url}/simple"


@asynccontextmanager
async def pypiserver(programs: Callable[[str], str], folder: Path, index: PythonIndex) -> AsyncIterator[str]:
    packages = packages_in(folder / "packages", index)
    url = f"http://127.0.0.1:{(port := free_port())}"
    options = ["-p", str(port), "-i", "127.0.0.1", "--disable-fallback"]
    async with server([programs("pypi-server"), "run", *options, str(packages)], f"{url}/simple/", folder):
        yield url


@asynccontextmanager
async def devpi(programs: Callable[[str], str], folder: Path, index: PythonIndex) -> AsyncIterator[str]:
    state = folder / "devpi"
    await ran(programs("devpi-init"), "--serverdir", str(state))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [programs("devpi-server"), "--serverdir", str(state), "--port", str(port), "--host", "127.0.0.1"]
    async with server([*command, "--offline-mode"], url, folder), aiohttp.ClientSession() as http:
        login = {"user": "root", "password": ""}
        async with http.post(f"{url}/+login", json=login, headers={"Accept": "application/json"}) as reply:
            token = (await reply.json())["result"]["password"]
        secret = aiohttp.encode_basic_auth("root", token)
        headers = {"X-Devpi-Auth": secret.removeprefix("Basic ")}
        async with http.put(f"{url}/root/dev", json={"bases": [], "volatile": True}, headers=headers) as reply:
            assert reply.status == 200, await reply.text()
        for project, files in index.projects.items():
            for file in files:
                form = aiohttp.FormData()
                version = file.filename.removesuffix(".tar.gz").split("-")[1]
                for name, value in ((":action", "file_upload"), ("name", project), ("version", version)):
                    form.add_field(name, value)
                form.add_field("content", file.content, filename=file.filename)
                async with http.post(f"{url}/root/dev/", data=form, headers=headers) as reply:
                    assert reply.status == 200, await reply.text()
        yield f"{url}/root/dev/+simple"


@asynccontextmanager
async def dumb_pypi(programs: Callable[[str], str], folder: Path, index: PythonIndex) -> AsyncIterator[str]:
    out = folder / "site"
    packages_in(out / "pool", index)
    lines = [
        json.dumps({"filename": file.filename, "hash": f"sha256={file.sha256}"})
        for files in index.projects.values()
        for file in files
    ]
    (folder / "list").write_text("\n".join(lines))
    command = [programs("dumb-pypi"), "--package-list-json", str(folder / "list"), "--output-dir", str(out)]
    await ran(*command, "--packages-url", "../../pool/")
    url = f"http://127.0.0.1:{(port := free_port())}"
    async with server([sys.executable, "-m", "http.server", "-b", "127.0.0.1", str(port), "-d", str(out)], url, folder):
        yield f"{url}/simple"


@asynccontextmanager
async def dumb_folder(programs: Callable[[str], str], folder: Path, index: PythonIndex) -> AsyncIterator[str]:
    async with dumb_pypi(programs, folder, index):
        yield f"file://{folder}/site/simple"


DECLARING: tuple[object, ...] = (pypiserver, devpi, dumb_pypi, dumb_folder)


@pytest.mark.parametrize("mode", ["active", "passive", "whole"])
@pytest.mark.parametrize("source", [simple_repository, pypiserver, devpi, dumb_pypi, dumb_folder])
async def test_an_index_of_another_server_is_mirrored_and_installed_from(
    tmp_path: Path, programs: Callable[[str], str], source: Callable[..., AsyncIterator[str]], mode: str
) -> None:
    index = sample_index()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    async with source(programs, theirs, index) as url, python_world(tmp_path / "ours") as w:  # type: ignore[attr-defined]
        names: dict[str, Any] = {} if mode == "whole" else {"filters": {"projects": ["Alpha.One", "beta", "gamma"]}}
        await w.python("active" if mode == "active" else "passive", source=url, **names)
        run = await w.run("main:p")
        assert run.state is RunState.COMPLETED, run
        for project in ("beta", "gamma"):
            page = await w.page(project)
            assert [file["filename"] for file in page["files"]] == [one.filename for one in index.projects[project]]
        address = f"{w.daemon.url}/repo/main/simple/"
        for name in ("uv", "pip"):
            installer = Installer(tmp_path / name)
            status, said = await getattr(installer, name)(address, "alpha-one")
            assert status == 0, said
            assert (installer.version("alpha_one"), installer.version("beta")) == ("1.0", "2.0")
        if mode == "active":
            await through_a_second(tmp_path / "second", w, address, same=source in DECLARING)


async def through_a_second(folder: Path, w: PythonWorld, address: str, *, same: bool) -> None:
    """Mirror the channel by another daemon: it has the same digest, and is installed from.

    Not the `same` where the source declares no digests: the first daemon's generation has none, the second's has those
    that the first has found.
    """
    async with in_process_daemon(folder) as second:
        await second.client.call("channel.create", name="copy")
        await second.client.call(
            "mirror.create", channel="copy", name="p", type="python", mode="active", source=address
        )
        run = await second.run("copy:p")
        assert run.state is RunState.COMPLETED, run
        digests = [
            (await client.call("channel.generations", channel=name)).items[0].digest
            for client, name in ((w.daemon.client, "main"), (second.client, "copy"))
        ]
        assert (digests[0] == digests[1]) is same
        installer = Installer(folder / "uv")
        status, said = await installer.uv(f"{second.url}/repo/copy/simple/", "alpha-one")
        assert (status, installer.version("beta")) == (0, "2.0"), said
