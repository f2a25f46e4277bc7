"""firth on a pseudo-terminal: bytes in as they are typed, many in one write; what is painted out, frame by frame."""

import asyncio
import codecs
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

_PIECE = re.compile(
    r"\x1b\[([0-9;?<>=]*)([@-~])|\x1b[PX^_\]].*?(?:\x1b\\|\x07)|\x1b.|([\r\n])|([^\x1b\r\n]+)", re.DOTALL
)

ASKS_FOR_MARKS = "\x1b[?2026$p"
MARKS_KNOWN = b"\x1b[?2026;2$y"
END_OF_FRAME = "\x1b[?2026l"
LOOK_S = 0.02
MOST_QUIET_S = 3.0
MOST_BURST_S = 300.0
"""How long a burst may take to be taken in, on a machine on which much else is done."""


class Screen:
    """As much of a terminal as what Textual writes needs: text at places; colours are dropped."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size
        self._cells = [[" "] * self.width for _ in range(self.height)]
        self._x = self._y = 0
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        return ["".join(row).rstrip() for row in self._cells]

    def feed(self, text: str) -> None:
        text = self._rest + text
        self._rest = ""
        tail = text.rfind("\x1b")
        if tail >= 0 and not re.match(r"\x1b(\[[0-9;?<>=]*[@-~]|[^\[PX^_\]])", text[tail:]):
            text, self._rest = text[:tail], text[tail:]
        for match in _PIECE.finditer(text):
            given, final, control, shown = match.groups()
            if final in {"H", "f"}:
                numbers = [int(part or 1) for part in (given or "1;1").split(";")]
                self._y, self._x = numbers[0] - 1, (numbers[1] if len(numbers) > 1 else 1) - 1
            elif final == "J":
                self._cells = [[" "] * self.width for _ in range(self.height)]
            elif control == "\n":
                self._y += 1
            elif control == "\r":
                self._x = 0
            elif shown:
                for each in shown:
                    if 0 <= self._y < self.height and 0 <= self._x < self.width:
                        self._cells[self._y][self._x] = each
                    self._x += 1


class Ended(AssertionError):
    """firth has ended, which only quitting may do."""


class Frame(NamedTuple):
    """What stood on the screen from a moment on, in seconds since the epoch, until the next frame came."""

    since: float
    lines: tuple[str, ...]


class Pseudo:
    """One firth on a pseudo-terminal."""

    def __init__(
        self, handle: int, process: asyncio.subprocess.Process, size: tuple[int, int], beside: tuple[int, ...]
    ) -> None:
        self._handle = handle
        self.process = process
        self._beside = beside
        self._gone = False
        self.screen = Screen(size)
        self.frames: list[Frame] = []
        self.raw = ""
        self._moved = asyncio.Event()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        asyncio.get_running_loop().add_reader(handle, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._handle, 65536)
        except OSError:  # the process has ended
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._handle)
        text = self._decoder.decode(data)
        self.raw = (self.raw + text)[-20_000:]
        if ASKS_FOR_MARKS in text:
            os.write(self._handle, MARKS_KNOWN)
        # each update is written as one, between marks: what stands before its end is no frame
        *whole, rest = text.split(END_OF_FRAME)
        for frame in whole:
            self.screen.feed(frame)
            self._note()
        self.screen.feed(rest)
        self._moved.set()

    def _note(self) -> None:
        lines = tuple(self.screen.lines)
        if not self.frames or self.frames[-1].lines != lines:
            self.frames.append(Frame(time.time(), lines))

    def lines_seen(self) -> set[str]:
        """Return every line that was painted since the last keys were typed."""
        return {line for frame in self.frames for line in frame.lines}

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    @property
    def text(self) -> str:
        return "\n".join(self.screen.lines)

    def write(self, keys: str, *, anew: bool = True) -> None:
        """Type all of `keys` in one write, and begin `anew` to note what is painted; what stands now is the first."""
        if anew:
            self.frames.clear()
            self._note()
        os.write(self._handle, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal, as whoever closes its window does; firth is left to itself."""
        if not self._gone:
            self._gone = True
            asyncio.get_running_loop().remove_reader(self._handle)
            os.close(self._handle)

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait until a condition holds; when it never does, the failure shows the screen."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._must_live()
                    self._moved.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await self._moved.wait()
        except TimeoutError:
            raise AssertionError(f"it never came to that; the screen:\n{self.text}") from None

    def _must_live(self) -> None:
        if not self.alive:
            raise Ended(f"firth has ended:\n{self.raw[-6000:]}")

    async def sees(self, *texts: str) -> None:
        await self.until(lambda: all(text in self.text for text in texts))

    async def quiet(self, seconds: float = 0.1, *, most_s: float = MOST_QUIET_S) -> None:
        """Wait until for a while nothing has been painted, and firth and the daemon have had nothing to do.

        On a busy machine a process that has still to do what a key asked of it may have been painting nothing for long.
        Whoever has work without end is waited for `most_s` seconds.
        """
        deadline = time.monotonic() + most_s
        still_since, used = time.monotonic(), self._used()
        while self.alive and (now := time.monotonic()) < deadline and now - still_since < seconds:
            self._moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._moved.wait()
            using = self._used()
            if self._moved.is_set() or using != used or using is None:
                still_since, used = time.monotonic(), using

    def _used(self) -> tuple[int, ...] | None:
        """Return what the processes have used of processors so far; None when one of them is at work or wants to be."""
        used: list[int] = []
        for pid in (self.pid, *self._beside):
            for task in Path("/proc").glob(f"{pid}/task/*"):
                with suppress(OSError):  # it has just ended
                    state, *numbers = (task / "stat").read_text().rpartition(") ")[2].split()
                    if state != "S":
                        return None
                    used.append(int(numbers[10]) + int(numbers[11]))
        return tuple(used)

    async def home(self, seconds: float = 45.0) -> None:
        """Go back, level by level, to a place at the top, without leaving firth."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            await self.quiet(most_s=0.5)
            self._must_live()
            if "Leave without saving?" in self.text:
                self.write("\t\r", anew=False)
            elif self._at_the_top():
                return
            else:
                self.write("\x1b", anew=False)
        raise AssertionError(f"no way back; the screen:\n{self.text}")

    async def consumed(self) -> None:
        """Wait until all keys have been taken: those that ask for help come last, and are answered."""
        while "Keys of" not in self.text:
            await self.home(MOST_BURST_S)
            self.write("?", anew=False)
            await self.quiet(0.5)
        self.write("\x1b", anew=False)
        await self.until(lambda: "Keys of" not in self.text)

    @property
    def plain(self) -> bool:
        """Whether a place is in view as it is: no filter, no dialog, no search in force."""
        lines = self.screen.lines
        return (
            lines[-1].endswith("q quit")
            and not any(line.startswith((" filter:", " search:", " package:")) for line in lines)
            and not any(each in self.text for each in ("┌", "🔎", "faults only", "running only", "ok only"))
        )

    def _at_the_top(self) -> bool:
        path = self.screen.lines[1].split("  ")[0].strip()
        top = {"Channels", "Mirrors", "Runs", "Health", "Health › Audit log", "Tokens", "Policies", "Advisories"}
        return self.plain and path in top


@asynccontextmanager
async def firth_on_pty(
    socket: Path, size: tuple[int, int] = (80, 24), *, beside: tuple[int, ...] = ()
) -> AsyncIterator[Pseudo]:
    """Give a pseudo-terminal in which firth has been started on a daemon's socket.

    `beside` are the processes that must have nothing to do either where it is waited for quiet.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    unwanted = {"COLUMNS", "LINES", "NO_COLOR"}
    environ = {name: value for name, value in os.environ.items() if name not in unwanted}
    environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8", "ESCDELAY": "10"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "firth_tui", "--socket", str(socket)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Pseudo(ours, process, size, beside)
    try:
        yield terminal
    finally:
        if terminal.alive:
            process.kill()
        await process.wait()
        terminal.hang_up()
