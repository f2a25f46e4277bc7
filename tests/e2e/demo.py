"""The demo: a daemon in a temporary folder takes a channel from its source to an installed package, step by step."""

import argparse
import asyncio
import contextlib
import functools
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import tty
import urllib.parse
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Iterator
from pathlib import Path

import rattler

from firth_protocol import methods as m
from firth_protocol import types as t
from firth_protocol.client import Client, DaemonUnreachable
from firth_protocol.errors import FirthError, Upstream
from firth_protocol.events import PROGRESS, Fact
from tests.support.python import Installer, sample_index
from tests.support.sample import TO_INSTALL, build_sample_channel
from tests.support.sample_r import TO_INSTALL as R_TO_INSTALL
from tests.support.sample_r import build_sample_cran

CHANNEL = "main"
PYTHON_TO_INSTALL = "alpha-one"
START_S = 30
STOP_S = 20
SAMPLE_RUN_S = 90
URL_RUN_S = 1800
INSTALL_S = 120
KEY_S = 15


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, for people."""


class Screen:
    """Prints for a terminal, where a line in progress is rewritten, and for a file, where only whole lines are."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._number = 0
        self._open = False

    def headline(self, text: str) -> None:
        self._number += 1
        self._print(f"\n{self._number}. {text}")

    def line(self, text: str) -> None:
        self._print(f"   {text}")

    def passing(self, text: str) -> None:
        """Show what may be gone a moment later; nothing where there is no terminal."""
        if self._live:
            width = shutil.get_terminal_size().columns - 4
            sys.stdout.write(f"\r\x1b[K   {printable(text)[:width]}")
            sys.stdout.flush()
            self._open = True

    def _print(self, text: str) -> None:
        if self._open:
            sys.stdout.write("\r\x1b[K")
            self._open = False
        print("\n".join(printable(line) for line in text.split("\n")), flush=True)


def printable(text: str) -> str:
    """Return the text without anything that could steer a terminal: names come from a source."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free loopback port; give the address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Firthd:
    """A daemon process whose files all lie below one folder."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "firth.sock"
        self._log = folder / "firthd.log"
        config = folder / "firth.toml"
        config.write_text("")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("FIRTH_", "LISTEN_"))}
        environ.pop("NOTIFY_SOCKET", None)
        with self._log.open("w") as log:
            places = ["--config", str(config), "--state", str(folder / "state"), "--socket", str(self.socket)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "firthd", *places, "--listen", "127.0.0.1:0"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,  # Ctrl-C stops the demo, and the demo stops the daemon
            )

    async def ready(self, client: Client) -> t.DaemonStatus:
        """Wait until the daemon answers; raise DemoFailed with its last words when it ends instead."""
        try:
            async with asyncio.timeout(START_S):
                while True:
                    if self._process.poll() is not None:
                        raise DemoFailed(f"firthd ended with status {self._process.returncode}:\n{self.last_words()}")
                    try:
                        status: t.DaemonStatus = await client.call("daemon.status")
                        return status
                    except (DaemonUnreachable, FirthError):
                        await asyncio.sleep(0.05)
        except TimeoutError:
            raise DemoFailed(f"firthd did not answer within {START_S} s:\n{self.last_words()}") from None

    def last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(f"   | {line}" for line in lines)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def this_platform() -> str:
    return str(rattler.Platform.current())


async def subdirs_to_take(client: Client, source: str) -> list[str]:
    """Ask a source what it has, and return this machine's subdir and noarch of it."""
    found: t.SourceFound = await client.call("mirror.check", type="conda", source=source)
    return [name for name in ("noarch", this_platform()) if name in found.subdirs]


async def follow_run(client: Client, run: t.Run, after: str, screen: Screen, seconds: float) -> t.Run:
    """Show the steps of a run as its events tell them, and return the run when it has ended."""
    try:
        async with asyncio.timeout(seconds), contextlib.aclosing(run_events(client, run.id, after)) as events:
            async for event in events:
                show_event(event, screen)
                if event.type == Fact.RUN_FINISHED:
                    break
    except TimeoutError:
        raise DemoFailed(f"run {run.id} did not end within {seconds:.0f} s") from None
    ended: t.Run = await client.call("run.wait", run=run.id, timeout=5)
    if ended.state is not t.RunState.COMPLETED:
        raise DemoFailed(f"run {run.id} ended {ended.state}: {why(ended)}")
    return ended


async def run_events(client: Client, run: int, after: str) -> AsyncGenerator[t.Event, None]:
    async with contextlib.aclosing(client.follow(["run", "progress"], after)) as events:
        async for event in events:
            if event.ids.get("run") == run:
                yield event


