"""The units under a real systemd, installed as the README says, and nginx in front of them by the shipped example."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import TREE, Machine, lacking, machine, readme_block

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give a machine on which the README's block was run, by root, as it stands."""
    if why := lacking():
        pytest.skip(f"NOT TESTED, the service under systemd: {why}")
    with machine(Path(tmp_path_factory.mktemp("machine"))) as made:
        # A strict umask and an interpreter of one's own first on PATH are what administrators have.
        made.sh(f"umask 077; cd {TREE}\n{readme_block('As a service')}", online=True, timeout=300)
        yield made


@pytest.fixture(autouse=True)
def _calm(host: Machine) -> Iterator[None]:
    """Start each check with the service at work and no start counted."""
    host.run("systemctl", "reset-failed")
    host.sh("systemctl start firthd.socket firthd.service")
    yield
    host.run("systemctl", "reset-failed")


def test_the_readme_makes_a_service_that_serves_in_a_sandbox(host: Machine) -> None:
    state = host.show("firthd", "ActiveState", "StatusText")
    assert state["ActiveState"] == "active"
    assert state["StatusText"].startswith("serving on ")
    told = host.sh("systemd-analyze security firthd.service --no-pager").splitlines()[-1]
    assert float(told.split(":")[1].split()[0]) <= 1.5, told
