"""The only place that writes a source's answer behind the bytes of a file that are already there."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from firthd.store.blobs import BlobWriter


class Chunks(Protocol):
    """The body of a source's answer: chunks from `offset` of the file on."""

    @property
    def offset(self) -> int: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...


async def receive(body: Chunks, writer: BlobWriter, wrote: Callable[[int], None]) -> None:
    """Write what is new of a body; `wrote` is told how many bytes each time.

    A source that does not go on where it was asked to sends known bytes again: they are skipped, and the digest over
    the whole file guards the seam. Raises TooLarge, and what iterating raises.
    """
    known = writer.written - body.offset
    async for chunk in body:
        fresh = chunk[known:] if known > 0 else chunk
        known -= len(chunk) - len(fresh)
        if fresh:
            writer.write(fresh)
            wrote(len(fresh))
