"""The only place that brings one file's bytes from its source: asked again, resumed, within the patience there is."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from msgspec import Struct

from firth_protocol.errors import NotFound, Upstream
from firthd.clock import Clock
from firthd.mirrors.aside import Aside
from firthd.store.incoming import Taking
from firthd.upstream.failures import Passing, Slow
from firthd.upstream.hosts import Lane
from firthd.upstream.http import MAX_PAUSE_S, Asking
from firthd.upstream.source import Source, Validators

PROGRESS_BYTES = 1024 * 1024
"""An attempt that brought so much starts the count of attempts anew: a large file may break off many times."""
LARGE_BYTES = 1024 * 1024
"""A body from which on writing and hashing go on beside receiving."""
_WRONG_RANGE = 416


class Incoming(Protocol):
    """The body of a source's answer: chunks from `offset` of the file on. Iterating raises errors.Upstream."""

    @property
    def length(self) -> int | None:
        """Bytes that this body delivers; None when the source does not say."""

    @property
    def offset(self) -> int: ...
    @property
    def as_sent(self) -> bool:
        """Whether these are the bytes that the source counts: only then can the rest be asked for alone."""

    @property
    def validators(self) -> Validators: ...
    @property
    def proof(self) -> str | None:
        """What If-Range takes for the same bytes; None where the source gives nothing that strong."""

    async def pump(self, take: Callable[[memoryview], None], came: Callable[[int], None], /) -> bool:
        """Give `take` what comes, in a thread, as long as it comes fast; return whether that was all.

        Else what is left is to be iterated over.
        """

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Opener(Protocol):
    """What asks a source for a file: one attempt; NotFound when the source does not have it, else Upstream."""

    async def whole(
        self, source: Source, path_or_url: str, /, *, lane: Lane = Lane.RUN
    ) -> bytes | memoryview | Asking | None:
        """Return all of a small file, or what `open` goes on with."""

    def open(
        self,
        source: Source,
        path_or_url: str,
        /,
        *,
        offset: int = 0,
        if_range: str | None = None,
        answer_s: float | None = None,
        lane: Lane = Lane.RUN,
        begun: Asking | None = None,
    ) -> AbstractAsyncContextManager[Incoming]: ...


MAX_UNKNOWN = 16 * 1024**3
"""Bytes taken at the most of a file whose size nobody tells, wherever it comes from."""


class Patience(Struct, frozen=True, kw_only=True):
    """How long a transfer is tried.

    `pauses_s`: before each further attempt, so there is one attempt more than pauses. `within_s`: once so much time
    has passed, only an attempt that brought something is followed by another. `answer_s`: how long the beginning of
    an answer may take, by attempt; those not named wait as long as any silence is waited out. `slow`: whether a source
    below the least rate is tried again too.
    """

    pauses_s: Sequence[float]
    within_s: float | None = None
    answer_s: Sequence[float] = ()
    slow: bool = True


class Hooks(Struct, frozen=True, kw_only=True):
    """Who hears how a transfer goes.

    `asks` is told the number of each attempt before it is made, and may raise to end the transfer; `answered` sees the
    answer's head, and may raise; `wrote` is told how many new bytes came.
    """

    asks: Callable[[int], None]
    answered: Callable[[Incoming], Awaitable[None]]
    wrote: Callable[[int], None]


_ENCODED = str.maketrans({"+": "%2B", "!": "%21", "~": "%7E"})
"""Some stores take a plus for a blank, and only know a name by its encoded spelling."""
_spelled = re.compile(r"[+!~]").search
_NOT_THERE = frozenset({403, 404, 410})


def spellings(address: str, *, encoded: bool) -> list[str]:
    """Return the spellings of an address whose file name has `+`, `!` or `~`, the one to try first before the other."""
    if _spelled(address) is None:
        return [address]
    path, mark, query = address.partition("?")
    folder, slash, name = path.rpartition("/")
    other = name.translate(_ENCODED)
    if other == name:
        return [address]
    both = [address, f"{folder}{slash}{other}{mark}{query}"]
    return both[::-1] if encoded else both


