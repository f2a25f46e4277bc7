"""Tokens: made in a form, shown once and copied, listed and revoked."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from firth_protocol import types as t
from firth_tui.screens.tokens import TokensScreen
from firth_tui.widgets.dialogs import Secret
from tests.support.fake_daemon import FakeDaemon
from tests.support.tui import NARROW, Terminal, terminal


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    daemon = FakeDaemon(tmp_path / "firth.sock")
    daemon.add_channel("lab", privacy=t.Privacy.PRIVATE)
    async with daemon:
        yield daemon


async def started(term: Terminal) -> None:
    await term.sees("● connected", "▸lab")
    await term.until(lambda: term.app.session.methods)


async def test_a_token_is_made_shown_once_copied_and_revoked(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("6")
        await term.until(lambda: isinstance(term.app.screen, TokensScreen))
        await term.sees("There is no token yet")
        await term.press("n")
        await term.sees("New token")
        await term.type("ci-runner")
        await term.press("tab", "tab", "right", "tab", "tab", "enter")
        await term.until(lambda: isinstance(term.app.screen, Secret))
        await term.sees("The token ci-runner", "secret-of-ci-runner", "not shown again")
        assert term.app.clipboard == "secret-of-ci-runner"
        assert daemon.called("token.create") == [{"name": "ci-runner", "expires_at": "2026-12-22T12:00:00.000Z"}]
        await term.press("escape")
        await term.sees("▸ci-runner", "✓ valid", "22 Dec", "1 token")
        assert "secret-of" not in term.text
        await term.press("d")
        await term.sees("Revoke the token ci-runner?", "last used: never")
        await term.press("tab", "enter")
        await term.sees("✗ revoked")
        await term.press("d")
        await term.sees("ci-runner is revoked already")
        assert daemon.called("token.revoke") == [{"id": 1}]


async def test_a_private_channel_says_what_clients_need_and_offers_a_token(daemon: FakeDaemon) -> None:
    async with terminal(daemon.socket, NARROW, now=lambda: daemon.now) as term:
        await started(term)
        await term.press("enter")
        await term.sees("Channels › lab")
        term.place.action_act("tab.use")
        await term.sees("what a client needs", "A token that names this channel", "n new token")
        await term.press("n")
        await term.sees("New token for lab")


async def test_who_may_not_is_told_why(daemon: FakeDaemon) -> None:
    daemon.role = t.Role.MANAGER
    async with terminal(daemon.socket, NARROW) as term:
        await started(term)
        await term.press("6")
        await term.sees("Tokens: needs the role admin; yours is manager")
