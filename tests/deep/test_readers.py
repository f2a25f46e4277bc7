"""A run whose index two workers read, each into a file of its own: one change set, one generation."""

import json
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.types import RunState
from firthd.channels.renders import WORTH_RECORDS
from tests.support.world import World, world

pytestmark = [pytest.mark.deep, pytest.mark.timeout(180)]

RECORDS = 6_000


def record(name: str, size: int) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "build": "0", "sha256": "ab" * 32, "size": size, "depends": ["x" * 300]}


def listed(step: int) -> dict[str, dict[str, Any]]:
    """Return what each part lists: more than a second worker is worth; a later step changes, adds and takes away."""
    return {
        part: {
            f"p{number:05}-1.0-0.conda": record(f"p{number:05}", 1 + (step if number % 100 == 1 else 0))
            for number in range(first + step, first + RECORDS + step)
        }
        for part, first in (("linux-64", 0), ("noarch", RECORDS // 2))
    }


def write(folder: Path, parts: dict[str, dict[str, Any]]) -> None:
    for part, records in parts.items():
        (folder / part).mkdir(exist_ok=True, parents=True)
        (folder / part / "repodata.json").write_text(json.dumps({"packages": {}, "packages.conda": records}))
        (folder / part / "repodata.json.zst").unlink(missing_ok=True)


async def served(w: World) -> dict[str, dict[str, Any]]:
    found = {}
    for part in ("linux-64", "noarch"):
        found[part] = {name: json.loads(raw) for name, raw in (await w.records(part)).items()}
    return found


async def test_a_run_takes_in_what_two_workers_have_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "firthd.workers")
    async with world(tmp_path) as w:
        write(w.source.path, listed(0))
        await w.mirror("passive")
        for step in (0, 1):
            write(w.source.path, listed(step))
            run = await w.run()
            assert (run.state, run.generation) == (RunState.COMPLETED, 2 + step)
            assert await served(w) == listed(step)
            readers = [one for one in caplog.messages if "read_task ended" in one]
            assert len(readers) == 2 * (step + 1)


async def test_two_workers_render_a_part_that_was_there_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "firthd.workers")
    parts = {
        part: {f"p{number}-1-0.conda": {"name": f"p{number}", "version": "1", "build": "0"} for number in range(count)}
        for part, count in (("noarch", WORTH_RECORDS + 1), ("linux-64", WORTH_RECORDS))
    }
    async with world(tmp_path) as w:
        write(w.source.path, parts)
        await w.mirror("passive")
        await w.mirror("passive", name="other")  # or the channel's first index would be rendered while it is read
        assert (await w.run()).state is RunState.COMPLETED
        assert await served(w) == parts
    assert len([one for one in caplog.messages if "render_task ended" in one]) == 3  # two, and one that sums up
