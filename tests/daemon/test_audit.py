"""Every change leaves one line in the audit log, and a run names the line of who asked for it."""

from pathlib import Path
from typing import Any

import pytest

from firth_protocol.errors import Conflict, Invalid
from firth_protocol.types import AuditEntry, Role
from firthd.store import audit
from firthd.store.audit import Audited
from tests.support.clock import START_MS
from tests.support.daemon import in_process_daemon, settings_in
from tests.support.world import World, world


async def lines(w: World) -> list[AuditEntry]:
    """Return the audit log, oldest first."""
    page = await w.call("audit.list", limit=1000)
    return list(reversed(page.items))


async def test_each_change_has_its_line(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        before = len(await lines(w))
        secret = {"user": "kim", "password": "s3cret"}
        calls: list[tuple[str, dict[str, Any]]] = [
            ("channel.freeze", {"channel": "main"}),
            ("channel.unfreeze", {"channel": "main"}),
            (
                "mirror.create",
                {"channel": "main", "name": "m", "type": "conda", "source": w.upstream.url, "run_now": True}
                | {"credentials": secret},
            ),
            ("mirror.restart", {"mirror": "main:m"}),
            ("mirror.update", {"mirror": "main:m", "revision": 1, "credentials": None, "schedule": "daily"}),
            ("mirror.delete", {"mirror": "main:m", "confirm": "m", "packages": "remove"}),
            ("channel.update", {"channel": "main", "revision": 3, "description": "x"}),
            ("token.create", {"name": "ci"}),
            ("token.revoke", {"id": 1}),
            ("channel.delete", {"channel": "main", "confirm": "main"}),
        ]
        for method, params in calls:
            reply = await w.call(method, **params)
            found = await lines(w)
            assert [(one.method, one.outcome) for one in found[before:]] == [(method, "ok")], method
            assert found[-1].params.keys() == params.keys()
            assert "s3cret" not in str(found[-1].params)
            run = getattr(reply, "run", None)
            if run is not None:
                assert (await w.call("run.get", run=run.id)).audit == found[-1].id, method
            before = len(found)


async def test_what_changes_nothing_leaves_no_line_and_a_refusal_its_own(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.call("channel.freeze", channel="main")
        before = len(await lines(w))
        await w.call("channel.freeze", channel="main")
        await w.call("channel.unfreeze", channel="main", dry_run=True)
        assert len(await lines(w)) == before
        with pytest.raises(Conflict):
            await w.call("channel.create", name="main")
        with pytest.raises(Invalid):
            await w.call("channel.delete", channel="main", confirm="no")
        assert [one.outcome for one in (await lines(w))[before:]] == ["conflict", "invalid"]


async def test_a_start_tells_what_a_crash_has_cut_off(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with in_process_daemon(tmp_path, settings=settings) as running:
        entry = Audited(time_ms=START_MS, uid=1, pid=2, user="kim", role=Role.ADMIN, method="mirror.delete", params={})
        await running.daemon.db.write(lambda tx: audit.insert(tx, entry))
    async with in_process_daemon(tmp_path, settings=settings) as running:
        page = await running.client.call("audit.list")
        assert [(one.method, one.outcome) for one in page.items] == [("mirror.delete", "interrupted")]
