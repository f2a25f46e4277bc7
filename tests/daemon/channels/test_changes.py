"""What changed: of one package, since a time; and files that two mirrors have under one name with different bytes."""

from pathlib import Path
from typing import Any

import pytest

from firth_protocol.errors import Invalid, NotFound
from firthd.clock import rfc3339
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import HastyClock
from tests.support.world import World, world

HOUR_MS = 3_600_000


async def told(w: World, **params: Any) -> list[tuple[str, str]]:
    """Return (change, file) of all pages of one entry each."""
    found: list[tuple[str, str]] = []
    cursor = None
    while True:
        page = await w.call("channel.changes", channel="main", limit=1, cursor=cursor, **params)
        found += [(one.change, one.filename) for one in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def test_changes_by_package_and_since_a_time(tmp_path: Path) -> None:
    clock = HastyClock()
    async with world(tmp_path, clock=clock) as w:
        await w.mirror("passive")
        await w.run()
        first = rfc3339(clock.now_ms())
        clock.shift_ms += HOUR_MS
        w.source.add(PackageSpec(name="beta", version="3.0"), PackageSpec(name="delta"))
        await w.run()
        second = rfc3339(clock.now_ms())
        clock.shift_ms += HOUR_MS
        w.source.remove("noarch", "beta-2.0-0.conda")
        await w.run()
        came, went = ("added", "beta-3.0-0.conda"), ("closed", "beta-2.0-0.conda")
        assert await told(w, since=first) == [came, ("added", "delta-1.0-0.conda"), went]
        assert await told(w, since=first, package="beta") == [came, went]
        assert await told(w, since=second) == [went]
        assert await told(w, since=rfc3339(clock.now_ms() + HOUR_MS)) == []
        assert await told(w, generation=2, package="beta") == [("added", "beta-2.0-0.conda")]
        assert await told(w, package="beta") == [went]
        assert await told(w, package="nobody") == []
        assert [one for one in await told(w, since="2020-01-01T00:00:00Z", package="beta") if one == came] == [came]
        for wrong in ({"since": "yesterday"}, {"since": first, "generation": 2}):
            with pytest.raises(Invalid) as caught:
                await told(w, **wrong)
            assert caught.value.data["path"] == "$.since"
        with pytest.raises(NotFound):
            await told(w, generation=99, package="beta")


async def test_files_with_other_bytes_in_another_mirror_are_listed_with_both_digests(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        other = ChannelFolder(tmp_path / "other")
        (theirs,) = other.add(PackageSpec(name="beta", version="2.0", content="another build of the same name\n"))
        other.add(PackageSpec(name="alpha", version="1.9", content="nine\n"), PackageSpec(name="own"))
        await w.mirror("passive")
        await w.mirror("passive", name="copy", source=other.path.as_uri())
        await w.run()
        assert (await w.call("mirror.details", mirror="main:copy")).collisions == []
        await w.run("main:copy")
        ours = w.source.records["noarch"]["beta-2.0-0.conda"]["sha256"]
        for mirror, mine, their, name in (
            ("copy", theirs.record["sha256"], ours, "m"),
            ("m", ours, theirs.record["sha256"], "copy"),
        ):
            details = await w.call("mirror.details", mirror=f"main:{mirror}")
            assert details.collisions_total == 1
            (found,) = details.collisions
            assert (found.part, found.filename, found.other) == ("noarch", "beta-2.0-0.conda", name)
            assert (found.sha256, found.other_sha256) == (mine, their)
