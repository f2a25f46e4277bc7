"""The only place that hands a source's bytes on: chunk by chunk, counted, and checked against the length told."""

from collections.abc import Awaitable, Callable

from firthd.upstream.failures import Failure
from firthd.upstream.rate import Meter
from firthd.upstream.source import Validators


class Body:
    """The bytes of one answer; iterate once. Raises errors.Upstream when the transfer breaks off.

    `length`: bytes that this body delivers, None when the source does not say. `offset`: where they begin in the
    file; 0 unless a resume was asked for and granted. `url` is masked.
    """

    def __init__(
        self,
        *,
        pull: Callable[[], Awaitable[bytes]],
        cut: Callable[[int], Failure],
        meter: Meter,
        url: str,
        status: int,
        length: int | None,
        offset: int = 0,
        content_type: str = "",
        validators: Validators | None = None,
    ) -> None:
        self.url = url
        self.status = status
        self.length = length
        self.offset = offset
        self.content_type = content_type
        self.validators = validators or Validators()
        self.received = 0
        self._pull = pull
        self._cut = cut
        self._meter = meter

    def __aiter__(self) -> "Body":
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await self._pull()
        except Failure as failure:
            raise failure.error from None
        if not chunk:
            if self.length is not None and self.received != self.length:
                raise self._cut(self.received).error
            raise StopAsyncIteration
        self.received += len(chunk)
        self._meter.add(len(chunk))
        if self.length is not None and self.received > self.length:
            raise self._cut(self.received).error
        return chunk
