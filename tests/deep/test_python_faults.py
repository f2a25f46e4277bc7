"""What a source does wrong with one page or one file of a Python index: it is told, and all else is published."""

from pathlib import Path

import pytest

from firth_protocol.types import RunState
from firthd.config import UpstreamSettings
from tests.support.daemon import settings_in
from tests.support.python import JSON, python_world
from tests.support.upstream import Fault

pytestmark = [pytest.mark.deep, pytest.mark.timeout(120)]

NAMES = ["alpha-one", "beta", "gamma"]
PAGE = {"Content-Type": JSON}
FAULTS = {
    "500": Fault(status=500),
    "403": Fault(status=403),
    "truncated": Fault(cut_after=20),
    "corrupt": Fault(status=200, body=b'{"files": [{"filename":', headers=PAGE),
    "slow": Fault(pace_s=0.4, chunk_bytes=1),
    "dropped": Fault(drop=True),
    "gone": Fault(status=404),
    "empty": Fault(status=200, body=b"", headers=PAGE),
}


@pytest.mark.parametrize("mode", ["active", "passive"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_bad_page_stays_as_it_was(tmp_path: Path, fault: str, mode: str) -> None:
    settings = settings_in(tmp_path, upstream=UpstreamSettings(timeout_s=0.3))
    async with python_world(tmp_path, settings=settings) as w:
        await w.python(mode, filters={"projects": NAMES})
        assert (await w.run("main:p")).state is RunState.COMPLETED
        w.index.add("beta", "3.0")
        w.index.add("gamma", "0.2", kind="sdist")
        planned = FAULTS[fault]
        if fault in {"truncated", "slow"}:  # these happen to bytes that are there
            body = w.index.page_json("beta")
            w.upstream.route("simple/beta/", lambda seen: body)
            w.upstream.content_types["simple/beta/"] = JSON
        w.upstream.fail("simple/beta/", planned, times=None)
        run = await w.run("main:p")
        assert run.state is (RunState.COMPLETED if fault == "gone" else RunState.INCOMPLETE), run
        assert len(await w.files("gamma")) == 2
        assert len(await w.files("beta")) == (0 if fault == "gone" else 2)
        if run.state is RunState.INCOMPLETE:
            failed = (await w.call("mirror.details", mirror="main:p")).failed
            assert [(one.part, one.filename) for one in failed] == [("beta", "")]
        w.upstream.heal()
        w.index.serve(w.upstream)
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("beta")) == 3


@pytest.mark.parametrize("fault", ["500", "403", "truncated", "corrupt", "slow", "dropped", "gone"])
async def test_a_bad_file_is_told_and_comes_later(tmp_path: Path, fault: str) -> None:
    settings = settings_in(tmp_path, upstream=UpstreamSettings(timeout_s=0.3))
    async with python_world(tmp_path, settings=settings) as w:
        await w.python("active", filters={"projects": NAMES})
        file = w.index.projects["beta"][1].filename
        w.upstream.fail(f"files/beta/{file}", FAULTS[fault], times=None)
        run = await w.run("main:p")
        assert run.state is RunState.INCOMPLETE, run
        failed = (await w.call("mirror.details", mirror="main:p")).failed
        assert [(one.part, one.filename) for one in failed] == [("beta", file)]
        assert await w.files("beta") == ["beta-1.0-py3-none-any.whl"]
        assert len(await w.files("gamma")) == 1
        w.upstream.heal()
        assert (await w.run("main:p")).state is RunState.COMPLETED
        assert len(await w.files("beta")) == 2
