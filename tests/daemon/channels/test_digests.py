"""The digest of a generation: the same content has the same one, on any daemon and by whatever way it came there."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol.types import Generation
from firthd.index.set_hash import SetHash, element
from tests.support.conda import PackageSpec
from tests.support.world import World, edit, world

pytestmark = pytest.mark.timeout(120)


async def newest(w: World, channel: str = "main") -> Generation:
    found: Generation = (await w.call("channel.generations", channel=channel)).items[0]
    return found


async def totals(w: World, channel: str = "main") -> dict[str, int]:
    row = (await w.call("channel.get", channel=channel)).families[0]
    return {"artifacts": row.artifacts, "packages": row.packages, "bytes": row.bytes}


async def sums_are_what_the_summaries_say(w: World, channel: str = "main") -> None:
    """The state of a generation, which grew by differences, is that of all the summaries in force."""
    channel_id = (await w.call("channel.get", channel=channel)).id

    async def look(r: Any) -> tuple[Any, Any]:
        number = await r.value("SELECT generation FROM channel WHERE id = ?", (channel_id,))
        family = await r.row(
            "SELECT state, artifacts, packages, bytes FROM generation_family WHERE channel_id = ? AND number = ?",
            (channel_id, number),
        )
        rows = await r.rows(
            "SELECT name, digest, files, bytes, max(number) FROM package WHERE channel_id = ? AND number <= ?"
            " GROUP BY name",
            (channel_id, number),
        )
        return family, [row for row in rows if row[2]]

    family, rows = await w.daemon.daemon.db.read(look)
    whole = SetHash()
    for row in rows:
        whole.add(element("conda", row[0], row[1]))
    assert family == (whole.state, sum(row[2] for row in rows), len(rows), sum(row[3] for row in rows))


async def test_one_digest_whether_mirrored_at_once_in_steps_or_from_another_daemon(tmp_path: Path) -> None:
    for name in ("steps", "once", "second"):
        (tmp_path / name).mkdir()
    async with world(tmp_path / "steps") as w:
        await w.mirror("passive")
        await w.run()
        for number in range(10):
            w.source.add(
                PackageSpec(name=f"p{number % 4}", version=f"{number}.0", subdir=("noarch", "linux-64")[number % 2])
            )
            if number % 3 == 2:
                w.source.remove(*[("linux-64", "noarch")[number % 2], f"p{(number - 1) % 4}-{number - 1}.0-0.conda"])
            edit(w.source, "noarch", "beta-2.0-0.conda", depends=[f"alpha >={number}"])
            await w.run()
            await sums_are_what_the_summaries_say(w)
        told = await newest(w)
        assert told.number == 12
        sums = await totals(w)
        await w.call("channel.create", name="second")
        await w.mirror("active", channel="second", source=f"{w.daemon.url}/repo/main")  # one daemon mirrors the other
        await w.run("second:m")
        assert (await newest(w, "second")).digest == told.digest
        assert await totals(w, "second") == sums
        documents = w.source
        async with world(tmp_path / "once") as other:
            other.source.records.clear()
            await other.mirror("passive", source=f"{w.daemon.url}/repo/main")
            await other.run()
            assert (await newest(other)).digest == told.digest
            await other.call("channel.create", name="direct")
            await other.mirror("passive", "d", channel="direct", source=w.upstream.url)
            await other.run("direct:d")
            assert (await newest(other, "direct")).digest == told.digest
            await sums_are_what_the_summaries_say(other)
        edit(documents, "noarch", "beta-2.0-0.conda", depends=["something else"])
        await w.run()
        assert (await newest(w)).digest != told.digest


async def test_what_goes_leaves_no_trace_in_the_digest(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        empty = (await newest(w)).digest
        await w.mirror("passive")
        await w.run()
        first = await newest(w)
        assert first.digest != empty
        w.source.add(PackageSpec(name="passing", subdir="linux-64"))
        await w.run()
        w.source.remove("linux-64", "passing-1.0-0.conda")
        await w.run()
        assert (await newest(w)).digest == first.digest
        back = await w.call("channel.rollback", channel="main", generation=3)
        await w.daemon.ended(back.run.id)
        kept = (await w.call("channel.generations", channel="main")).items
        assert kept[0].digest == next(one for one in kept if one.number == 3).digest
        forth = await w.call("channel.unfreeze", channel="main")
        await w.daemon.ended(forth.run.id)
        assert (await newest(w)).digest == first.digest
        await sums_are_what_the_summaries_say(w)


async def test_a_state_without_sums_gets_them_with_the_next_publication(tmp_path: Path) -> None:
    """As a migration leaves it: no state, no digests of packages; the digests of kept generations stay."""
    async with world(tmp_path) as w:
        await w.mirror("passive")
        await w.run()
        old = await newest(w)

        async def forget(tx: Any) -> None:
            await tx.execute("UPDATE generation_family SET state = NULL")
            await tx.execute("UPDATE package SET digest = NULL")
            await tx.execute("UPDATE generation SET digest = 'of old'")

        await w.daemon.daemon.db.write(forget)
        w.source.add(PackageSpec(name="late"))
        await w.run()
        await sums_are_what_the_summaries_say(w)
        assert [one.digest for one in (await w.call("channel.generations", channel="main")).items][1:] == ["of old"] * 2
        w.source.remove("noarch", "late-1.0-0.conda")
        await w.run()
        assert (await newest(w)).digest == old.digest
        back = await w.call("channel.rollback", channel="main", generation=2)
        await w.daemon.ended(back.run.id)
        # Its content is that of the generation in force: nothing is published, and the channel is frozen.
        assert msgspec.to_builtins(await newest(w))["number"] == 4
        assert (await w.call("channel.get", channel="main")).frozen
