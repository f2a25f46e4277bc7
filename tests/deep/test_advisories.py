"""Advisories from a folder, a zip and an address: what they say is true of a channel at once, without its source."""

import io
import zipfile
from pathlib import Path
from typing import Any

import msgspec

from firth_protocol.types import RunState
from tests.support.r_world import world


def flaw(number: int, name: str, *events: dict[str, str], **fields: Any) -> tuple[str, bytes]:
    """Return an OSV record of a package of R, and the name of its file."""
    affected = {
        "package": {"ecosystem": "CRAN", "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": list(events)}],
    }
    severity = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]
    one = {
        "id": f"RSEC-2026-{number}",
        "modified": "2026-03-01T10:00:00Z",
        "severity": severity,
        "affected": [affected],
    }
    return f"RSEC-2026-{number}.json", msgspec.json.encode(one | fields)


def zipped(*files: tuple[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files:
            archive.writestr(f"CRAN/{name}", content)
    return packed.getvalue()


async def test_advisories_of_a_folder_a_zip_and_an_address_act_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:

        async def imported(source: str) -> dict[str, int]:
            reply = await w.call("advisory.import", source=source)
            run = await w.daemon.ended(reply.run.id)
            assert run.state is RunState.COMPLETED, run
            for again in (await w.call("run.list", kind="refilter")).items:
                assert (await w.daemon.ended(again.id)).state is RunState.COMPLETED
            found: dict[str, int] = run.result or {}
            return found

        rules = {"cve": {"score": {"op": ">=", "value": 7}}}
        await w.call("policy.create", name="safe", rules=rules)
        await w.mirror(policy="safe")
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        asked = len(w.upstream.asked())

        folder = tmp_path / "osv"
        (folder / "deep").mkdir(parents=True)
        first, content = flaw(1, "alpha", {"introduced": "0"}, {"fixed": "1.2"})
        (folder / "deep" / first).write_bytes(content)
        (folder / "broken.json").write_bytes(b"{")
        (folder / "notes.txt").write_bytes(b"no advisory")
        assert await imported(str(folder)) == {"added": 1, "changed": 0, "withdrawn": 0, "skipped": 1}
        assert await w.listed() == ["beta 2.0-1"]
        refused = await w.get("src/contrib/alpha_1.1.tar.gz")
        assert (refused.status, b"policy safe, cve: RSEC-2026-1 (score 9.8" in refused.body) == (403, True)

        # a zip takes that one back and has another
        file = tmp_path / "all.zip"
        again = flaw(1, "alpha", {"introduced": "0"}, {"fixed": "1.2"}, withdrawn="2026-04-01T10:00:00Z")
        file.write_bytes(zipped(again, flaw(2, "beta", {"introduced": "0"}, {"last_affected": "2.0.1"})))
        assert await imported(str(file)) == {"added": 1, "changed": 1, "withdrawn": 1, "skipped": 0}
        assert await w.listed() == ["alpha 1.1"]
        assert len(w.upstream.asked()) == asked

        mended = flaw(2, "beta", {"introduced": "0"}, {"fixed": "2.0-1"}, modified="2026-05-01T10:00:00Z")
        w.upstream.files["osv/CRAN/all.zip"] = zipped(mended)
        assert await imported(f"{w.upstream.url}/osv/CRAN/all.zip") == {
            "added": 0,
            "changed": 1,
            "withdrawn": 0,
            "skipped": 0,
        }
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        assert await imported(f"{w.upstream.url}/osv/CRAN/all.zip") == {
            "added": 0,
            "changed": 0,
            "withdrawn": 0,
            "skipped": 0,
        }
        reply = await w.call("advisory.import", source=f"{w.upstream.url}/osv/none.zip")
        assert (await w.daemon.ended(reply.run.id)).state is RunState.FAILED
