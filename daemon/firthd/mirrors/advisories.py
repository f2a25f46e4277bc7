"""The only place that takes advisories in, and lets people set what they know of them; policies about flaws follow."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET

from firth_protocol.errors import Invalid, NotFound, Upstream
from firth_protocol.events import Fact
from firth_protocol.methods import AdvisoryImport, AdvisoryList, AdvisoryReply, AdvisorySet, RunReply
from firth_protocol.types import AdvisoryFormat, AdvisoryInfo, AdvisoryStatus, Family, RunKind, StepName
from firthd.channels.manage import write
from firthd.channels.policies import ADVISORIES, queue_refilters
from firthd.clock import maybe_rfc3339, rfc3339
from firthd.index.messages import AdvisoriesParams, AdvisoriesResult
from firthd.mirrors.context import Context
from firthd.mirrors.govern import Governor
from firthd.policies.advisories import Advisory, decode_advisory
from firthd.runs.run import LiveRun, Outcome
from firthd.store import advisories, journal
from firthd.store.advisories import AdvisoryRow
from firthd.store.database import Reader, Tx
from firthd.store.paging import Cut
from firthd.upstream.client import Source
from firthd.worker import TaskProgress

READ = "firthd.index.advisories:read_task"
A_WRITE = 500


class Advisories:
    """The verbs on advisories, and runs of kind advisory."""

    def __init__(self, context: Context, governor: Governor) -> None:
        self._p = context
        self._governor = governor

    # --- verbs

    async def import_(self, params: AdvisoryImport, by: str) -> RunReply:
        """Queue a run that reads advisories; raise Invalid for what is neither a path nor an address."""
        try:
            parts = urlsplit(params.source)
            _ = parts.port
        except ValueError:
            raise Invalid("the address of the advisories cannot be taken apart", path="$.source") from None
        if "\0" in params.source:
            raise Invalid("a place of advisories cannot hold a NUL character", path="$.source")
        address = parts.scheme in {"http", "https"}
        if parts.username or parts.password or (address and parts.query):
            raise Invalid(
                "an address of advisories carries no secrets, and no query",
                hint="fetch it yourself, and give the path of the file",
                path="$.source",
            )
        if not address and not Path(params.source).is_absolute():
            raise Invalid(
                f"{params.source!r} is no absolute path and no http address",
                hint="give a zip, a folder or a file of the daemon's machine, or an address",
                path="$.source",
            )

        async def body(tx: Tx) -> tuple[int, int]:
            wanted = {"source": params.source, "format": params.format}
            return await self._p.queue.submit(tx, RunKind.ADVISORY, cause="by hand", by=by, params=wanted)

        run_id, seq = await write(self._p.db, body, dry_run=params.dry_run)
        return RunReply(run=None if params.dry_run else await self._p.queue.get(run_id), seq=seq)

    async def page(self, r: Reader, params: AdvisoryList) -> Cut[AdvisoryInfo]:
        """Return a page of advisories by id."""
        rows, following, total = await advisories.page(
            r, query=params.query, status=params.status, cursor=params.cursor, limit=params.limit
        )
        return Cut(items=[describe(row) for row in rows], following=following, total=total)

    async def set(self, params: AdvisorySet, by: str) -> AdvisoryReply:
        """Set what is known of an advisory by hand; raise NotFound."""

        async def body(tx: Tx) -> tuple[AdvisoryInfo, list[int], int]:
            row = (await advisories.by_ids(tx, [params.id])).get(params.id)
            if row is None:
                raise NotFound(f"there is no advisory {params.id!r}", hint="`advisory.list` with `query` finds them")
            before = decode_advisory(row.document)
            now = msgspec.structs.replace(
                before,
                status=before.status if params.status is UNSET else params.status,
                score_set=before.score_set if params.score is UNSET else params.score,
            )
            row = msgspec.structs.replace(
                row,
                document=msgspec.json.encode(now),
                status=now.status,
                set_by=by,
                set_at=self._p.clock.now_ms(),
                note=row.note if params.note is UNSET else params.note,
            )
            await advisories.put(tx, [row])
            runs = await self._changed(tx, f"advisory {row.id} was set", by) if now != before else []
            seq = await self._p.journal.fact(
                tx, Fact.ADVISORY_SET, ids={"advisory": row.id}, data={"status": now.status, "score": now.score_set}
            )
            return describe(row), runs, seq

        told, runs, seq = await write(self._p.db, body, dry_run=params.dry_run)
        await self._p.policies.load()
        shown = [] if params.dry_run else [await self._p.queue.get(run) for run in runs]
        return AdvisoryReply(advisory=told, runs=shown, seq=seq)

    async def _changed(self, tx: Tx, cause: str, by: str) -> list[int]:
        """Note that advisories are others now; queue what makes the policies about them true."""
        number = int(await journal.setting(tx, ADVISORIES) or 0)
        await journal.set_setting(tx, ADVISORIES, str(number + 1))
        mirrors = await self._governor.about_flaws(tx)
        return await queue_refilters(tx, self._p.queue, mirrors, cause=cause, by=by)

    # --- the run

    async def run(self, live: LiveRun) -> Outcome:
        """Read advisories into the state; what was set by hand stays."""
        folder = self._p.run_folder(live.id)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        try:
            return await self._run(live, folder)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    async def _run(self, live: LiveRun, folder: Path) -> Outcome:
        source = str(live.row.params["source"])
        async with live.step(StepName.FETCH_INDEX):
            place = await self._place(live, source, folder / "fetched")
            params = AdvisoriesParams(
                place=place,
                own=live.row.params["format"] == AdvisoryFormat.LINES,
                policings=[rules.policing for rules in self._p.families.values() if rules.policing is not None],
                out=str(folder / "advisories.jsonl"),
                max_bytes=self._p.max_part_bytes,
            )

            def tell(progress: TaskProgress) -> None:
                live.progress(progress.description, done=progress.done, unit=progress.unit)

            found = await self._p.workers.run(READ, params, AdvisoriesResult, progress=tell)
            for why, count in found.reasons.items():
                live.log(f"{count:,} skipped: {why}", "warning")
            live.progress(f"{found.read:,} advisories, {found.skipped:,} skipped", done=found.read, total=found.read)
        async with live.step(StepName.PLAN):
            added, changed = await self._take_in(folder / "advisories.jsonl")
            data = {"added": added, "changed": changed, "withdrawn": found.withdrawn, "skipped": found.skipped}

            async def done(tx: Tx) -> None:
                if added or changed:
                    await self._changed(tx, "advisories were imported", live.row.by)
                await self._p.journal.fact(tx, Fact.ADVISORIES_IMPORTED, data=data)

            await self._p.db.write(done)
            await self._p.policies.load()
            live.count(added=added)
            live.progress(f"{added:,} new, {changed:,} changed", done=added + changed, total=added + changed)
        return Outcome(result=data)

    async def _place(self, live: LiveRun, source: str, spool: Path) -> str:
        """Return where the advisories lie, brought from their address if need be."""
        if urlsplit(source).scheme not in {"http", "https"}:
            return source
        root, _, name = source.rpartition("/")

        def tell(done: int, total: int | None) -> None:
            live.received(0)
            live.progress(f"{name} {done:,} bytes", done=done, total=total, unit="bytes")

        fetched = await self._p.upstream.fetch(
            Source(url=root),
            name,
            spool,
            max_bytes=self._p.max_part_bytes,
            setting="upstream.max_index_bytes",
            until=self._p.upstream.index_deadline(),
            progress=tell,
            room=self._p.space.enough,
        )
        if fetched.status != "fetched":
            raise Upstream(f"there are no advisories at the address: {fetched.status}")
        return str(spool)

    async def _take_in(self, file: Path) -> tuple[int, int]:
        added = changed = 0
        lines = (await asyncio.to_thread(file.read_bytes)).splitlines()
        for start in range(0, len(lines), A_WRITE):
            found = {one.id: one for one in map(decode_advisory, lines[start : start + A_WRITE])}
            now = self._p.clock.now_ms()

            async def some(tx: Tx, found: dict[str, Advisory] = found, now: int = now) -> tuple[int, int]:
                before = await advisories.by_ids(tx, list(found))
                rows = [row for one in found.values() if (row := merged(one, before.get(one.id), now)) is not None]
                await advisories.put(tx, rows)
                new = sum(row.id not in before for row in rows)
                return new, len(rows) - new

            new, others = await self._p.db.write(some)
            added, changed = added + new, changed + others
        return added, changed


def merged(one: Advisory, before: AdvisoryRow | None, now_ms: int) -> AdvisoryRow | None:
    """Return the row of an imported advisory, with what was set by hand; None where nothing has changed."""
    if before is not None and before.set_by is not None:
        known = decode_advisory(before.document)
        one = msgspec.structs.replace(one, status=known.status, score_set=known.score_set)
    document = msgspec.json.encode(one)
    if before is not None and before.document == document:
        return None
    return AdvisoryRow(
        id=one.id,
        families=msgspec.json.encode(sorted({affected.family for affected in one.affected})).decode(),
        names="\n".join(sorted({affected.name for affected in one.affected})),
        document=document,
        status=one.status,
        imported_at=now_ms,
        set_by=before.set_by if before is not None else None,
        set_at=before.set_at if before is not None else None,
        note=before.note if before is not None else "",
    )


def decoded(row: AdvisoryRow) -> Advisory:
    """Return what policies read of an advisory."""
    return decode_advisory(row.document)


def describe(row: AdvisoryRow) -> AdvisoryInfo:
    """Return an advisory as clients see it."""
    one = decode_advisory(row.document)
    families: Sequence[str] = msgspec.json.decode(row.families)
    return AdvisoryInfo(
        id=row.id,
        aliases=one.aliases,
        families=[Family(family) for family in families],
        packages=row.names.splitlines(),
        summary=one.summary,
        score=one.told_score,
        status=AdvisoryStatus(row.status),
        withdrawn=one.withdrawn,
        modified=one.modified,
        imported_at=rfc3339(row.imported_at),
        set_by=row.set_by,
        set_at=maybe_rfc3339(row.set_at),
        note=row.note,
    )
