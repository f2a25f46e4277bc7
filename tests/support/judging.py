"""The whole path of a policy through a worker's task, over real records, beside the reference library over each."""

import asyncio
import random
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import rattler

from firth_protocol.errors import Invalid
from firth_protocol.types import Rules
from firthd.clock import SystemClock
from firthd.families.base import Spool
from firthd.families.conda.policing import POLICING
from firthd.index.messages import JudgedBy, JudgementResult, ReadParams, ReadResult
from firthd.index.read import read_task
from firthd.store.database import Database
from firthd.workers import Workers
from tests.support.records import Records, real_records, write_indexes

PLACE = "firthd.families.conda.formats:FORMATS"
POLICING_PLACE = "firthd.families.conda.policing:POLICING"
READ = "firthd.index.read:read_task"
NOW_MS = 1_790_000_000_000

File = tuple[str, str]
"""subdir, file name"""


class WorkerPath:
    """An empty state and the spools of real records; `kept` reads them with a policy."""

    def __init__(self, folder: Path, records: Records) -> None:
        self._folder = folder
        self._spools = [
            Spool(part=subdir, file=str(file), encoding="json")
            for subdir, file in write_indexes(folder, records).items()
        ]
        self.result: ReadResult | None = None

    def kept(self, rules: Rules | None) -> set[File]:
        """Return the files that a read with these rules would add."""
        self.result = read_task(self._params(rules, solve=False), lambda progress: None)
        with closing(sqlite3.connect(self._folder / "run.sqlite")) as connection:
            return set(connection.execute('SELECT part, filename FROM "add"').fetchall())

    def solved(self, rules: Rules) -> JudgementResult:
        """Return what a worker process finds that solves environments as well."""
        workers = Workers(1, SystemClock())
        result = asyncio.run(workers.run(READ, self._params(rules, solve=True), ReadResult))
        assert result.judgement is not None
        return result.judgement

    def _params(self, rules: Rules | None, *, solve: bool) -> ReadParams:
        by = JudgedBy(
            policy="p",
            stamp="p:1",
            rules=rules or Rules(),
            policing=POLICING_PLACE,
            now_ms=NOW_MS,
            file=str(self._folder / "judgement.sqlite"),
            solve=solve,
        )
        return ReadParams(
            formats=PLACE,
            state_db=str(self._folder / "firth.sqlite"),
            run_file=str(self._folder / "run.sqlite"),
            channel_id=1,
            mirror_id=1,
            spools=self._spools,
            policy=by if rules is not None else None,
        )


def worker_path(folder: Path, records: Records | None = None) -> WorkerPath:
    """Return the path over the real records, or over some."""
    asyncio.run(_empty_state(folder / "firth.sqlite"))
    return WorkerPath(folder, records if records is not None else real_records())


async def _empty_state(path: Path) -> None:
    await (await Database.open(path, SystemClock())).close()


def reference(specs: Sequence[str]) -> set[File]:
    """Return the files that py-rattler itself says match any of the specs, asked about every record."""
    parsed = [rattler.MatchSpec(spec) for spec in specs]
    return {
        (subdir, filename)
        for subdir, filename, record in package_records()
        if any(spec.matches(record) for spec in parsed)
    }


def package_records() -> Iterable[tuple[str, str, rattler.PackageRecord]]:
    """Yield each real record as py-rattler has it."""
    for subdir, listed in real_records().items():
        for filename, one in listed.items():
            yield (
                subdir,
                filename,
                rattler.PackageRecord(
                    name=one["name"],
                    version=one["version"],
                    build=rattler.BuildString(one["build"]),
                    build_number=one["build_number"],
                    subdir=subdir,
                ),
            )


def random_specs(count: int, seed: int) -> list[str]:
    """Return specs as people and records write them, about the names of the real records."""
    rng = random.Random(seed)
    every = [one for listed in real_records().values() for one in listed.values()]
    found: list[str] = []
    while len(found) < count:
        spec = _spec(rng, rng.choice(every), rng.choice(every))
        if spec is not None:
            found.append(spec)
    return found


def _spec(rng: random.Random, one: dict[str, Any], other: dict[str, Any]) -> str | None:
    name, version, build = one["name"], one["version"], one["build"]
    major = ".".join(version.split(".")[: rng.choice((1, 2))])
    texts = [
        name,
        f"{name} {version}",
        f"{name} =={version}",
        f"{name} ={major}",
        f"{name} {major}.*",
        f"{name} !={version}",
        f"{name} >={version}",
        f"{name} <{version}",
        f"{name} >{major}",
        f"{name} >={major},<{other['version']}",
        f"{name} {version} {build}",
        f"{name} * {build[:2]}*",
        f"{name}={version}={build}",
        f"{name} <{major}|>={version}",
        f"{name}[build_number='>={one['build_number']}']",
        f"{name}[version='>={version}',build='{build}']",
        rng.choice(one["depends"] or [name]),
    ]
    text = rng.choice(texts)
    if text.startswith("__"):
        return None
    try:
        POLICING.requirement(text)
    except Invalid:  # what a policy does not take
        return None
    return str(text)
