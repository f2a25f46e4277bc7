"""The only place that brings a source's index: which parts there are, what has changed, where the copies lie."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from firth_protocol import units
from firth_protocol.errors import Upstream
from firthd.clock import Clock
from firthd.families.base import FamilyRules, Part
from firthd.mirrors.source import Job
from firthd.runs.run import LiveRun
from firthd.store.catalog import SourceIndexRow
from firthd.upstream.client import Upstream as Upstreams
from firthd.upstream.client import Validators

MAX_INDEX_BYTES = 4 << 30
LOOK_AGAIN_MS = 7 * 86_400_000
"""How long a part that the source did not have is taken as absent before it is asked for again."""


class FetchedPart(Struct, frozen=True, kw_only=True):
    """One part as it is now; `changed` False: the copy read before is still the source's."""

    row: SourceIndexRow
    encoding: str
    changed: bool


class Index(Struct, frozen=True, kw_only=True):
    parts: list[FetchedPart]

    @property
    def changed(self) -> bool:
        return any(part.changed for part in self.parts)

    @property
    def bytes(self) -> int:
        return sum(part.row.size for part in self.parts)

    def to_read(self, folder: Path, *, everything: bool) -> list[Part]:
        """Return the parts for a read task: those that changed, or all."""
        return [
            Part(
                subdir=part.row.part,
                spool=str(folder / part.row.file) if part.row.file else None,
                encoding=part.encoding,
            )
            for part in self.parts
            if part.changed or everything
        ]


class IndexFetcher:
    """Brings the index of one source, part by part; copies lie in `folder` under a name of their own."""

    def __init__(self, upstream: Upstreams, rules: FamilyRules, clock: Clock, folder: Path) -> None:
        self._upstream = upstream
        self._rules = rules
        self._clock = clock
        self._folder = folder

    async def parts(self, job: Job, known: Mapping[str, SourceIndexRow]) -> list[str]:
        """Return the parts to ask for: those that the filter names, or all that the source is found to have."""
        always = set(self._rules.first_parts)
        if job.filters.subdirs is not None:
            return sorted(always | set(job.filters.subdirs))
        now = self._clock.now_ms()
        if known and min(row.read_at for row in known.values()) > now - LOOK_AGAIN_MS:
            return sorted(always | set(known))
        found = await self._rules.probe(self._upstream, job.source)
        return sorted(always | set(found.subdirs) | set(known))

    async def fetch(self, live: LiveRun, job: Job, known: Mapping[str, SourceIndexRow], tag: str) -> Index:
        """Bring each part unless its copy is still the source's. `tag` makes the new copies' names unique."""
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        parts = []
        for name in await self.parts(job, known):
            before = known.get(name)
            if before is not None and before.file and not await asyncio.to_thread(self._has_copy, before):
                before = None
            parts.append(await self._part(live, job, name, before, tag))
        if not known and not any(part.row.file for part in parts):
            raise Upstream(
                "the source has no index in any form that this version reads",
                hint="`mirror.check` tells what stands at the address",
            )
        return Index(parts=parts)

    def _has_copy(self, row: SourceIndexRow) -> bool:
        """Tell whether a copy is there in full: it is not synced, and the machine may have lost its power since."""
        try:
            return row.file is not None and (self._folder / row.file).stat().st_size == row.size
        except FileNotFoundError:
            return False

    async def _part(self, live: LiveRun, job: Job, name: str, before: SourceIndexRow | None, tag: str) -> FetchedPart:
        candidates = self._rules.index_candidates(name)
        if before is not None and before.file:  # the form it had before comes first, so that a validator helps
            candidates = sorted(candidates, key=lambda path: path != before.url_path)
        for path in candidates:
            encoding = path.rpartition(".")[2]
            same = before is not None and before.file is not None and before.url_path == path
            validators = Validators(etag=before.etag, last_modified=before.last_modified) if before and same else None
            spool = self._folder / f"{name}.{tag}.{encoding}"

            def progress(done: int, total: int | None, path: str = path) -> None:
                of = f" / {units.size(total)}" if total else ""
                live.progress(f"{path} {units.size(done)}{of}", done=done, total=total, unit="bytes")

            fetched = await self._upstream.fetch(
                job.source, path, spool, validators=validators, max_bytes=MAX_INDEX_BYTES, progress=progress
            )
            if fetched.status == "not_modified" and before is not None:
                live.log(f"{path}: not changed")
                return FetchedPart(row=before, encoding=encoding, changed=False)
            if fetched.status == "fetched":
                live.log(f"{path}: {units.size(fetched.bytes)}")
                row = SourceIndexRow(
                    part=name,
                    url_path=path,
                    etag=fetched.validators.etag,
                    last_modified=fetched.validators.last_modified,
                    file=spool.name,
                    size=fetched.bytes,
                    records=0,
                    base_url=None,
                    read_at=self._clock.now_ms(),
                )
                return FetchedPart(row=row, encoding=encoding, changed=True)
        live.log(f"{name}: the source has none")
        gone = before is not None and before.file is not None
        row = SourceIndexRow(
            part=name,
            url_path=candidates[0],
            etag=None,
            last_modified=None,
            file=None,
            size=0,
            records=0,
            base_url=None,
            read_at=self._clock.now_ms(),
        )
        return FetchedPart(row=row, encoding="json", changed=gone or before is None)
