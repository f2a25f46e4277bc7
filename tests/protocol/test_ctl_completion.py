"""Completion of firthctl's command lines: what is offered, and real shells in which tab is pressed."""

import asyncio
import os
import pty
import shutil
import sys
import termios
from collections.abc import Mapping
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from tests.support.ctl import ctl
from tests.support.rpc import rig, server

from firth_protocol.ctl import completion
from firth_protocol.methods import METHODS
from firthd.rpc.dispatch import Context

NAMES = {
    "policy.list": ["safe", "strict"],
    "channel.list": ["main", "mail", "bio/dev"],
    "mirror.list": ["main:forge", "main:cran", "bio/dev:forge"],
}


def items(method: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answer as a daemon with these channels and mirrors, and two runs."""
    if method == "run.list":
        return [{"id": 12}, {"id": 11}]
    if method == "mirror.list":
        split = [name.split(":") for name in NAMES[method]]
        return [{"channel": c, "name": n} for c, n in split if params.get("channel", c) == c]
    return [{"name": name} for name in NAMES.get(method, []) if params.get("query", "") in name]


def complete(shell: str, line: str, breaks: str = "=:") -> list[str]:
    return completion.complete(shell, line, items, breaks)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("firthctl channel.fr", ["channel.freeze"]),
        ("firthctl mirror.create channel=main ty", ["type="]),
        ("firthctl mirror.create type=", ["type=conda", "type=python", "type=r"]),
        ("firthctl mirror.create type=p", ["type=python"]),
        ("firthctl mirror.create main filters.sub", ["filters.subdirs="]),
        ("firthctl mirror.create main type=conda ty", []),
        ("firthctl channel.freeze ma", ["main", "mail"]),
        ("firthctl channel.freeze b", ["bio/dev"]),
        ("firthctl --limit 3 mirror.run main:", ["main:forge", "main:cran"]),
        ("firthctl mirror.get mirror=bio", ["mirror=bio/dev:forge"]),
        ("firthctl mirror.list channel=mai", ["channel=main", "channel=mail"]),
        ("firthctl policy.update sa", ["safe"]),
        ("firthctl mirror.update main:forge policy=st", ["policy=strict"]),
        ("firthctl run.get 1", ["12", "11"]),
        ("firthctl channel.create ma", []),
        ("firthctl mirror.create main name=fo", []),
        ("firthctl package.get main name=", []),
        ("firthctl mirror.list --columns name,sta", ["name,state"]),
        ("firthctl channel.freeze --columns channel.privacy", ["channel.privacy"]),
        ("firthctl channel.freeze --wait ma", ["main", "mail"]),
        ("firthctl mirror.run m ", ["accept_removals=", "dry_run="]),
        ("firthctl mirror.run m --wa", ["--wait"]),
        ("firthctl mirror.create main run_now=", ["run_now=true", "run_now=false"]),
        ("firthctl call chan", [name for name in METHODS if name.startswith("chan")]),
        ("firthctl watch pro", ["progress"]),
        ("firthctl completion f", ["fish"]),
        ("firthctl --socket /tmp/x", []),
        ("firthctl no.such x", []),
        ("firthctl mirror.create name='a b ty", []),
    ],
)
def test_completion(line: str, found: list[str]) -> None:
    assert complete("fish", line) == found


def test_completion_of_an_empty_word_offers_everything() -> None:
    assert set(METHODS) < set(complete("zsh", "firthctl "))
    assert complete("bash", "firthctl mirror.create type=c") == ["conda"]


def test_bash_gets_what_comes_after_the_last_end_of_a_word() -> None:
    assert complete("bash", "firthctl mirror.get mirror=main:f") == ["forge"]
    assert complete("bash", "firthctl mirror.get mirror=main:f", " =") == ["main:forge"]
    assert complete("bash", "firthctl mirror.get main:f", " ") == ["main:forge"]


def test_the_socket_of_the_line_is_asked() -> None:
    assert completion.socket_of("firthctl --socket /tmp/x channel.get ") == "/tmp/x"
    assert completion.socket_of("firthctl channel.get --socket=/tmp/y m") == "/tmp/y"
    assert completion.socket_of("firthctl channel.get m") is None


async def test_without_a_daemon_only_names_are_lacking(tmp_path: Path) -> None:
    done = await ctl("__complete", "fish", f"firthctl --socket {tmp_path}/none channel.freeze ")
    assert (done.status, done.err, done.out.splitlines()) == (0, "", ["channel=", "dry_run="])


# --- real shells ----------------------------------------------------------------------------------------

ODD = "odd $(touch pressed) it's"
PRESSED = [
    ("channel.freeze mai\t", ["channel.freeze", "main"]),
    ("mirror.run main:fo\t", ["mirror.run", "main:forge"]),
    ("mirror.get mirror=main:fo\t", ["mirror.get", "mirror=main:forge"]),
    ("mirror.create main type=co\t", ["mirror.create", "main", "type=conda"]),
    ("mirror.get main:od\t", ["mirror.get", f"main:{ODD}"]),
    ("channel.update main description=@no\t", ["channel.update", "main", "description=@notes"]),
]
SHELLS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config", "-i"]}
START = {
    "bash": "bind 'set enable-bracketed-paste off'; source ./script",
    "zsh": "autoload -Uz compinit; compinit -D -u; source ./script",
    "fish": "source ./script",
}


@pytest.mark.e2e
@pytest.mark.parametrize(
    "shell", ["bash", pytest.param("zsh", marks=pytest.mark.deep), pytest.param("fish", marks=pytest.mark.deep)]
)
async def test_tab_completes(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"NOT TESTED, completion in {shell}: {shell} is not installed")

    async def channels(context: Context, params: Any) -> dict[str, Any]:
        return {"items": [{"name": "main"}, {"name": "bio/dev"}], "next_cursor": None, "as_of": "e1:1"}

    async def mirrors(context: Context, params: Any) -> dict[str, Any]:
        found = [{"channel": "main", "name": name} for name in ("forge", ODD)]
        return {"items": found, "next_cursor": None, "as_of": "e1:1"}

    (tmp_path / "script").write_text((await ctl("completion", shell)).out)
    (tmp_path / "notes").touch()
    asks = f'exec {sys.executable} -m firth_protocol.ctl "$@"'
    tells = 'for word; do printf "%s\\n" "$word"; done >>words; echo >>words'
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/firthctl"
    command.write_text(f'#!/bin/sh\nif [ "$1" = __complete ]; then {asks}; fi\n{tells}\n')
    command.chmod(0o755)
    async with server(tmp_path, rig(channel_list=channels, mirror_list=mirrors)) as up:
        typed = [START[shell], *(f"firthctl {line}" for line, _ in PRESSED)]
        environ = {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm", "LANG": "C.UTF-8",
            "FIRTH_SOCKET": str(up.socket), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path),
        }  # fmt: skip
        seen = await session([shell, *SHELLS[shell]], typed, tmp_path, environ)
    assert (tmp_path / "words").exists(), seen
    told = [call.split("\n") for call in (tmp_path / "words").read_text().removesuffix("\n\n").split("\n\n")]
    assert told == [words for _, words in PRESSED], seen
    assert not (tmp_path / "pressed").exists()


def _own_terminal() -> None:
    """Make the terminal that of the session: fish does not start without."""
    ioctl(0, termios.TIOCSCTTY, 0)


async def session(command: list[str], typed: list[str], folder: Path, environ: dict[str, str]) -> str:
    """Type lines into a shell on a terminal of its own, and leave it; return what it showed."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environ,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    shown = bytearray()
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says EIO when the last writer has closed the terminal
            part = b""
        shown.extend(part)
        if not part:
            loop.remove_reader(ours)

    loop.add_reader(ours, read)
    try:
        async with asyncio.timeout(20):
            for line in [*typed, "exit"]:
                os.write(ours, f"{line}\n".encode())
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"the shell did not end: {shown.decode(errors='replace')}") from None
    finally:
        loop.remove_reader(ours)
        os.close(ours)
    return shown.decode(errors="replace")
