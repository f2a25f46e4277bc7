"""The only place that lists what lies below a folder of a source, two deep: by its server's pages, or on the disk."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

from firth_protocol.errors import NoSpace, TooLarge, Upstream
from firthd.threads import in_thread
from firthd.upstream.client import Fetched, Look, Source, Validators, mask
from firthd.upstream.files import folder_of
from firthd.upstream.markup import Start, pieces
from firthd.upstream.source import is_file
from firthd.upstream.spool import Room

FOLDERS_MAX = 20_000
FILES_MAX = 2_000_000
PAGE_MAX_BYTES = 16 * 1024**2
AT_ONCE = 8
LINK_MAX = 2000
_PAGE = frozenset({"text/html", "application/xhtml+xml"})

File = tuple[str, str, str]
"""Path below the folder, size in bytes and time in seconds, empty where they are not told."""


class Fetcher(Protocol):
    """What brings a page."""

    async def fetch(
        self,
        source: Source,
        path: str,
        spool: Path,
        *,
        max_bytes: int,
        setting: str = "",
        until: float | None = None,
        look: Look | None = None,
        room: Room | None = None,
    ) -> Fetched: ...


async def list_folder(
    upstream: Fetcher,
    source: Source,
    path: str,
    spool: Path,
    *,
    validators: Validators | None,
    until: float | None,
    room: Room | None,
    most: int = FOLDERS_MAX,
) -> Fetched:
    """Write into `spool` a line for each file below a folder and the folders in it: path, size, time, tabs between.

    The validator that comes with it is a digest of the list, so that the same list is `not_modified`. A folder that is
    not there, or has no page, is `absent`. Raises errors.Upstream, NoSpace, and TooLarge for more than `most` folders.
    """
    url = mask(f"{source.url}/{path}")
    if is_file(source):
        found = await in_thread(_on_disk, folder_of(source.url), unquote(path))
    else:
        found = await _by_pages(upstream, source, path.rstrip("/") + "/", spool, until, room, most)
    if found is None:
        return Fetched(status="absent", url=url, answered=404)
    text = "".join("\t".join(file) + "\n" for file in sorted(found)).encode()
    tag = Validators(etag=f'"{hashlib.sha256(text).hexdigest()}"')
    if validators is not None and validators.etag == tag.etag:
        return Fetched(status="not_modified", validators=tag, url=url)
    if room is not None:
        await room(len(text))
    try:
        await asyncio.to_thread(spool.write_bytes, text)
    except OSError as error:
        raise NoSpace(f"the list of {path} cannot be written: {error.strerror}") from None
    return Fetched(status="fetched", bytes=len(text), validators=tag, url=url)


def _on_disk(root: Path, path: str) -> list[File] | None:
    real = root.resolve()
    folder = (root / path).resolve()
    if not root.is_dir():
        raise Upstream(f"the folder {root} is not there", hint="is the medium mounted?")
    if not folder.is_relative_to(real) or not folder.is_dir():
        return None
    found: list[File] = []
    top = _inside(folder, real)
    for below in [top, *(_inside(Path(entry), real, f"{entry.name}/") for entry in top.folders)]:
        found += below.files
        _check(len(found))
    return found


class _Folder(NamedTuple):
    files: list[File]
    folders: list["os.DirEntry[str]"]


def _inside(folder: Path, root: Path, prefix: str = "") -> _Folder:
    """Return what lies in a folder; a link that leads out of the source is nothing, as it is for whoever opens it."""
    files: list[File] = []
    folders = []
    for entry in os.scandir(folder):
        if not _fit(entry.name) or (entry.is_symlink() and not Path(entry).resolve().is_relative_to(root)):
            continue
        if entry.is_file():
            status = entry.stat()
            files.append((f"{prefix}{entry.name}", str(status.st_size), str(int(status.st_mtime))))
        elif entry.is_dir():
            folders.append(entry)
    return _Folder(files, folders)


async def _by_pages(
    upstream: Fetcher, source: Source, path: str, spool: Path, until: float | None, room: Room | None, most: int
) -> list[File] | None:
    page = await _page(upstream, source, path, spool.with_name(f"{spool.name}.page"), until, room)
    if page is None:
        return None
    names = await _linked(page, f"{source.url}/{path}")
    found: list[File] = [(name, "", "") for name in names if not name.endswith("/")]
    folders = [name for name in names if name.endswith("/")]
    if len(folders) > most:
        raise TooLarge(f"{mask(source.url)}/{path} has more than {most:,} folders")
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, folder: str) -> list[File]:
        async with places:
            below = f"{path}{quote(folder)}"
            text = await _page(upstream, source, below, spool.with_name(f"{spool.name}.{number}"), until, room)
        names = [] if text is None else await _linked(text, f"{source.url}/{below}")
        return [(folder + name, "", "") for name in names if not name.endswith("/")]

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number, folder)) for number, folder in enumerate(folders)]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None
    for task in tasks:
        found += task.result()
        _check(len(found))
    return found


async def _page(
    upstream: Fetcher, source: Source, path: str, spool: Path, until: float | None, room: Room | None
) -> str | None:
    """Return a folder's page, None where there is none."""
    fetched = await upstream.fetch(
        source,
        path,
        spool,
        max_bytes=PAGE_MAX_BYTES,
        until=until,
        look=lambda start, content_type: content_type in _PAGE,
        room=room,
    )
    if fetched.status != "fetched":
        return None
    try:
        return (await asyncio.to_thread(spool.read_bytes)).decode("utf-8", "replace")
    finally:
        await asyncio.to_thread(spool.unlink, missing_ok=True)


async def _linked(page: str, url: str) -> list[str]:
    """Return what a page links to, each once; read beside the event loop, for a page may be large."""
    return await asyncio.to_thread(lambda: list(dict.fromkeys(names_in(page, url))))


def names_in(page: str, url: str) -> Iterator[str]:
    """Yield what a folder's page links to that lies in the folder itself; folders end in a slash."""
    base = urlsplit(url)
    for piece in pieces(page):
        link = piece.attributes.get("href") if isinstance(piece, Start) and piece.name == "a" else None
        if link is None or len(link) > LINK_MAX:
            continue
        try:
            parts = urlsplit(urljoin(url, link.strip()))
        except ValueError:
            continue
        if parts.netloc != base.netloc or parts.query or not parts.path.startswith(base.path):
            continue
        name = unquote(parts.path.removeprefix(base.path))
        if name and _fit(name.removesuffix("/")):
            yield name


def _fit(name: str) -> bool:
    return bool(name) and "/" not in name and name not in {".", ".."} and name.isprintable() and len(name) <= 255


def _check(files: int) -> None:
    if files > FILES_MAX:
        raise TooLarge(f"the folder holds more than {FILES_MAX:,} files")