def show_event(event: t.Event, screen: Screen) -> None:
    data = event.data
    if event.type not in (Fact.RUN_STEP, PROGRESS) or not data.get("description"):
        return
    name = str(data.get("step") or data.get("name") or "")
    text = f"{data.get('number', '?')}/{len(t.StepName)}  {name:<12} {data['description']}"
    if event.type == Fact.RUN_STEP and data.get("state") in ("done", "skipped", "failed"):
        screen.line(text)
    else:
        screen.passing(text)


def why(run: t.Run) -> str:
    return f"{run.error.message} {run.error.hint}".strip() if run.error else "no reason was given"


def get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=60) as answer:
        body: bytes = answer.read()
    return body


async def offered(address: str, subdir: str) -> int:
    """Return how many files a client is offered in a subdir, read from the channel's index."""
    index = json.loads(await asyncio.to_thread(get, f"{address}/{subdir}/repodata.json"))
    return len(index.get("packages", {})) + len(index.get("packages.conda", {}))


async def small_packages(client: Client) -> list[t.PackageDetail]:
    """Return the smallest among the first packages of noarch."""
    page: t.Page[t.Package] = await client.call(
        "package.list", channel=CHANNEL, family="conda", platform="noarch", limit=200
    )
    names = [package.name for package in sorted(page.items, key=lambda item: item.bytes)[:30]]
    return [await client.call("package.get", channel=CHANNEL, family="conda", name=name) for name in names]


def stands_alone(package: t.PackageDetail) -> bool:
    """Tell whether the newest version needs nothing but what the machine itself is (`__unix`)."""
    newest = [file for file in package.files if file.version == package.version]
    needs = [spec for file in newest for spec in file.depends]
    return all(file.part == "noarch" for file in newest) and all(spec.startswith("__") for spec in needs)


async def install(address: str, name: str, folder: Path) -> list[str]:
    """Solve and install a package from the served channel; return what was installed, `name version` each."""
    gateway = rattler.Gateway(cache_dir=folder / "repodata", client=rattler.Client())
    platforms = [rattler.Platform(this_platform()), rattler.Platform("noarch")]
    try:
        async with asyncio.timeout(INSTALL_S):
            records = await rattler.solve(
                sources=[rattler.Channel(address)],
                specs=[name],
                gateway=gateway,
                platforms=platforms,
                virtual_packages=rattler.VirtualPackage.detect(),
            )
            prefix = folder / "prefix"
            await rattler.install(records, prefix, cache_dir=folder / "packages", show_progress=False)
    except TimeoutError:
        raise DemoFailed(f"installing {name} took longer than {INSTALL_S} s") from None
    installed = [json.loads(file.read_text()) for file in (prefix / "conda-meta").glob("*.json")]
    return sorted(f"{record['name']} {record['version']}" for record in installed)


async def story(client: Client, daemon: Firthd, source: str, url: str | None, folder: Path, screen: Screen) -> str:
    """Take the source to an installed package, telling what happens; return the channel's address."""
    status = await daemon.ready(client)
    screen.headline(f"firthd {status.version} is up at {', '.join(status.addresses)}")
    screen.line(f"socket {daemon.socket}")

    created: m.ChannelReply = await client.call("channel.create", name=CHANNEL, description="The channel of the demo")
    frozen: m.FreezeReply = await client.call("channel.freeze", channel=CHANNEL)
    screen.headline(f"Channel {CHANNEL} is created and frozen at generation {frozen.channel.generation}")
    screen.line("mirrors go on while a channel is frozen; clients see what they saw before")
    channel: m.ChannelGet = await client.call("channel.get", channel=created.channel.name)
    address = channel.addresses.conda

    filters = {"subdirs": await subdirs_to_take(client, source)} if url else {}
    screen.headline(f"Mirror {CHANNEL}:sample reads {source}" + (f" ({', '.join(filters['subdirs'])})" if url else ""))
    mirror: m.MirrorReply = await client.call(
        "mirror.create", channel=CHANNEL, name="sample", type="conda", source=source, filters=filters, run_now=True
    )
    if mirror.run is None:
        raise DemoFailed("the mirror was created, but its run was not")
    seconds = URL_RUN_S if url else SAMPLE_RUN_S
    ended = await follow_run(client, mirror.run, channel.as_of, screen, seconds)
    counts = ended.counts
    screen.line(f"{counts.added} artifacts in the draft, {counts.passive} of them fetched when a client first asks")
    screen.line(f"clients still see {await offered(address, 'noarch')} packages in noarch: the channel is frozen")

    before: m.ChannelGet = await client.call("channel.get", channel=CHANNEL)
    thawed: m.FreezeReply = await client.call("channel.unfreeze", channel=CHANNEL)
    screen.headline("Channel unfrozen: what has accumulated is published once")
    if thawed.run is not None:
        await follow_run(client, thawed.run, before.as_of, screen, seconds)
    after: m.ChannelGet = await client.call("channel.get", channel=CHANNEL)
    count = await offered(address, "noarch")
    screen.line(f"generation {after.generation}: clients now see {count} packages in noarch")

    small = await small_packages(client)
    name = TO_INSTALL if url is None else next((package.name for package in small if stands_alone(package)), None)
    if name is not None:
        await show_installation(client, address, name, folder, screen)
    elif small:
        await show_download(small[0].files[0], screen)
    if url is None:
        await show_r(client, folder, screen)
        await show_python(client, folder, screen)
    return address


