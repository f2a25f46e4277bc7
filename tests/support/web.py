"""A web server of ours over real files: what is published is said by the test, the rest is the real thing."""

import asyncio
import hashlib
import itertools
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import zstandard

from firth_protocol.errors import FirthError, NoSpace, NotFound
from firth_protocol.types import Family, Notice, Privacy
from firthd.access import WebTokens, token_hash
from firthd.channels.published import View
from firthd.channels.showcase import (
    ChannelShown,
    FamilyShown,
    Found,
    Listing,
    PackageShown,
    ReadListing,
    Wanted,
)
from firthd.clock import Clock, SystemClock
from firthd.config import UpstreamSettings, WebSettings
from firthd.families.addresses import PageAt
from firthd.families.conda.family import CONDA
from firthd.mirrors.on_demand import Helpers, OnDemand
from firthd.serving import Limits, web_limits
from firthd.store.artifacts import FileRow
from firthd.store.blobs import BlobStore, Kept
from firthd.store.made_pages import MadePage
from firthd.store.objects import ObjectRow, whole
from firthd.store.showcase import ListedPackageRow, SnapshotRow
from firthd.store.tokens import TokenRow
from firthd.upstream.client import Upstream
from firthd.upstream.source import Source
from firthd.web.app import build_app, serving
from firthd.web.context import WebContext
from tests.support.clock import FakeClock
from tests.support.rawhttp import RawClient, Reply, raw_client

