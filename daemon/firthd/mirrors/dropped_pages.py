"""The only place that asks for pages of lazy parts that their source's list has dropped: gone, or taken back."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable

from firth_protocol.errors import FirthError
from firthd.families.base import FamilyRules, Spool
from firthd.mirrors.context import Context
from firthd.mirrors.pages import LazyPages
from firthd.mirrors.reading import marks_reader
from firthd.mirrors.source import Job, job_of, rules_of
from firthd.runs.run import LiveRun, Outcome
from firthd.store import catalog, pages

AT_ONCE = 8
ASKED_MOST = 2_000
"""Pages that one run asks for; the others are asked for when clients want them."""

Executor = Callable[[LiveRun], Awaitable[Outcome]]


class DroppedPages:
    """Follows what a run of a mirror has read of its source's list."""

    def __init__(self, context: Context, lazy: LazyPages) -> None:
        self._p = context
        self._lazy = lazy

    def behind(self, run: Executor) -> Executor:
        """Return an executor of runs that looks at dropped pages once a run has read a list; that fails no run."""

        async def executor(live: LiveRun) -> Outcome:
            outcome = await run(live)
            try:
                await self._follow(live)
            except FirthError as error:
                live.log(f"pages that the list has dropped were not looked at: {error.message}", "warning")
            return outcome

        return executor

    async def _follow(self, live: LiveRun) -> None:
        mirror_id = live.row.mirror_id or 0
        mirror = await self._p.db.read(lambda r: catalog.mirror_by_id(r, mirror_id))
        if mirror is None or (rules := rules_of(self._p.families, mirror.type)).lazy is None:
            return
        known = await self._p.db.read(lambda r: pages.newest_there(r, mirror_id))
        takes = self._p.policies.filters_of(mirror)
        parts = {part for part in known if rules.lazy.is_lazy(part, takes, mirror.mode)}
        if not parts:
            return
        dropped = parts - await self._listed(live, job_of(mirror, self._p.secrets), rules, parts)
        wanted = sorted(dropped)[:ASKED_MOST]
        places = asyncio.Semaphore(AT_ONCE)

        async def one(part: str) -> bool:
            async with places:
                return await self._lazy.read_again(mirror, rules, part)

        read = sum(await asyncio.gather(*(one(part) for part in wanted)))
        if wanted:
            live.log(f"the list has dropped {len(dropped):,} projects whose pages were read: {read:,} were asked for")

    async def _listed(self, live: LiveRun, job: Job, rules: FamilyRules, parts: set[str]) -> set[str]:
        """Return which of these parts the list that this run has read still has; all of them where it read none."""
        rows = await self._p.db.read(lambda r: catalog.source_indexes(r, job.mirror_id))
        read = [row for row in rows.values() if row.file is not None and row.settled == live.id]
        if not read:
            return parts
        folder = self._p.run_folder(live.id)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        try:
            marks = marks_reader(self._p, rules, folder)
            source = self._p.source_folder(job.mirror_id)
            found: set[str] = set()
            for row in read:
                spool = Spool(part=row.part, file=str(source / (row.file or "")), encoding=row.encoding)
                found |= (await marks(spool, parts)).keys()
            return found
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