def tell_places(daemon: Firthd, address: str, url: str | None, screen: Screen) -> None:
    """Name what can be visited for as long as the demo stays."""
    screen.headline("Where it is, until the demo ends")
    screen.line(f"clients     conda install -c {address} --override-channels NAME")
    if url is None:
        screen.line(f'R           install.packages("{R_TO_INSTALL}", repos = "{address}/cran")')
        screen.line(f"pip         pip install --index-url {address}/simple/ {PYTHON_TO_INSTALL}")
    screen.line(f"browser     {address}/")
    screen.line(f"scripts     ./run ctl --socket {daemon.socket} mirror.list")
    screen.line(f"terminal    ./run tui --socket {daemon.socket}")


async def show_installation(client: Client, address: str, name: str, folder: Path, screen: Screen) -> None:
    screen.headline(f"A client installs {name} from {address}")
    try:
        installed = await install(address, name, folder / "client")
    except Exception as error:  # rattler has no common error class
        raise DemoFailed(f"the client could not install {name}: {error}") from error
    if not any(entry.startswith(f"{name} ") for entry in installed):
        raise DemoFailed(f"the client says it is done, but {name} is not installed")
    screen.line(f"installed: {', '.join(installed)}")
    package: t.PackageDetail = await client.call("package.get", channel=CHANNEL, family="conda", name=name)
    stored = sum(file.state is t.ArtifactState.STORED for file in package.files)
    screen.line(f"files of {name} in the store: {stored} of {len(package.files)}, the one that was asked for")


async def show_r(client: Client, folder: Path, screen: Screen) -> None:
    """Mirror R packages into the same channel, and install one with R where it is there."""
    sample = folder / "cran"
    files = await asyncio.to_thread(build_sample_cran, sample)
    with served(sample) as source:
        screen.headline(f"R packages come into the same channel, from {source}: {', '.join(files)}")
        before: m.ChannelGet = await client.call("channel.get", channel=CHANNEL)
        mirror: m.MirrorReply = await client.call(
            "mirror.create", channel=CHANNEL, name="cran", type="r", mode="active", source=source, run_now=True
        )
        if mirror.run is None:
            raise DemoFailed("the mirror of R packages was created, but its run was not")
        await follow_run(client, mirror.run, before.as_of, screen, SAMPLE_RUN_S)
    after: m.ChannelGet = await client.call("channel.get", channel=CHANNEL)
    rscript = shutil.which("Rscript")
    if rscript is None:
        package: t.PackageDetail = await client.call("package.get", channel=CHANNEL, family="r", name=R_TO_INSTALL)
        screen.line("R is not installed here; a client that has it says:")
        screen.line(after.addresses.setup["R"])
        body = await asyncio.to_thread(get, package.files[0].url)
        screen.line(f"{package.files[0].filename}: {len(body)} bytes")
        return
    library = folder / "library"
    await asyncio.to_thread(library.mkdir)
    code = f'install.packages("{R_TO_INSTALL}", repos = "{after.addresses.r}", lib = "{library}", quiet = TRUE)'
    screen.line(code)
    process = await asyncio.create_subprocess_exec(
        rscript, "-e", code, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(INSTALL_S):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    installed = sorted(entry.name for entry in await asyncio.to_thread(list, library.iterdir()))
    if R_TO_INSTALL not in installed:
        raise DemoFailed(f"R could not install {R_TO_INSTALL}: {told.decode(errors='replace')[-600:]}")
    screen.line(f"installed by R: {', '.join(installed)}")


async def show_python(client: Client, folder: Path, screen: Screen) -> None:
    """Mirror a whole Python index into the same channel, page by page as pip asks, and install with pip."""
    sample = folder / "python"
    index = sample_index(plain=True)
    await asyncio.to_thread(index.write, sample)
    with served(sample) as site:
        screen.headline(f"A Python index comes into the same channel, from {site}/simple: {', '.join(index.projects)}")
        before: m.ChannelGet = await client.call("channel.get", channel=CHANNEL)
        mirror: m.MirrorReply = await client.call(
            "mirror.create", channel=CHANNEL, name="python", type="python", source=f"{site}/simple", run_now=True
        )
        if mirror.run is None:
            raise DemoFailed("the mirror of a Python index was created, but its run was not")
        await follow_run(client, mirror.run, before.as_of, screen, SAMPLE_RUN_S)
        after: m.ChannelGet = await client.call("channel.get", channel=CHANNEL)
        address = str(after.addresses.python)
        screen.line(f"pip install --index-url {address} {PYTHON_TO_INSTALL}")
        pip = Installer(folder / "pip")
        async with asyncio.timeout(INSTALL_S):
            status, told = await pip.pip(address, PYTHON_TO_INSTALL)
    if status:
        raise DemoFailed(f"pip could not install {PYTHON_TO_INSTALL}: {told[-600:]}")
    installed = sorted(file.stem for file in await asyncio.to_thread(list, pip.target.glob("*.py")))
    screen.line(f"installed by pip: {', '.join(installed)}")


async def show_download(file: t.PackageFile, screen: Screen) -> None:
    screen.headline(f"A client fetches {file.filename}; nothing small stands alone here, so nothing is installed")
    body = await asyncio.to_thread(get, file.url)
    if file.sha256 is not None and hashlib.sha256(body).hexdigest() != file.sha256:
        raise DemoFailed(f"what came for {file.url} is not what the index promises")
    screen.line(f"{len(body)} bytes, as the index promises")


async def key_pressed(seconds: float) -> bool:
    """Wait for a key at the terminal; False when none was pressed in time."""
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, pressed.set)
    try:
        async with asyncio.timeout(seconds):
            await pressed.wait()
        os.read(descriptor, 100)
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