PUBLISHED_MS = 1_777_500_000_000
"""2026-04-29T22:00:00Z."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: BlobStore, data: bytes) -> str:
    """Lay bytes where the store looks for them; return their sha256."""
    path = store.path(sha256(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path.name


class Shelf:
    """What is published, said by a test."""

    def __init__(self, rendered: BlobStore, blobs: BlobStore) -> None:
        self.views: dict[str, View] = {}
        self.kept: dict[tuple[str, str], View] = {}
        self.rows: dict[tuple[int, str, str], FileRow] = {}
        self.objects: dict[tuple[int, int, str], ObjectRow] = {}  # (channel, generation, path); -1: at any generation
        self.asked: list[str] = []  # names looked up as package files
        self.refused = False  # whether every file is
        self._rendered = rendered
        self._blobs = blobs
        self._ids = itertools.count(1)

    def channel(
        self, name: str, index: Mapping[str, bytes], *, privacy: Privacy = Privacy.PUBLIC, generation: int = 1
    ) -> View:
        """Publish conda index files, path to bytes."""
        view = View(
            channel_id=next(self._ids),
            channel=name,
            privacy=privacy,
            generation=generation,
            shows=generation,
            published_at_ms=PUBLISHED_MS,
        )
        for path, data in index.items():
            row = whole("conda", path, put(self._rendered, data), len(data))
            self.objects[view.channel_id, generation, path] = row
        self.views[name] = view
        return view

    def artifact(
        self, channel: str, subdir: str, filename: str, data: bytes, *, stored: bool = True, **fields: object
    ) -> FileRow:
        """List a package file; `fields` change what its record says."""
        values: dict[str, object] = {
            "id": next(self._ids),
            "channel_id": self.views[channel].channel_id,
            "mirror_id": 7,
            "family": "conda",
            "part": subdir,
            "section": "packages.conda",
            "filename": filename,
            "name": filename.split("-")[0],
            "version": "1",
            "size": len(data),
            "sha256": sha256(data),
            "md5": None,
            "declared": 2,
            "retired": False,
            "delivered": stored,
        }
        row = FileRow(**(values | fields))  # type: ignore[arg-type]  # the fields are the test's to say
        if stored:
            put(self._blobs, data)
        self.rows[(row.channel_id, subdir, filename)] = row
        return row

    def shard(self, channel: str, *shards: bytes, subdir: str = "noarch") -> list[str]:
        """Put shards behind each other into one pack; return their sha256."""
        pack = b"".join(shards)
        file = put(self._rendered, pack)
        offset = 0
        for data in shards:
            path = f"{subdir}/shards/{sha256(data)}.msgpack.zst"
            self.objects[self.views[channel].channel_id, -1, path] = ObjectRow(
                family="conda",
                path=path,
                sha256=sha256(data),
                size=len(data),
                file=file,
                offset=offset,
                lasting=True,
            )
            offset += len(data)
        return [sha256(data) for data in shards]

    # --- what the web room asks

    def current(self, channel: str) -> View | None:
        return self.views.get(channel)

    def names(self) -> list[View]:
        return [self.views[name] for name in sorted(self.views)]

    async def at(self, channel: str, when: str, now_ms: int) -> View:
        try:
            return self.kept[(channel, when)]
        except KeyError:
            raise NotFound(f"channel {channel} keeps no generation {when}; the nearest kept one is 12") from None

    async def object(self, view: View, family: str, path: str) -> ObjectRow | None:
        found = self.objects.get((view.channel_id, view.generation, path))
        return found or self.objects.get((view.channel_id, -1, path))

    async def notices(self, view: View) -> list[Notice]:
        return []

    def free(self, channel: str, file: FileRow) -> bool:
        return not self.refused

    async def file(self, view: View, family: str, subdir: str, filename: str) -> FileRow | None:
        self.asked.append(filename)
        return self.rows.get((view.channel_id, subdir, filename))


class Show:
    """What pages show of every channel, said by a test."""

    def __init__(self) -> None:
        self.listed: list[ListedPackageRow] = []
        self.families: list[FamilyShown] | None = None  # None: conda, with what is listed
        self.description = ""
        self.frozen_at_ms: int | None = None
        self.found: list[Found] = []
        self.kept: list[SnapshotRow] = []
        self.shown: dict[tuple[str, str], PackageShown] = {}  # by family and name
        self.read = ReadListing(parts=[])
        self.trouble: FirthError | None = None  # what reading a package raises
        self.wanted: list[Wanted] = []
        self.searched: list[tuple[list[str], str]] = []

    async def channels(self, views: Sequence[View]) -> dict[int, ChannelShown]:
        families = self.families
        if families is None:
            size = sum(one.bytes for one in self.listed)
            families = [FamilyShown(family=Family.CONDA, packages=len(self.listed), files=len(self.listed), bytes=size)]
        about = ChannelShown(description=self.description, frozen_at_ms=self.frozen_at_ms, families=families)
        return {view.channel_id: about for view in views}

    async def channel(self, view: View, number: int | None = None) -> ChannelShown | None:
        return (await self.channels([view]))[view.channel_id]

    async def snapshots(self, view: View) -> list[SnapshotRow]:
        return self.kept

    async def find(self, views: Sequence[View], text: str) -> list[Found]:
        self.searched.append(([view.channel for view in views], text))
        return self.found

    async def count(self, view: View, families: Sequence[Family], query: str) -> dict[Family, int]:
        return {family: sum(query in one.name for one in self.listed) for family in families}

    async def listing(self, view: View, wanted: Wanted, total: int) -> Listing:
        self.wanted.append(wanted)
        return Listing(packages=[one for one in self.listed if wanted.query in one.name], total=total)

    async def read_parts(self, view: View, family: FamilyShown, query: str, after: str | None) -> ReadListing:
        return self.read

    async def package(
        self, view: View, family: Family, name: str, version: str | None, client: str
    ) -> PackageShown | None:
        if self.trouble is not None:
            raise self.trouble
        found = self.shown.get((family, name.lower()))
        return found if found is None or version in (None, found.version) else None


class Site:
    """A running server and everything behind it."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.root = root
        self.clock = clock
        self.blobs = BlobStore(root / "blobs")
        self.rendered = BlobStore(root / "rendered")
        self.blobs.prepare()
        self.rendered.prepare()
        self.shelf = Shelf(self.rendered, self.blobs)
        self.show = Show()
        self.source = Source(url="http://127.0.0.1:1")
        self.sources: dict[int, Source] = {}  # of single mirrors
        self.nears: list[Source] = []  # asked before the source
        self.unwell: str | None = None
        self.changes = 0  # to the state
        self.changes_when_asked = False
        self.full: NoSpace | None = None
        self.broken_archives: set[str] = set()
        self.fetched: list[tuple[str, str]] = []
        self.delivered: set[tuple[int, str]] = set()  # what has come, by channel
        self.used_tokens: dict[int, int] = {}
        self.downloads: Counter[tuple[str, int]] = Counter()  # by file name and token
        self.host = "127.0.0.1"
        self.port = 0
        self.upstream: Upstream
        self.on_demand: OnDemand
        self._tokens: list[TokenRow] = []
        self.tokens = WebTokens(self._read_tokens, self._touch, clock)

    async def token(self, secret: str, *channels: str, expires_at: int | None = None) -> None:
        row = TokenRow(
            id=len(self._tokens) + 1,
            name=f"token {len(self._tokens) + 1}",
            hash=token_hash(secret),
            channels=channels,
            expires_at=expires_at,
            revoked_at=None,
        )
        self._tokens.append(row)
        await self.tokens.load()

    async def get(self, target: str, headers: dict[str, str] | None = None) -> Reply:
        async with raw_client(self.host, self.port) as client:
            return await client.get(target, headers)

    async def head(self, target: str, headers: dict[str, str] | None = None) -> Reply:
        async with raw_client(self.host, self.port) as client:
            return await client.head(target, headers)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[RawClient]:
        async with raw_client(self.host, self.port) as client:
            yield client

    # --- what on-demand fetching asks of the rest of the house

    @property
    def helpers(self) -> Helpers:
        return Helpers(
            locate=self.locate,
            space=self.space,
            check_archive=self.check_archive,
            present=self.present,
            stored=self.stored,
            near=self.near,
        )

    async def near(self, file: FileRow) -> tuple[list[Source], str]:
        return self.nears, f"{file.part}/{file.filename}"

    async def locate(self, file: FileRow) -> tuple[Source, str]:
        return self.sources.get(file.mirror_id, self.source), f"{file.part}/{file.filename}"

    async def space(self, size: int | None) -> None:
        if self.full is not None:
            raise self.full

    def check_archive(self, file: FileRow, path: Path) -> None:
        if file.filename in self.broken_archives:
            raise ValueError("the archive does not open")

    async def present(self, file: FileRow) -> Kept | None:
        if file.sha256 is None or (file.channel_id, file.sha256) not in self.delivered:
            return None
        size = self.blobs.size(file.sha256)
        return None if size is None else Kept(sha256=file.sha256, size=size)

    async def stored(self, file: FileRow, kept: Kept) -> None:
        self.delivered.add((file.channel_id, kept.sha256))
        self.fetched.append((file.filename, kept.sha256))

    async def page(
        self, channel_id: int, family: Family, at: PageAt, as_of_ms: int | None, client: str, *, gzipped: bool = False
    ) -> MadePage | None:
        """Conda has no lazy parts."""
        return None

    async def metrics(self, seen: Callable[[str], bool]) -> bytes:
        named = "".join(f'firth_mirror_enabled{{channel="{name}"}} 1\n' for name in self.shelf.views if seen(name))
        return f"firth_up 1\n{named}".encode()

    def downloaded(self, file: FileRow, token_id: int) -> None:
        self.changes += self.changes_when_asked
        self.downloads[file.filename, token_id] += 1

    async def _read_tokens(self) -> list[TokenRow]:
        return self._tokens

    async def _touch(self, used: Mapping[int, int]) -> None:
        self.used_tokens.update(used)


