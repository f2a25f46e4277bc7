"""Paging by key: every row exactly once whatever the order and the limit; cursors that belong to no list."""

import base64
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_protocol.errors import CursorExpired, Invalid
from firthd.access import covers
from firthd.store import catalog, paging
from firthd.store.database import Tx
from firthd.store.orders import CHANNEL_ORDERS
from tests.support.state import add_channel, opened

COLUMNS = {"text": "t.text", "number": "t.number", "id": "t.id"}
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3)
numbers = st.one_of(st.integers(-5, 5), st.integers(-(2**53), 2**53))


@settings(max_examples=120, deadline=None)
@given(
    rows=st.lists(st.tuples(texts, numbers), max_size=25),
    sort=st.sampled_from([sign + name for name in COLUMNS for sign in ("", "-")]),
    limit=st.integers(1, 10),
)
def test_every_row_comes_exactly_once_and_in_order(rows: list[tuple[str, int]], sort: str, limit: int) -> None:
    by = paging.order(sort, COLUMNS)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT NOT NULL, number INTEGER NOT NULL) STRICT")
        connection.executemany("INSERT INTO t(text, number) VALUES (?, ?)", rows)
        found: list[int] = []
        cursor: str | None = None
        while True:
            page = connection.execute(
                f"SELECT id, {by.sql} FROM t WHERE {by.beyond('t.id')} ORDER BY {by.clause('t.id')} LIMIT :limit",
                {**paging.decode(cursor, sort), "limit": limit},
            ).fetchall()
            found += [row[0] for row in page]
            if len(page) < limit:
                break
            cursor = paging.encode(sort, page[-1][1], page[-1][0])
        expected = connection.execute(f"SELECT id FROM t ORDER BY {by.clause('t.id')}").fetchall()
    assert found == [row[0] for row in expected]
    assert len(set(found)) == len(rows)


@given(
    value=st.one_of(st.none(), texts, numbers, st.floats(allow_nan=False, allow_infinity=False)),
    key=st.one_of(texts, st.integers(0, 2**60)),
    sort=texts,
)
def test_a_cursor_holds_what_was_put_in(value: str | int | float | None, key: str | int, sort: str) -> None:
    text = paging.encode(sort, value, key)
    assert paging.decode(text, sort, type(key)) == {"page_value": value, "page_key": key}
    with pytest.raises(CursorExpired):
        paging.decode(text, sort, int if isinstance(key, str) else str)
    with pytest.raises(CursorExpired):
        paging.decode(text, f"{sort}x")


@given(st.text(max_size=40))
def test_a_foreign_cursor_is_a_normal_error(text: str) -> None:
    with pytest.raises(CursorExpired):
        paging.decode(text, "name")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'["name"]',
        b'["name", {}, 1]',
        b'["name", 1, null]',
        b'["name", 1, [1]]',
        b"\xff\xff",
        b'["name", 1, "1"]',
    ]
    + [b'["name", %d, %d]' % pair for pair in ((1, 2**63), (-(2**63) - 1, 1), (10**40, 1))],
)
def test_a_forged_cursor_is_a_normal_error(content: bytes) -> None:
    with pytest.raises(CursorExpired):
        paging.decode(base64.urlsafe_b64encode(content).decode(), "name")


def test_no_cursor_is_the_beginning() -> None:
    assert paging.decode(None, "name") == {"page_value": None, "page_key": None}


@pytest.mark.parametrize("sort", ["", "-", "--text", "TEXT", "t.text", "text; DROP TABLE t", "text DESC"])
def test_an_unknown_order_is_refused_with_those_there_are(sort: str) -> None:
    with pytest.raises(Invalid, match="cannot sort by") as caught:
        paging.order(sort, COLUMNS)
    assert "`text`, `number`, `id`" in caught.value.hint
    assert caught.value.data["path"] == "$.sort"


# --- what a caller may see -------------------------------------------------------------------------------------

NAMES = ["team", "team/a", "team/b", "teams", "other", "t_am/c"]


@pytest.mark.parametrize(
    ("patterns", "seen"),
    [
        (None, NAMES),
        ((), []),
        (("*",), []),  # no pattern that firth.toml takes
        (("team",), ["team"]),
        (("team/*",), ["team/a", "team/b"]),
        (("team", "team/b", "absent"), ["team", "team/b"]),
        (("t_am/*",), ["t_am/c"]),
        (("%",), []),
        (("' OR 1 --",), []),
    ],
)
def test_patterns_show_the_channels_they_name(patterns: tuple[str, ...] | None, seen: list[str]) -> None:
    condition, params = paging.visible("name", patterns)
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE channel(name TEXT)")
        connection.executemany("INSERT INTO channel VALUES (?)", [(name,) for name in NAMES])
        found = connection.execute(f"SELECT name FROM channel WHERE {condition}", params).fetchall()
    assert sorted(row[0] for row in found) == sorted(seen)
    assert sorted(name for name in NAMES if covers(patterns, name)) == sorted(seen)


@pytest.mark.parametrize("sort", [sign + name for name in CHANNEL_ORDERS for sign in ("", "-")])
@pytest.mark.parametrize("limit", [1, 2, 5, 6, 100])
async def test_channels_come_once_each_and_the_last_page_says_so(tmp_path: Path, sort: str, limit: int) -> None:
    async with opened(tmp_path) as db:

        async def make(tx: Tx) -> None:
            for name in NAMES:
                await add_channel(tx, name)

        await db.write(make)
        found: list[str] = []
        cursor: str | None = None
        for _ in range(len(NAMES)):
            rows, cursor, total = await db.read(
                lambda r, cursor=cursor: catalog.channels_page(  # type: ignore[misc]
                    r, query=None, sort=sort, cursor=cursor, limit=limit, patterns=None
                )
            )
            assert total == len(NAMES)
            found += [row.name for row in rows]
            if cursor is None:
                break
            assert len(rows) == limit
        assert cursor is None
        assert sorted(found) == sorted(NAMES)
        if sort.endswith("name"):
            assert found == sorted(NAMES, key=lambda name: name.replace("/", " "), reverse=sort.startswith("-"))


async def test_children_come_before_the_siblings_that_begin_alike(tmp_path: Path) -> None:
    wanted = ["ml", "ml/nightly", "ml/stable", "ml-gpu", "mlx"]
    async with opened(tmp_path) as db:

        async def make(tx: Tx) -> None:
            for name in sorted(wanted):
                await add_channel(tx, name)

        await db.write(make)
        rows, _, _ = await db.read(
            lambda r: catalog.channels_page(r, query=None, sort="name", cursor=None, limit=100, patterns=None)
        )
    assert [row.name for row in rows] == wanted
