"""The only place that writes a dependency report to a file: page by page beside it, then whole in its place."""

import asyncio
import csv
import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
from msgspec import Struct

from firth_protocol.methods import DependencyReportReply

if TYPE_CHECKING:
    from firth_tui.link import Link

ROWS = 1000


class ReportFile(Struct, frozen=True):
    """A report that has been written, and how many rows it has."""

    path: Path
    rows: int


async def write_report(
    link: "Link", mirror: int, path: Path, format: str, *, replace: bool, progress: Callable[[int], None]
) -> int:
    """Write a mirror's report as `csv` or `json`; return how many rows it has. `progress` is told them on the way.

    Raises FileExistsError unless a file that is there may be replaced, OSError where it cannot be written, FirthError
    where there is no report. Whatever goes wrong, what was there before stays.
    """
    await asyncio.to_thread(_check, path, replace)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    rows = 0
    out = await asyncio.to_thread(_create, beside)
    try:
        async for text, more in _texts(link, mirror, format):
            await asyncio.to_thread(out.write, text)
            rows += more
            progress(rows)
        await asyncio.to_thread(_finish, out, beside, path, replace)
    finally:
        # no pause here: it may be that the form has gone, and its work with it
        out.close()
        with suppress(OSError):
            beside.unlink()
    return rows


async def _texts(link: "Link", mirror: int, format: str) -> AsyncIterator[tuple[bytes, int]]:
    """Give the file piece by piece, each with how many rows it holds."""
    cursor: str | None = None
    before = "[\n"
    while True:
        given = {"cursor": cursor} if cursor is not None else {}
        page = await link.ask(
            DependencyReportReply, "mirror.dependency_report", mirror=mirror, format=format, limit=ROWS, **given
        )
        if format == "csv":
            text = page.text or ""
            header = 1 if cursor is None and text else 0
            yield text.encode(), sum(1 for _ in csv.reader(io.StringIO(text))) - header
        else:
            lines = ",\n".join(msgspec.json.encode(row).decode() for row in page.rows)
            if lines:
                yield f"{before}{lines}".encode(), len(page.rows)
                before = ",\n"
        cursor = page.next_cursor
        if cursor is None:
            break
    if format != "csv":
        yield b"[]\n" if before == "[\n" else b"\n]\n", 0


def _check(path: Path, replace: bool) -> None:
    if path.is_dir():
        raise IsADirectoryError(None, "there is a folder of that name")
    if not replace and os.path.lexists(path):
        raise FileExistsError(path)


def _create(beside: Path) -> BinaryIO:
    with suppress(FileNotFoundError):
        beside.unlink()  # of a firth that was killed
    return beside.open("xb")


def _finish(out: BinaryIO, beside: Path, path: Path, replace: bool) -> None:
    out.flush()
    os.fsync(out.fileno())
    if not replace:
        try:
            os.link(beside, path)  # unlike a renaming this fails where somebody else has made one meanwhile
            return
        except FileExistsError:
            raise
        except OSError:
            pass  # a file system without links
    beside.replace(path)
