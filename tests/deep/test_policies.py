"""2,000 random specs over real records: what a worker keeps is what py-rattler says of every record."""

from pathlib import Path

import pytest

from tests.daemon.policies.records import rules_of
from tests.support.judging import random_specs, reference, worker_path

pytestmark = [pytest.mark.deep, pytest.mark.timeout(900)]

SPECS = 2000
A_POLICY = 8


def test_two_thousand_specs(tmp_path: Path) -> None:
    path = worker_path(tmp_path)
    specs = random_specs(SPECS, seed=2)
    for start in range(0, SPECS, A_POLICY):
        some = specs[start : start + A_POLICY]
        allow, exclude = some[: A_POLICY // 2], some[A_POLICY // 2 :]
        kept = path.kept(rules_of(packages={"allow": allow, "exclude": exclude}))
        assert kept == reference(allow) - reference(exclude), (allow, exclude)
