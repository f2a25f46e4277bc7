"""The audit log: which transaction holds the line of a change, and how its outcome comes about."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firth_protocol.errors import Conflict
from firth_protocol.types import Role
from firthd.store import audit, journal
from firthd.store.audit import Audited, AuditLine, AuditLog, interrupt_begun
from firthd.store.database import Database, Tx, more_to_come
from tests.support.clock import START_MS
from tests.support.state import opened


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


def opened_line(db: Database) -> AuditLine:
    return AuditLog(db).open(
        Audited(time_ms=START_MS, uid=1, pid=2, user="kim", role=Role.ADMIN, method="channel.freeze", params={})
    )


async def change(tx: Tx) -> None:
    await journal.set_setting(tx, "what", "changed")


async def nothing(tx: Tx) -> None:
    await tx.execute("UPDATE setting SET value = 'x' WHERE key = 'not there'")


async def outcomes(db: Database) -> list[str]:
    """Return the outcomes as they are durable now: what a kill at this moment would leave."""
    return [
        entry.outcome for entry in (await db.read(lambda r: audit.page(r, query=None, cursor=None, limit=10))).items
    ]


async def test_a_change_of_one_transaction_holds_its_line(db: Database) -> None:
    line = opened_line(db)
    with line.beside():
        await db.write(nothing)
        assert await outcomes(db) == []
        await db.write(change)
        assert await outcomes(db) == ["ok"]
    await line.end("ok")
    assert await outcomes(db) == ["ok"]


async def test_a_change_of_several_begins_and_its_last_transaction_sets_the_outcome(db: Database) -> None:
    line = opened_line(db)
    with line.beside():
        with more_to_come():
            await db.write(change)
            assert await outcomes(db) == ["begun"]
            await db.write(change)
            assert await outcomes(db) == ["begun"]
        await db.write(change)
        assert await outcomes(db) == ["ok"]
    await line.end("ok")
    assert await outcomes(db) == ["ok"]


async def test_what_fails_after_it_began_says_so(db: Database) -> None:
    line = opened_line(db)
    with line.beside():
        await db.write(change)
    await line.end("upstream")
    assert await outcomes(db) == ["upstream"]


async def test_a_change_that_is_taken_back_leaves_no_line_but_its_refusal(db: Database) -> None:
    async def refused(tx: Tx) -> None:
        await change(tx)
        assert await audit.line_of(tx) is not None
        raise Conflict("somebody was faster")

    line = opened_line(db)
    with line.beside(), pytest.raises(Conflict):
        await db.write(refused)
    assert await outcomes(db) == []
    await line.end("conflict")
    assert await outcomes(db) == ["conflict"]


async def test_what_changes_nothing_and_is_no_refusal_has_no_line(db: Database) -> None:
    line = opened_line(db)
    with line.beside():
        await db.write(nothing)
    await line.end("ok")
    assert await outcomes(db) == []


async def test_a_line_ends_with_its_call(db: Database) -> None:
    line = opened_line(db)
    with line.beside():
        await line.end("ok")
        await db.write(change)  # as a task that outlives the call does
    await db.write(change)
    assert await outcomes(db) == []


async def test_a_start_says_of_what_was_cut_off_that_it_was(db: Database) -> None:
    line = opened_line(db)
    with line.beside(), more_to_come():
        await db.write(change)
    assert await db.write(interrupt_begun) == 1
    assert await outcomes(db) == ["interrupted"]


async def test_the_audit_log_is_paged_newest_first_and_searched_in_any_case(db: Database) -> None:
    for number in range(5):
        entry = Audited(
            time_ms=START_MS + number,
            uid=1000,
            pid=42,
            user="Ada" if number % 2 else "bob",
            role=Role.MANAGER,
            method="channel.freeze",
            params={"channel": f"c{number}"},
            outcome="ok",
        )
        await db.write(lambda tx, entry=entry: audit.insert(tx, entry))  # type: ignore[misc]
    page = await db.read(lambda r: audit.page(r, query=None, cursor=None, limit=2))
    assert [one.params["channel"] for one in page.items] == ["c4", "c3"]
    rest = await db.read(lambda r: audit.page(r, query=None, cursor=page.following, limit=10))
    assert [one.params["channel"] for one in rest.items] == ["c2", "c1", "c0"]
    assert (rest.items[0].time, rest.items[0].role, rest.items[0].user, rest.items[0].uid) == (
        "2026-05-01T00:00:00.002Z",
        Role.MANAGER,
        "bob",
        1000,
    )
    for query, expected in (("ADA", ["c3", "c1"]), ("FREEZE", 5), ('"c2"', ["c2"]), ("%", []), ("nobody", [])):
        found = await db.read(lambda r, q=query: audit.page(r, query=q, cursor=None, limit=10))  # type: ignore[misc]
        names = [one.params["channel"] for one in found.items]
        assert names == expected or len(names) == expected


# --- health and settings -----------------------------------------------------------------------------------


async def test_what_is_wrong_keeps_its_first_moment_until_it_is_well(db: Database) -> None:
    assert await db.write(lambda tx: journal.ill(tx, "space", "little", "free some", START_MS))
    assert not await db.write(lambda tx: journal.ill(tx, "space", "less", "free more", START_MS + 5000))
    assert await db.write(lambda tx: journal.ill(tx, "mirror main:m", "failed", "", START_MS - 1))
    problems = await db.read(journal.health)
    assert [(one.subject, one.text, one.hint, one.since) for one in problems] == [
        ("mirror main:m", "failed", "", "2026-04-30T23:59:59.999Z"),
        ("space", "less", "free more", "2026-05-01T00:00:00.000Z"),
    ]
    assert await db.write(lambda tx: journal.well(tx, "space"))
    assert not await db.write(lambda tx: journal.well(tx, "space"))
    assert [one.subject for one in await db.read(journal.health)] == ["mirror main:m"]


async def test_a_setting_is_written_over(db: Database) -> None:
    assert await db.read(lambda r: journal.setting(r, "epoch")) is None
    for value in ("one", "two"):
        await db.write(lambda tx, value=value: journal.set_setting(tx, "epoch", value))  # type: ignore[misc]
    assert await db.read(lambda r: journal.setting(r, "epoch")) == "two"
