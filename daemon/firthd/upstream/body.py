"""The only place that hands a source's bytes on: chunk by chunk, counted, checked against length and least rate."""

from collections.abc import Awaitable, Callable, Iterator

from firthd.clock import Clock
from firthd.upstream.direct import Came, Take
from firthd.upstream.encodings import LOOK_BYTES, DamagedError, Decoder, decoder_for
from firthd.upstream.failures import Failure
from firthd.upstream.rate import Meter, Pace
from firthd.upstream.source import Validators

MIN_BYTES_S = 1000.0
"""A source that sends less for PACE_S is broken: a drop now and then would keep a connection and a place for days."""
PACE_S = 60.0


class Body:
    """The bytes of one answer; iterate once. Raises errors.Upstream when the transfer breaks off or crawls.

    `length`: bytes that this body delivers, None when the source does not say. `offset`: where they begin in the
    file; 0 unless a resume was asked for and granted. `url` is masked. `held` waits until so many bytes may have come,
    `proof` is what If-Range takes for the same bytes, None where the source gives nothing that strong.
    """

    def __init__(
        self,
        *,
        pull: Callable[[], Awaitable[bytes]],
        cut: Callable[[int], Failure],
        slow: Callable[[int], Failure],
        clock: Clock,
        meter: Meter,
        url: str | Callable[[], str],
        status: int,
        length: int | None,
        offset: int = 0,
        content_type: str = "",
        validators: Validators | None = None,
        held: Callable[[int], Awaitable[None]] | None = None,
        proof: str | None = None,
        pump: Callable[[Take, Came], Awaitable[bool]] | None = None,
    ) -> None:
        self._url = url
        self.status = status
        self.length = length
        self.offset = offset
        self.content_type = content_type
        self.validators = validators or Validators()
        self.received = 0
        self.proof = proof
        self._pull = pull
        self._pump = pump
        self._held = held
        self._cut = cut
        self._slow = slow
        self._clock = clock
        self._meter = meter
        self._pace = Pace(PACE_S)
        self._waited_s = 0.0  # for the source alone: what we take to write a chunk is not its fault
        self._pace.add(0.0, 0)
        self._ahead: list[bytes] = []  # read already
        self._decoder: Decoder | None = None
        self._decoded: Iterator[bytes] = iter(())
        self._told_length = length

    @property
    def url(self) -> str:
        return self._url if isinstance(self._url, str) else self._url()

    @property
    def as_sent(self) -> bool:
        """Whether these are the bytes that the source counts: only then can the rest be asked for alone."""
        return self._decoder is None

    async def undo(self, encodings: list[str], path: str) -> None:
        """Undo these encodings from here on, the last applied first, as far as the first bytes show that they are true.

        Of what is undone no length is known. Before the first byte is taken; raises errors.Upstream as iterating does.
        """
        start = bytearray()
        while encodings and len(start) < LOOK_BYTES:
            try:
                self._ahead.append(await self._raw())
            except StopAsyncIteration:
                break
            start += self._ahead[-1]
        self._decoder = decoder_for(encodings, bytes(start), path)
        if self._decoder is not None:
            self.length = None

    async def pump(self, take: Take, came: Came) -> bool:
        """Give `take` what comes, in a thread, as long as it comes fast; return whether that was all.

        Else what is left is to be iterated over. Before anything was; `came` hears in the loop how many bytes there
        are. Raises as iterating does, and what `take` raises.
        """
        if self._pump is None or self._decoder is not None or self._held is not None or self._ahead or self.received:
            return False

        def more(size: int) -> None:
            self.received += size
            self._meter.add(size)
            self._pace.add(self._waited_s, size)
            came(size)

        try:
            return await self._pump(take, more)
        except Failure as failure:
            raise failure.error from None

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        if self._decoder is None:
            return self._ahead.pop(0) if self._ahead else await self._raw()
        try:
            while True:
                piece = next(self._decoded, None)
                if piece is not None:
                    return piece
                self._decoded = self._decoder.feed(self._ahead.pop(0) if self._ahead else await self._raw())
        except StopAsyncIteration:
            if self._decoder.whole:
                raise
            raise self._cut(self.received).error from None
        except DamagedError:
            raise self._cut(self.received).error from None

    async def _raw(self) -> bytes:
        """Return the next bytes as they were sent; raise StopAsyncIteration behind the last."""
        asked_at = self._clock.monotonic()
        try:
            chunk = await self._pull()
        except Failure as failure:
            raise failure.error from None
        self._waited_s += self._clock.monotonic() - asked_at
        if not chunk:
            if self._told_length is not None and self.received != self._told_length:
                raise self._cut(self.received).error
            raise StopAsyncIteration
        self.received += len(chunk)
        self._meter.add(len(chunk))
        if self._held is not None:
            await self._held(len(chunk))
        if self._told_length is not None and self.received > self._told_length:
            raise self._cut(self.received).error
        self._pace.add(self._waited_s, len(chunk))
        if self.received != self._told_length and self._pace.below(self._waited_s, MIN_BYTES_S):
            raise self._slow(self.received).error
        return chunk
