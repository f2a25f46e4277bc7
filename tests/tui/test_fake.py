"""The fake daemon promises no more than the real one: its methods, parameters and replies are the table's."""

from pathlib import Path
from typing import Any

import pytest

from firth_protocol.client import Client, DaemonUnreachable
from firth_protocol.errors import FirthError
from firth_protocol.methods import METHODS
from tests.support.fake_daemon import DOES, FakeDaemon


def test_it_offers_no_method_that_the_table_lacks(tmp_path: Path) -> None:
    there = {name.removeprefix(DOES) for name in dir(FakeDaemon) if name.startswith(DOES)}
    assert there - {name.replace(".", "_") for name in METHODS} == set()
    assert FakeDaemon(tmp_path / "s").offered == set(METHODS)


class Liar(FakeDaemon):
    """Answers what no daemon does."""

    def _do_run_get(self, run: int) -> Any:
        return {"id": run, "state": "dancing"}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        pytest.param("run.get", {"run": 1}, id="a reply that is not the table's"),
        pytest.param("channel.list", {"colour": "blue"}, id="a parameter that the table lacks"),
    ],
)
async def test_what_is_not_in_the_table_fails(tmp_path: Path, method: str, params: dict[str, Any]) -> None:
    async with Liar(tmp_path / "s") as daemon, Client(daemon.socket) as client:
        with pytest.raises((DaemonUnreachable, FirthError)):
            await client.call(method, **params)
