"""The only place that leads from a path below a channel to bytes, whatever the family that the path belongs to."""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from firth_protocol.types import Family, Privacy
from firthd.families.addresses import ArtifactAt, Life, NoticesAt, ObjectAt, PageAt, RedirectTo
from firthd.families.base import FamilyRules
from firthd.store.joined import JOINED, JointAt, joints_of, piece_path
from firthd.store.made_pages import MadePage
from firthd.store.objects import ObjectRow
from firthd.web.admission import Visitor
from firthd.web.conditions import Content, accepts_gzip
from firthd.web.context import Channels, LazyPages, Store
from firthd.web.files import BROKEN, DamagedFile, Files, Place, without_body
from firthd.web.packages import Packages
from firthd.web.problems import Problem, not_found
from firthd.web.quick import AGAIN, Again

if TYPE_CHECKING:
    from firthd.channels.published import View

INDEX_LIFE = "max-age=60"
FOREVER = "max-age=31536000, immutable"
PACKAGE_LIFE = "max-age=3600"
"""The ETag tells when a name is given to other bytes."""

_SOON = {"Retry-After": "5"}


class Edition(Struct, frozen=True, kw_only=True):
    """The generation that a request is about, and how long clients may keep its index files.

    `privacy` is today's, also for a generation of another day.
    """

    view: "View"
    privacy: Privacy
    index_life: str

    def cache_control(self, life: Life) -> str:
        """Return the Cache-Control value; shared caches keep only what anybody may have."""
        told = {Life.SHORT: self.index_life, Life.HOUR: PACKAGE_LIFE, Life.FOREVER: FOREVER}[life]
        return f"{'public' if self.privacy is Privacy.PUBLIC else 'private'}, {told}"


