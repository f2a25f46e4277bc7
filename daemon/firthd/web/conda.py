"""The only place that knows the addresses of a conda channel: `<subdir>/<file>` and `<subdir>/shards/<sha256>`.

File names and shards after CEP 16 and CEP 36; what is not published is 404, `current_repodata.json` and
`notices.json` included, which clients take well.
"""

import hashlib
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web
from msgspec import Struct

from firth_protocol.types import Family, Privacy
from firthd.store.objects import ObjectRow
from firthd.web.admission import Visitor
from firthd.web.conditions import Content
from firthd.web.files import Files, Place
from firthd.web.packages import Packages
from firthd.web.parts import Channels, Store
from firthd.web.problems import not_found

if TYPE_CHECKING:
    from firthd.channels.published import View

FOREVER = "max-age=31536000, immutable"
INDEX_LIFE = "max-age=60"
TODAY_LIFE = "max-age=300"
"""A snapshot by date that is today's can still become another generation."""
PACKAGE_LIFE = "max-age=3600"
"""Package names are uploaded again; the ETag tells."""

MAX_NAME = 255
"""Characters; file systems take no longer file names, records hold at most 211."""
_SUBDIR = re.compile(r"noarch|[a-z0-9]+-[a-z0-9]+")
_SHARD = re.compile(r"([0-9a-f]{64})\.msgpack\.zst")
_INDEX_LIKE = (".json", ".json.zst", ".json.bz2", ".json.gz", ".msgpack.zst", ".jlap", ".html", ".xml")


class Edition(Struct, frozen=True, kw_only=True):
    """The generation that a request is about, and how long clients may keep its index files.

    `privacy` is today's, also for a generation of another day.
    """

    view: "View"
    privacy: Privacy
    index_life: str

    def cache_control(self, life: str) -> str:
        """Return the Cache-Control value; shared caches keep only what anybody may have."""
        return f"{'public' if self.privacy is Privacy.PUBLIC else 'private'}, {life}"


class CondaSite:
    """Answers for the conda family of a channel."""

    def __init__(
        self,
        published: Channels,
        rendered: Store,
        files: Files,
        packages: Packages,
        absent_index: Callable[[str], bytes | None],
    ) -> None:
        self._absent_index = absent_index
        self._published = published
        self._rendered = rendered
        self._files = files
        self._packages = packages

    async def answer(
        self, request: web.Request, visitor: Visitor, edition: Edition, rest: tuple[str, ...]
    ) -> web.StreamResponse:
        """Answer for what follows the channel in the path. Raises Problem 404 for everything that is not there."""
        if len(rest) == 3 and rest[1] == "shards" and _SHARD.fullmatch(rest[2]):
            return await self._shard(request, edition, "/".join(rest))
        if len(rest) != 2 or len(rest[0]) > 32 or not _SUBDIR.fullmatch(rest[0]) or len(rest[1]) > MAX_NAME:
            raise not_found()
        subdir, name = rest
        if name.endswith(_INDEX_LIKE):
            index = await self._published.object(edition.view, Family.CONDA, f"{subdir}/{name}")
            if index is not None:
                return await self._index(request, visitor, edition, index, name)
            absent = self._absent_index(f"{subdir}/{name}")
            if absent is None:
                raise not_found()
            content = Content(
                size=len(absent),
                etag=f'"{hashlib.sha256(absent).hexdigest()}"',
                modified_ms=edition.view.published_at_ms,
                media_type=_media_type(name),
                cache_control=edition.cache_control(edition.index_life),
            )
            return await self._files.made(request, content, absent)
        file = await self._published.file(edition.view, Family.CONDA, subdir, name)
        if file is None:
            raise not_found()
        return await self._packages.send(
            request,
            visitor,
            file,
            media_type="application/x-bzip2" if name.endswith(".bz2") else "application/octet-stream",
            cache_control=edition.cache_control(PACKAGE_LIFE),
        )

    async def _index(
        self, request: web.Request, visitor: Visitor, edition: Edition, index: ObjectRow, name: str
    ) -> web.StreamResponse:
        content = Content(
            size=index.size,
            etag=f'"{index.sha256}"',
            modified_ms=edition.view.published_at_ms,
            media_type=_media_type(name),
            cache_control=edition.cache_control(edition.index_life),
        )
        if index.encoding is not None:  # a generation of another day keeps only the compressed form
            return await self._files.unpacked(request, content, await self._rendered.local(index.file))
        return await self._files.stored(request, content, self._place(index), by_proxy=visitor.by_proxy)

    async def _shard(self, request: web.Request, edition: Edition, path: str) -> web.StreamResponse:
        found = await self._published.object(edition.view, Family.CONDA, path)
        if found is None:  # rows that came from the first schema do not know their subdir
            found = await self._published.object(edition.view, Family.CONDA, path.partition("/")[2])
        if found is None:
            raise not_found()
        content = Content(
            size=found.size,
            etag=f'"{found.sha256}"',
            modified_ms=None,
            media_type="application/octet-stream",
            cache_control=edition.cache_control(FOREVER),
        )
        return await self._files.stored(request, content, self._place(found))

    def _place(self, found: ObjectRow) -> Place:
        local = partial(self._rendered.local, found.file)
        return Place(local=local, sha256=found.sha256, size=found.size, offset=found.offset)


def _media_type(name: str) -> str:
    if name.endswith(".json"):
        return "application/json"
    return "application/zstd" if name.endswith(".json.zst") else "application/octet-stream"
