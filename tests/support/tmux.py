"""A real terminal in tests: tmux without a person before it; keys in, screen out."""

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

HAS_TMUX = shutil.which("tmux") is not None


class Tmux:
    """One terminal of a fixed size in a tmux server of its own."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def _tmux(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "tmux", "-S", str(self._socket), "-f", "/dev/null", *arguments, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output.decode()

    async def open(self, size: tuple[int, int], command: Sequence[str], environ: dict[str, str]) -> None:
        words = " ".join(shlex.quote(word) for word in command)
        given = [f"{name}={value}" for name, value in environ.items()]
        environment = [part for pair in given for part in ("-e", pair)]
        width, height = size
        # tmux's own status line would take one of the lines
        status_off = ("set-option", "-g", "status", "off", ";")
        session = ("new-session", "-d", "-x", str(width), "-y", str(height), *environment, f"{words}; cat")
        await self._tmux("start-server", ";", *status_off, *session)

    async def close(self) -> None:
        await self._tmux("kill-server")

    async def text(self, *, styled: bool = False) -> str:
        """The screen's text, lines without blanks at their ends; with the sequences for its colours if asked."""
        shown = await self._tmux("capture-pane", "-p", *(["-e"] if styled else []))
        return "\n".join(line.rstrip() for line in shown.splitlines())

    async def sees(self, *texts: str, seconds: float = 20.0) -> str:
        """Wait until every text is on the screen; return it. When that never comes, the failure shows the screen."""
        shown = ""
        try:
            async with asyncio.timeout(seconds):
                while not all(text in shown for text in texts):
                    await asyncio.sleep(0.03)  # a condition of another process: there is nothing to wait on
                    shown = await self.text()
        except TimeoutError:
            raise AssertionError(f"{texts} never came; the screen:\n{shown}") from None
        return shown

    async def press(self, *keys: str) -> None:
        """Press keys by tmux's names: Enter, Tab, BTab, Escape, Up, C-r, or a character."""
        await self._tmux("send-keys", *keys)

    async def type(self, text: str) -> None:
        await self._tmux("send-keys", "-l", text)


@asynccontextmanager
async def firth_in_tmux(
    folder: Path, socket: Path, size: tuple[int, int], *options: str, **environ: str
) -> AsyncIterator[Tmux]:
    """Give a terminal in which `firth` has been started on a daemon's socket."""
    terminal = Tmux(folder / "tmux")
    # a size in the environment would go before that of the terminal
    without = ["env", "-u", "COLUMNS", "-u", "LINES"]
    command = [*without, sys.executable, "-m", "firth_tui", "--socket", str(socket), *options]
    given = {"COLORTERM": "truecolor", "LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"], **environ}
    await terminal.open(size, command, given)
    try:
        yield terminal
    finally:
        await terminal.close()
