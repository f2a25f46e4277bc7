"""What a channel tells its users, as conda reads it (CEP 6)."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.errors import FirthError
from tests.support.world import World, world

MAINTENANCE = {"message": "closed on Sunday", "level": "warning", "expires_at": "2100-01-31T00:00:00+01:00"}


async def told(w: World) -> list[dict[str, Any]] | None:
    reply = await w.get("/repo/main/notices.json")
    assert reply.status in (200, 404)
    if reply.status == 404:
        return None
    assert reply.headers["Content-Type"] == "application/json"
    again = await w.get("/repo/main/notices.json", {"If-None-Match": reply.headers["ETag"]})
    assert again.status == 304
    found: list[dict[str, Any]] = json.loads(reply.body)["notices"]
    return found


async def update(w: World, notices: list[dict[str, Any]]) -> Any:
    channel = await w.call("channel.get", channel="main")
    return await w.call("channel.update", channel="main", revision=channel.revision, notices=notices)


async def test_notices_are_served_until_they_expire(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert await told(w) is None
        changed = await update(
            w, [MAINTENANCE, {"message": "hello"}, {"message": "gone", "expires_at": "2001-01-01T00:00:00Z"}]
        )
        assert [notice.level for notice in changed.channel.notices] == ["warning", "info", "info"]
        notices = await told(w)
        assert notices is not None
        assert [(notice["message"], notice["level"]) for notice in notices] == [
            ("closed on Sunday", "warning"),
            ("hello", "info"),
        ]
        assert datetime.fromisoformat(notices[0]["expired_at"]) == datetime.fromisoformat("2100-01-30T23:00:00+00:00")
        assert all(notice["created_at"].endswith("+00:00") for notice in notices)
        await update(w, [MAINTENANCE])
        assert await told(w) == notices[:1]  # the same id and time: it is shown once
        await update(w, [])
        assert await told(w) is None


async def test_a_notice_that_never_ends_says_no_end(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await update(w, [{"message": "hello", "level": "critical"}])
        assert [notice.keys() for notice in await told(w) or ()] == [{"id", "message", "level", "created_at"}]


@pytest.mark.parametrize(
    "wrong", [{"message": ""}, {"message": "x", "level": "loud"}, {"message": "x", "expires_at": "soon"}]
)
async def test_what_is_no_notice_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async with world(tmp_path) as w:
        with pytest.raises(FirthError):
            await update(w, [wrong])
        assert await told(w) is None
