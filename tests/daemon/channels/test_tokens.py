"""Tokens as administrators see them."""

from collections.abc import Mapping
from pathlib import Path

from firth_protocol.errors import NoSpace
from firth_protocol.methods import TokenCreate, TokenList
from firthd.access import WebTokens
from firthd.channels.tokens import Tokens
from firthd.store import tokens as rows
from firthd.store.database import Database
from firthd.store.journal import Journal
from tests.support.clock import FakeClock


async def test_tokens_are_listed_on_a_full_disk(tmp_path: Path) -> None:
    clock = FakeClock()
    db = await Database.open(tmp_path / "firth.sqlite", clock)

    async def full(used: Mapping[int, int]) -> None:
        raise NoSpace("the disk is full")

    try:
        in_force = WebTokens(lambda: db.read(rows.in_force), full, clock)
        tokens = Tokens(db, Journal("e", clock), clock, in_force)
        await tokens.create(TokenCreate(name="farm"), "ada")
        in_force.used(1, clock.now_ms())
        assert [one.name for one in (await tokens.page(TokenList())).items] == ["farm"]
    finally:
        await db.close()