async def transfer(
    upstream: Opener,
    source: Source,
    address: str,
    writer: Taking,
    clock: Clock,
    *,
    digest: bool,
    lane: Lane,
    patience: Patience,
    hooks: Hooks,
    resume: str | None = None,
    elsewhere: str | None = None,
    flushers: Executor | None = None,
    small: bool = False,
) -> bool:
    """Write the whole file, going on where it broke off; the digest over all of it guards the seams.

    `digest`: whether the file's digest is known, so that a source without a strong validator may be asked for the rest
    too. `resume`: the validator of what the writer holds already, of a file whose digest is known. Where the source
    does not have the file (404, or 403 as buckets say it), a name with `+`, `!` or `~` is asked for once more in its
    other spelling, and then at `elsewhere`. `flushers`: threads that bring what has come onto the disk while more of it
    comes. `small`: nobody watches the bytes come. Returns whether the source takes such names percent-encoded,
    `source.encoded` where that was not seen. Raises NotFound, Invalid and TooLarge at once, Upstream when patience is
    at an end.
    """
    spelled = spellings(address, encoded=source.encoded)
    other = spelled[1] if len(spelled) > 1 else None
    if elsewhere is not None:
        spelled.append(elsewhere)
    absent: NotFound | Upstream | None = None
    began = clock.monotonic()
    first: Validators | None = None
    tag = resume
    may_resume = earlier = digest and writer.written > 0
    failed = number = 0
    while True:
        had = writer.written
        hooks.asks(number := number + 1)
        answer_s = patience.answer_s[failed] if failed < len(patience.answer_s) else None
        try:
            begun = None
            if small and not had and number == 1:
                came_whole = await upstream.whole(source, spelled[0], lane=lane)
                if isinstance(came_whole, bytes | memoryview):
                    writer.write(came_whole)
                    hooks.wrote(len(came_whole))
                    return source.encoded != (spelled[0] == other)
                begun = came_whole
            offset = had if may_resume else 0
            async with upstream.open(
                source, spelled[0], offset=offset, if_range=tag, answer_s=answer_s, lane=lane, begun=begun
            ) as body:
                await hooks.answered(body)
                if had and not digest and not (body.validators == first != Validators()):
                    raise Upstream(  # nothing would tell two halves of different files from one file
                        "the transfer broke off, and nothing tells whether the source still has the same file",
                        hint="ask again: it is fetched anew",
                    )
                if earlier and not body.offset and (tag is None or body.proof != tag):
                    writer.restart()  # it is another file by now, or nothing says that it is not
                earlier = False
                first = body.validators
                tag = body.proof
                may_resume = body.as_sent and (tag is not None or digest)
                await _receive(body, writer, hooks.wrote, flushers)
            return source.encoded != (spelled[0] == other)
        except (NotFound, Upstream) as error:
            fresh = writer.written - writer.resumed_at
            if len(spelled) > 1 and not fresh and error.data.get("status") in _NOT_THERE:
                absent = absent or error
                del spelled[0]
                continue
            if absent is not None and not fresh and error.data.get("status") in _NOT_THERE:
                raise absent from None
            if isinstance(error, NotFound):
                raise
            came = writer.written - had
            failed = 1 if came >= PROGRESS_BYTES else failed + 1
            if error.data.get("status") == _WRONG_RANGE and offset:
                may_resume = False  # what is there is not the beginning of what the source has now
            elif not isinstance(error, Passing) and not (isinstance(error, Slow) and patience.slow):
                raise
            if failed > len(patience.pauses_s):
                raise
            pause_s = max(patience.pauses_s[failed - 1], error.data.get("retry_after_s") or 0)
            late = patience.within_s is not None and clock.monotonic() - began + pause_s > patience.within_s
            if (late and not came) or pause_s > (patience.within_s or MAX_PAUSE_S):
                raise
        await clock.sleep(pause_s)


async def _receive(body: Incoming, writer: Taking, wrote: Callable[[int], None], flushers: Executor | None) -> None:
    """Write what is new of a body; a source that does not go on where it was asked to sends known bytes again."""
    known = writer.written - body.offset
    if body.length is not None and body.length < LARGE_BYTES:
        async for chunk in body:
            fresh = chunk[known:] if known > 0 else chunk
            known -= len(chunk) - len(fresh)
            if fresh:
                writer.write(fresh)
                wrote(len(fresh))
        return
    aside = Aside(writer, wrote, flushers)
    try:
        if known > 0 or not await body.pump(aside.take, aside.came):
            await aside.hashed()
            async for chunk in body:
                fresh = chunk[known:] if known > 0 else chunk
                known -= len(chunk) - len(fresh)
                if fresh:
                    await aside.put(fresh)
    finally:
        await aside.settled()
