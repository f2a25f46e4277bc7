"""The only place that brings parts of a source which a judgement wants: packages that what is allowed needs.

A policy names what is allowed, not what that needs: each look at what came names more. What is here brings it, as the
family's `requests` do, and remembers for the run what its index is by now.
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from firth_protocol.types import RunKind
from firthd.families.base import FamilyRules
from firthd.index.messages import ReadParams
from firthd.mirrors.context import Context
from firthd.mirrors.fetch_index import Came, IndexFetcher
from firthd.mirrors.index import Index
from firthd.mirrors.source import Job
from firthd.runs.run import LiveRun
from firthd.store.catalog import SourceIndexRow
from firthd.store.database import Tx

PARTS_MAX = 50_000
"""Parts that one run brings for what others need; what it leaves is told, and wanted again by the next one."""
SHOWN = 3

Fetch = Callable[[Job, str], Coroutine[Any, Any, Index]]
"""Brings what a job's filters name, as copies with this in their names."""


def fetching(
    live: LiveRun, fetcher: IndexFetcher, known: Mapping[str, SourceIndexRow], came: Came | None = None
) -> Fetch:
    """Return what brings more parts for a run; `came` hears of each that has come."""
    return lambda job, tag: fetcher.fetch(live, job, known, f"{live.id}{tag}", came=came, others=True)


def with_known(job: Job, rules: FamilyRules, known: Mapping[str, SourceIndexRow]) -> Job:
    """Return a job that takes, beside what its policy names, the parts that were brought for it before."""
    named = rules.only(job.filters) or frozenset()
    return _naming(job, rules, [*named, *brought(rules, known)]) if job.grows else job


def brought(rules: FamilyRules, known: Mapping[str, SourceIndexRow]) -> list[str]:
    """Return the packages among the parts that are known of a source which is mirrored by packages."""
    return [part for part in known if rules.lazy is not None and rules.lazy.ask(part) is not None]


def _naming(job: Job, rules: FamilyRules, names: Sequence[str]) -> Job:
    return job if rules.named is None else replace(job, filters=rules.named(job.own, sorted(set(names))))


class WantedParts:
    """What a run has of its index, and how it gets more; `fetch` None: it asks no source."""

    def __init__(
        self,
        job: Job,
        rules: FamilyRules,
        index: Index,
        folder: Path,
        fetch: Fetch | None,
        tell: Callable[[str], None],
        most: int = PARTS_MAX,
    ) -> None:
        self._tell = tell
        self._most = most
        self._job = job
        self._rules = rules
        self._folder = folder
        self._fetch = fetch
        self._rounds = 0
        self._tried: set[str] = set()
        self.index = index
        self.left: list[str] = []
        """What is wanted still."""

    async def bring(self, wanted: Sequence[str]) -> bool:
        """Bring parts unless they were asked for; tell whether there may be more to judge now.

        One that cannot be had is a failure of that part. Raises Upstream where the source fails as a whole.
        """
        asked = {part.row.part for part in self.index.parts} | self._tried
        self.left = [name for name in wanted if name not in asked]
        fresh = self.left[: self._most - len(self._tried)]
        if self._fetch is None or not self._job.grows or not fresh:
            return False
        self._rounds += 1
        self._tried.update(fresh)
        self._tell(f"reads what the source has of {len(fresh):,} packages that are needed")
        more = await self._fetch(_naming(self._job, self._rules, fresh), f"g{self._rounds}")
        named = frozenset(fresh)
        parts = {part.row.part: part for part in self.index.parts}
        parts |= {part.row.part: part for part in more.parts if part.row.part in named}
        self.index = replace(
            self.index,
            parts=[part for _, part in sorted(parts.items())],
            failed=self.index.failed + more.failed,
            marked=self.index.marked | more.marked,
        )
        self.left = self.left[len(fresh) :]
        return True

    @property
    def told(self) -> str:
        """What is wanted and was not read, in words."""
        more = f" and {len(self.left) - SHOWN:,} more" if len(self.left) > SHOWN else ""
        return f"{', '.join(self.left[:SHOWN])}{more}"

    def params(self, params: ReadParams) -> ReadParams:
        """Return what a worker is to read now: of a job that grows all that its index has by now."""
        if not self._job.grows:
            return params
        only = frozenset(params.only or ()) | {part.row.part for part in self.index.parts}
        spools = self.index.to_read(self._folder, everything=True)
        return replace(params, spools=spools, only=sorted(only))


async def queue_run(context: Context, live: LiveRun, job: Job) -> None:
    """Queue a run of the mirror, which asks its source, after one that may not."""
    live.note("a run of the mirror was queued, which reads them")
    await context.db.write(lambda tx: submit(tx, context, live, job, RunKind.MIRROR))


async def submit(tx: Tx, context: Context, live: LiveRun, job: Job, kind: RunKind) -> None:
    """Queue a run that does what this one may not, or does not know that it should; it waits for its end."""
    await context.queue.submit(
        tx,
        kind,
        channel_id=job.channel_id,
        channel=live.row.channel or "",
        mirror_id=job.mirror_id,
        cause="a policy asks for what was never read",
        by=live.row.by,
    )
