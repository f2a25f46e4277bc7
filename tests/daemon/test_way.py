"""The way of one record, followed by its name from the source's bytes to the served object: which files it passes."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import firthd
from tests.support.conda_state import CondaState

NAME = "quokka"
MOST = 20
DAEMON = Path(firthd.__file__).parent
AS_FILES_AND_ROWS = {
    "mirrors/fetch_index.py": "lays the source's bytes into a spool",
    "mirrors/run.py": "lets the spool be read",
    "mirrors/readers.py": "gives it to a worker",
    "store/run_file.py": "writes what the worker adds into the run's file",
    "mirrors/take_in.py": "lets the run's file become a change set",
    "store/artifacts.py": "copies its rows in",
    "channels/publish.py": "lets the change set be rendered",
    "store/objects.py": "copies the objects in",
    "web/site.py": "finds the object at its address",
    "web/files.py": "sends its bytes",
}
"""Where it goes by inside a file or an SQL statement, so that no function has it in hand."""


BESIDE = {"index/summaries.py", "index/set_hash.py", "families/conda/shards.py", "index/packs.py"}
"""Where it leaves its name beside the index: in its package's summary and digest, and in its shard, another object."""


def holds(value: object) -> bool:
    """Tell whether a value is the record, its name or a few of such, looked at without opening what is large."""
    if isinstance(value, str):
        return NAME in value
    if isinstance(value, bytes | memoryview):
        return NAME.encode() in bytes(value)
    if isinstance(value, tuple | list | set):
        return len(value) < 100 and any(map(holds, value))
    fields = getattr(value, "__struct_fields__", ())
    return any(holds(getattr(value, field)) for field in fields)


@contextmanager
def followed(seen: list[str]) -> Iterator[None]:
    """Note each of the daemon's files of which a function has the record in hand, in the order of the first time."""

    def look(frame: FrameType, event: str, argument: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event not in {"call", "return"} or not file.is_relative_to(DAEMON):
            return
        name = file.relative_to(DAEMON).as_posix()
        if name not in seen and (any(map(holds, list(frame.f_locals.values()))) or holds(argument)):
            seen.append(name)

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)


def test_a_record_passes_few_files(tmp_path: Path) -> None:
    record = {"name": NAME, "version": "1.0", "build": "0", "build_number": 0, "depends": [], "sha256": "ab" * 32}
    source = tmp_path / "repodata.json"
    source.write_text(json.dumps({"packages": {}, "packages.conda": {f"{NAME}-1.0-0.conda": record}}))
    state = CondaState(tmp_path)
    seen: list[str] = []
    with followed(seen):
        state.take({"noarch": source})
        result = state.publish()
    (index,) = (file for file in result.files if file.path == "noarch/repodata.json")
    assert NAME in Path(index.file).read_text()
    way = [*(name for name in seen if name not in BESIDE), *AS_FILES_AND_ROWS]
    print("\n".join(way))
    assert {"families/conda/records.py", "index/compare.py", "index/render.py", *BESIDE} <= set(seen)
    assert all((DAEMON / name).is_file() for name in AS_FILES_AND_ROWS)
    assert len(set(way)) <= MOST