async def look_around(daemon: Firthd, stay: bool, address: str, url: str | None, screen: Screen) -> None:
    """Stay up when asked to: in the terminal UI, or without a terminal until told to stop."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if stay or terminal:
        tell_places(daemon, address, url, screen)
    if not terminal:
        if stay:
            screen.headline(f"Staying up until stopped (kill {os.getpid()})")
            await asyncio.Event().wait()
        return
    if not stay:
        screen.headline(f"Press a key within {KEY_S} s to look around in the terminal UI")
        stay = await key_pressed(KEY_S)
    if stay:
        arguments = [sys.executable, "-m", "firth_tui", "--socket", str(daemon.socket)]
        interface = await asyncio.create_subprocess_exec(*arguments)
        try:
            if status := await interface.wait():
                raise DemoFailed(f"the terminal UI ended with status {status}")
        finally:
            if interface.returncode is None:
                interface.terminate()
                await interface.wait()


async def demo(url: str | None, stay: bool, folder: Path) -> None:
    screen = Screen()
    print(f"Firth demo. Everything lies in {folder} and goes away at the end.")
    with contextlib.ExitStack() as stack:
        if url is None:
            sample = folder / "sample"
            sample.mkdir()
            await asyncio.to_thread(build_sample_channel, sample)
            source = stack.enter_context(served(sample))
            screen.headline(f"A source to mirror: a small conda channel at {source}")
            for file in sorted(sample.glob("*/*.conda")) + sorted(sample.glob("*/*.tar.bz2")):
                screen.line(str(file.relative_to(sample)))
        else:
            source = url
        daemon = Firthd(folder)
        stack.callback(daemon.stop)
        async with Client(daemon.socket) as client:
            try:
                address = await story(client, daemon, source, url, folder, screen)
            except Upstream as error:
                raise DemoFailed(f"{error.message}\n   {error.hint}".rstrip()) from error
            except (FirthError, DaemonUnreachable) as error:
                raise DemoFailed(f"{error}\n{daemon.last_words()}") from error
        await look_around(daemon, stay, address, url, screen)
    screen.headline("Done; the daemon has stopped and everything is removed")
    screen.line("next: ./run demo --stay keeps it up; README.md starts a daemon of your own")


def run_until_told(work: Awaitable[None]) -> None:
    """Run to the end, or until SIGINT, SIGTERM or SIGHUP; what was started is stopped in either case."""

    async def main() -> None:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await task

    asyncio.run(main())


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run demo", description=__doc__)
    parser.add_argument("url", nargs="?", metavar="URL", help="a conda channel to mirror instead of the sample")
    parser.add_argument("--stay", action="store_true", help="stay up at the end, in the terminal UI if there is one")
    args = parser.parse_args()
    url: str | None = args.url
    if url is not None and not urllib.parse.urlsplit(url).scheme:
        parser.error(f"{url} is no URL: write https://… or file:///…")
    no_proxy = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, [no_proxy, "127.0.0.1"]))
    folder = Path(tempfile.mkdtemp(prefix="firth-demo-"))
    try:
        run_until_told(demo(url, args.stay, folder))
    except asyncio.CancelledError:
        print("\nStopped.")
        return 130
    except DemoFailed as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