class Site:
    """Answers for what a channel holds."""

    def __init__(
        self,
        published: Channels,
        rendered: Store,
        files: Files,
        packages: Packages,
        pages: LazyPages,
        families: Mapping[Family, FamilyRules],
        lost: Callable[[int, str], Awaitable[None]],
    ) -> None:
        self._published = published
        self._rendered = rendered
        self._files = files
        self._packages = packages
        self._pages = pages
        self._families = families
        self._lost = lost

    async def answer(
        self, request: web.Request, visitor: Visitor, edition: Edition, rest: tuple[str, ...]
    ) -> web.StreamResponse:
        """Answer for what follows the channel in the path. Raises Problem 404 for everything that is not there."""
        path = "/".join(rest)
        for family, rules in self._families.items():
            found = rules.locate(path, request.headers.get("Accept", ""))
            if isinstance(found, ObjectAt | PageAt) and found.folder and not request.rel_url.raw_path.endswith("/"):
                return _moved(f"{request.rel_url.raw_path}/")
            if isinstance(found, ObjectAt):
                return await self._object(request, visitor, edition, family, found)
            if isinstance(found, ArtifactAt):
                return await self._artifact(request, visitor, edition, family, found)
            if isinstance(found, PageAt):
                return await self._page(request, visitor, edition, family, found)
            if isinstance(found, NoticesAt):
                return await self._notices(request, edition, found)
            if isinstance(found, RedirectTo):
                return _moved(_spelled(request.rel_url.raw_path, len(rest), found.path))
        raise not_found()

    async def _artifact(
        self, request: web.Request, visitor: Visitor, edition: Edition, family: Family, at: ArtifactAt
    ) -> web.StreamResponse:
        for part, filename in ((at.part, at.filename), *at.also):
            file = await self._published.file(edition.view, family, part, filename)
            if file is not None:
                break
        else:
            raise not_found()
        return await self._packages.send(
            request,
            visitor,
            file,
            channel=edition.view.channel,
            media_type=at.media_type,
            cache_control=edition.cache_control(at.life),
        )

    async def _object(
        self, request: web.Request, visitor: Visitor, edition: Edition, family: Family, at: ObjectAt
    ) -> web.StreamResponse:
        row = packed = None
        if at.gzip is not None and accepts_gzip(request.headers.get("Accept-Encoding", "")):
            row = packed = await self._published.object(edition.view, family, at.gzip)
        if row is None:
            row = await self._published.object(edition.view, family, at.path)
        if row is None and at.also is not None:
            row = await self._published.object(edition.view, family, at.also)
        if row is None:
            return await self._absent(request, edition, at)
        content = Content(
            size=row.size,
            etag=f'"{row.sha256}"',
            modified_ms=edition.view.published_at_ms if at.life is Life.SHORT else None,
            media_type=at.media_type,
            cache_control=edition.cache_control(at.life),
            encoding="gzip" if packed is not None else None,
            vary=_vary(at),
        )
        try:
            response = await self._send(request, visitor, edition.view, content, row)
        except (FileNotFoundError, DamagedFile):
            await self._look(edition.view, row)
            raise Problem(503, "this index file is being made anew; ask again in a moment", _SOON) from None
        if BROKEN in request:
            await self._look(edition.view, row)
        response[AGAIN] = Again()
        return response

    async def _send(
        self, request: web.Request, visitor: Visitor, view: "View", content: Content, row: ObjectRow
    ) -> web.StreamResponse:
        if row.encoding == JOINED:
            if (response := without_body(request, content)) is not None:
                return response
            return await self._files.joined(request, content, await self._pieces(view, row))
        if row.encoding is not None:  # a generation of another day keeps only the compressed form
            return await self._files.unpacked(request, content, await self._rendered.local(row.file))
        by_proxy = visitor.by_proxy and row.offset is None
        return await self._files.stored(request, content, self._place(row), by_proxy=by_proxy)

    async def _look(self, view: "View", row: ObjectRow) -> None:
        """Let the files be looked at out of which an object did not come as it should."""
        await self._lost(view.channel_id, row.file)
        if row.encoding == JOINED:
            with contextlib.suppress(FileNotFoundError, DamagedFile):
                for pack in {piece.file.name for piece in await self._pieces(view, row)}:
                    await self._lost(view.channel_id, pack)

    async def _pieces(self, view: "View", row: ObjectRow) -> list[JointAt]:
        """Return where the pieces of an object lie; raise DamagedFile where that cannot be told."""
        listed = await asyncio.to_thread((await self._rendered.local(row.file)).read_bytes)
        try:
            joints = joints_of(listed)
        except ValueError as error:
            raise DamagedFile(str(error)) from None
        found = []
        for joint in joints:
            piece = await self._published.object(view, row.family, piece_path(row.path, joint.sha256))
            if piece is None or piece.offset is None:
                raise DamagedFile(f"a piece of {row.path} is lost")
            found.append(JointAt(await self._rendered.local(piece.file), piece.offset, piece.size, joint))
        return found

    async def _notices(self, request: web.Request, edition: Edition, at: NoticesAt) -> web.StreamResponse:
        notices = await self._published.notices(edition.view)
        if not notices:
            raise not_found()
        return await self._made(request, at.make(notices), at.media_type, edition.cache_control(Life.SHORT), None)

    async def _absent(self, request: web.Request, edition: Edition, at: ObjectAt) -> web.StreamResponse:
        if at.absent is None:
            raise not_found()
        return await self._made(
            request, at.absent(), at.media_type, edition.cache_control(at.life), edition.view.published_at_ms
        )

    async def _page(
        self, request: web.Request, visitor: Visitor, edition: Edition, family: Family, at: PageAt
    ) -> web.StreamResponse:
        view = edition.view
        packed = at.gzip is not None and accepts_gzip(request.headers.get("Accept-Encoding", ""))
        made = await self._pages.page(view.channel_id, family, at, view.as_of_ms, visitor.client, gzipped=packed)
        if made is None:
            if at.path is None:
                raise not_found()
            return await self._object(
                request,
                visitor,
                edition,
                family,
                ObjectAt(path=at.path, media_type=at.media_type, vary=at.vary, gzip=at.gzip),
            )
        if view.as_of_ms is None:  # it goes with the time, whatever names the generation
            edition = replace(edition, index_life=INDEX_LIFE)
        content = Content(
            size=made.size,
            etag=f'"{made.sha256}"',
            modified_ms=None,  # only the tag tells: it changes without a publication
            media_type=at.media_type,
            cache_control=edition.cache_control(Life.SHORT),
            vary=_vary(at),
            encoding="gzip" if packed else None,
        )
        if made.body is not None:
            return await self._files.made(request, content, made.body)
        return await self._made_in_file(request, content, made)

    async def _made_in_file(self, request: web.Request, content: Content, made: MadePage) -> web.StreamResponse:
        async def local() -> Path:
            assert made.file is not None
            return made.file

        try:
            return await self._files.stored(request, content, Place(local=local, sha256=made.sha256, size=made.size))
        except (FileNotFoundError, DamagedFile):
            raise Problem(503, "this page is being made anew; ask again in a moment", _SOON) from None

    async def _made(
        self, request: web.Request, body: bytes, media_type: str, cache_control: str, modified_ms: int | None
    ) -> web.StreamResponse:
        content = Content(
            size=len(body),
            etag=f'"{hashlib.sha256(body).hexdigest()}"',
            modified_ms=modified_ms,
            media_type=media_type,
            cache_control=cache_control,
        )
        return await self._files.made(request, content, body)

    def _place(self, row: ObjectRow) -> Place:
        local = partial(self._rendered.local, row.file)
        return Place(local=local, sha256=row.sha256, size=row.size, offset=row.offset)


def _vary(at: ObjectAt | PageAt) -> str | None:
    """Return the headers of a request that decide what is sent."""
    return ", ".join(filter(None, (at.vary, "Accept-Encoding" if at.gzip is not None else None))) or None


def _moved(path: str) -> web.Response:
    return web.Response(status=301, headers={"Location": path})


def _spelled(raw_path: str, segments: int, better: str) -> str:
    """Return a path with its last segments spelled better; the token before them stays. Slashes in a row are one."""
    parts = raw_path.split("/")
    while segments:
        segments -= bool(parts.pop())
    return "/".join([*parts, better])