@asynccontextmanager
async def running_site(
    root: Path, settings: WebSettings | None = None, clock: Clock | None = None, limits: Limits | None = None
) -> AsyncIterator[Site]:
    """Serve an empty shelf on a free port; fetches ask `site.source` through the real client."""
    clock = clock or FakeClock(auto=True)
    site = await asyncio.to_thread(Site, root, clock)  # makes folders
    site.upstream = upstream = Upstream(UpstreamSettings(timeout_s=5), clock)
    async with AsyncExitStack() as stack:
        await upstream.start()
        stack.push_async_callback(upstream.close)
        site.on_demand = await stack.enter_async_context(OnDemand(upstream, site.blobs, clock, site.helpers))
        web_settings = settings or WebSettings()
        served = serving(
            build_app(
                WebContext(
                    published=site.shelf,
                    blobs=site.blobs,
                    rendered=site.rendered,
                    on_demand=site.on_demand,
                    pages=site,
                    tokens=site.tokens,
                    settings=web_settings,
                    clock=clock,
                    state=root,
                    families={Family.CONDA: CONDA},
                    showcase=site.show,
                    health=lambda: site.unwell,
                    metrics=site.metrics,
                    downloaded=site.downloaded,
                    changes=lambda: site.changes,
                )
            ),
            web_settings,
            limits or web_limits(1024),
            SystemClock(),
        )
        listener = socket.create_server(("127.0.0.1", 0))
        site.port = listener.getsockname()[1]
        await served.start([listener])
        stack.push_async_callback(served.stop)
        yield site
        await site.blobs.close()
        await site.rendered.close()


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until a condition holds; a failure ends here, where the condition's own line is in the traceback."""
    async with asyncio.timeout(seconds):
        while not condition():  # what is waited for is a file or a task of the real thing, no event
            await asyncio.sleep(0.005)


def empty_index(subdir: str) -> bytes:
    return b'{"info":{"subdir":"%s"},"packages":{},"packages.conda":{},"repodata_version":1}' % subdir.encode()


def conda_index(*subdirs: str, filler: int = 0) -> dict[str, bytes]:
    """Return all variants of an index for each subdir; `filler` bytes make the plain one larger."""
    files = {}
    for subdir in subdirs:
        plain = empty_index(subdir) + b" " * filler
        files[f"{subdir}/repodata.json"] = plain
        files[f"{subdir}/repodata.json.zst"] = zstandard.compress(plain)
        files[f"{subdir}/repodata_shards.msgpack.zst"] = zstandard.compress(b"shards of " + subdir.encode())
    return files
