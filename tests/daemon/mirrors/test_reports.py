"""How mirrors are told: lists sorted by what each column tells, failures by their reason."""

from pathlib import Path

from firthd.mirrors.report import grouped
from tests.support.world import world


async def test_mirrors_are_sorted_by_what_each_column_tells(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for name in ("ml", "ml-gpu", "ml/nightly"):
            await w.call("channel.create", name=name)
        for channel, name, schedule in (
            ("ml", "zeta", "0 0 1 1 *"),
            ("ml-gpu", "beta", "0 * * * *"),
            ("ml/nightly", "alpha", "0 0 * * *"),
        ):
            await w.mirror("passive", name, channel=channel, schedule=schedule)
        await w.mirror("passive", "off", channel="ml", schedule="* * * * *", enabled=False)
        await w.run("ml-gpu:beta")

        async def names(sort: str) -> list[str]:
            found: list[str] = []
            cursor: str | None = None
            while True:  # page by page: a cursor holds in every order
                page = await w.call("mirror.list", sort=sort, limit=1, **({"cursor": cursor} if cursor else {}))
                found += [mirror.name for mirror in page.items]
                cursor = page.next_cursor
                if cursor is None:
                    return found

        assert await names("name") == ["off", "zeta", "alpha", "beta"]
        assert await names("mirror") == ["alpha", "beta", "off", "zeta"]
        assert await names("next_run_at") == ["beta", "alpha", "zeta", "off"]
        assert (await names("-last_updated"))[0] == "beta"
        assert sorted(await names("-updated_at")) == ["alpha", "beta", "off", "zeta"]


def test_reasons_that_differ_by_a_digest_are_one() -> None:
    found = grouped([(f"sha256 is {digit * 64}, not what the index says", 1) for digit in "abc"] + [("404", 2)])
    assert [(one.reason, one.count) for one in found] == [("sha256 is …, not what the index says", 3), ("404", 2)]
