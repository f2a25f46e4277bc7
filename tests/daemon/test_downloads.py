"""Downloads, from a client's request to whoever asks who fetched what."""

from pathlib import Path

import pytest

from firth_protocol.errors import NotFound
from tests.support.daemon import in_process_daemon
from tests.support.world import world


async def test_who_fetched_what_is_told_also_by_the_next_daemon(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        names = sorted(await w.records("noarch"))
        token = (await w.call("token.create", name="build farm")).token
        for _ in range(2):
            assert (await w.get(f"/repo/main/noarch/{names[0]}")).status == 200
        assert (await w.get(f"/t/{token}/repo/main/noarch/{names[0]}")).status == 200
        report = await w.call("report.downloads", channel="main", by=["token"])
        assert {(row.token, row.downloads) for row in report.items} == {("", 2), ("build farm", 1)}
        package = report.items[0].package
        detail = await w.call("package.get", channel="main", name=package)
        assert detail.downloads == 3
        [(version, count)] = detail.downloads_by_version.items()
        assert count == 3
        listed = await w.call("package.list", channel="main", query=package)
        assert {one.name: one.downloads for one in listed.items}[package] == 3
        most = await w.call("package.list", channel="main", sort="-downloads", limit=1)
        rest = await w.call("package.list", channel="main", sort="-downloads", cursor=most.next_cursor)
        assert [one.name for one in most.items] == [package]
        assert (len(rest.items), {one.downloads for one in rest.items}) == (most.total - 1, {0})
        csv = await w.call("report.downloads", by=["version"], format="csv")
        assert csv.text == f"channel,family,package,version,downloads\nmain,conda,{package},{version},3\n"
        with pytest.raises(NotFound):
            await w.call("report.downloads", channel="none")
        daemon = w.daemon.daemon
        await w.get(f"/snapshot/2/main/noarch/{names[0]}")
        daemon.usage.note(  # the last client, while all else has ended
            (await daemon.published.file(daemon.published.current("main"), "conda", "noarch", names[0])),  # type: ignore[arg-type]
            0,
        )
    async with in_process_daemon(tmp_path) as again:
        found = await again.client.call("report.downloads", channel="main", by=[])
        assert [row.downloads for row in found.items] == [5]
