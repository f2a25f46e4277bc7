"""The dependency report: the only file that the terminal UI writes."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from firth_protocol.errors import Invalid
from firth_protocol.types import Mirror

if TYPE_CHECKING:
    from firth_tui.link import Link


async def write_report(link: "Link", mirror: Mirror, folder: Path | None = None) -> Path:
    """Write a mirror's dependency report as CSV into the working folder; return the file, never one that was there.

    Raises Invalid when there is no free name or the folder cannot be written.
    """
    parts: list[str] = []
    cursor: str | None = None
    while True:
        given = {"cursor": cursor} if cursor else {}
        page = await link.call("mirror.dependency_report", mirror=mirror.id, format="csv", **given)
        parts.append(str(page.get("text", "")))
        cursor = page.get("next_cursor")
        if not cursor:
            break
    return await asyncio.to_thread(_write_new, folder or Path.cwd(), f"dependencies-{mirror.id}", "".join(parts))


def _write_new(folder: Path, stem: str, text: str) -> Path:
    for number in range(1, 1000):
        file = folder / (f"{stem}.csv" if number == 1 else f"{stem}-{number}.csv")
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            continue
        except OSError as error:
            raise Invalid(f"{file} cannot be written: {error.strerror}") from error
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        return file
    raise Invalid(f"{folder} has a thousand reports already", hint="move them away")
