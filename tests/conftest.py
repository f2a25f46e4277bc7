"""What every test gets: a blocking call inside the daemon's loop fails it; tests marked `deep` wait for `--deep`."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

ALLOWED = {
    # Written inline per chunk: measured faster than a hop to a thread, and below 0.3 ms.
    "os.write": {("store/incoming.py", "write"), ("upstream/spool.py", "write")},
    # A temporary file thrown away, or looked at, in the page cache.
    "os.unlink": {("store/incoming.py", "abort")},
    "os.stat": {("store/blobs.py", "size"), ("store/blobs.py", "has")},
    # /proc answers from memory.
    "io.TextIOWrapper.read": {("vitals.py", "rss_bytes")},
    # Non-blocking: the socket is; waiting for room goes through the loop.
    "os.sendfile": {("web/wire.py", "_step")},
    # The list of migrations, read in a thread by `migrate`, and by tests as they please.
    "os.listdir": {("store/database.py", "migrations")},
}
WORKERS_ONLY = ["firthd.store.run_file", "firthd.store.worker_reads"]
"""Modules of worker processes, which have no event loop."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the deep tests out unless they are asked for; a `-m` of the caller's works beside it."""
    if config.getoption("--deep"):
        return
    deep = [item for item in items if item.get_closest_marker("deep") is not None]
    if deep:
        config.hook.pytest_deselected(items=deep)
        items[:] = [item for item in items if item.get_closest_marker("deep") is None]


@pytest.fixture(autouse=True)
def _no_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """Guard the daemon's modules; tests of processes of their own have nothing to guard."""
    if any(request.node.get_closest_marker(marker) is not None for marker in ("e2e", "deep")):
        yield
        return
    with blockbuster_ctx(["firthd"], excluded_modules=WORKERS_ONLY) as guard:
        allow(guard)
        yield


def allow(guard: BlockBuster) -> None:
    """Say which calls are made on purpose, and where."""
    for name, places in ALLOWED.items():
        for file, function in places:
            guard.functions[name].can_block_in(f"firthd/{file}", function)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a case by bytes only where these are short and the same in every process: archives hold times."""
    return argname if isinstance(val, bytes) and (len(val) > 60 or val.startswith((b"\x1f\x8b", b"PK"))) else None
