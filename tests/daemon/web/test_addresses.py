"""Which address leads where, and for whom."""

import base64
import json
from pathlib import Path

import pytest

from firth_protocol.types import Privacy
from firthd.config import WebSettings
from tests.support.clock import START_MS, FakeClock
from tests.support.rawhttp import Reply
from tests.support.web import Site, conda_index, running_site, sha256

INDEX = "noarch/repodata.json"


@pytest.fixture
async def team(site: Site) -> Site:
    """Channels of every privacy; each index is recognisable by its length."""
    site.shelf.channel("main", conda_index("noarch", filler=1))
    site.shelf.channel("main/dev", conda_index("noarch", filler=2))
    site.shelf.channel("staff", conda_index("noarch", filler=3), privacy=Privacy.AUTHENTICATED)
    site.shelf.channel("secret", conda_index("noarch", filler=4), privacy=Privacy.PRIVATE)
    site.shelf.channel("main/hidden", conda_index("noarch", filler=5), privacy=Privacy.PRIVATE)
    await site.token("open-all")
    await site.token("names-secret", "secret")
    await site.token("names-children", "main/*")
    await site.token("is-old", "secret", expires_at=START_MS - 1)
    return site


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def visible(reply: Reply) -> tuple[int, str, dict[str, str], bytes]:
    """Return everything a visitor can tell two answers apart by, but the date."""
    return reply.status, reply.reason, {k: v for k, v in reply.headers.items() if k != "date"}, reply.body


@pytest.mark.parametrize("prefix", ["/repo", "/api/repo", "/t/anything/repo", "//repo/", "/t/x/api/repo"])
async def test_every_way_to_a_public_channel(team: Site, prefix: str) -> None:
    assert (await team.get(f"{prefix}/main/{INDEX}")).body == conda_index("noarch", filler=1)[INDEX]
    assert (await team.get(f"{prefix}/main/dev/{INDEX}")).body == conda_index("noarch", filler=2)[INDEX]


@pytest.mark.parametrize("name", [INDEX, f"{INDEX}.zst", "noarch/repodata_shards.msgpack.zst"])
async def test_index_files(team: Site, name: str) -> None:
    body = conda_index("noarch", filler=1)[name]
    reply = await team.get(f"/repo/main/{name}")
    assert (reply.status, reply.body) == (200, body)
    assert reply.headers["etag"] == f'"{sha256(body)}"'
    assert reply.headers["cache-control"] == "public, max-age=60"
    assert "content-encoding" not in reply.headers
    assert (
        reply.headers["content-type"]
        == {
            "json": "application/json",
            "n.zst": "application/zstd",
            "k.zst": "application/octet-stream",
        }["json" if name.endswith("json") else name[-5:]]
    )


async def test_shards_are_immutable_and_belong_to_their_channel(team: Site) -> None:
    first, second = team.shelf.shard("main", b"one shard", b"another")
    reply = await team.get(f"/repo/main/noarch/shards/{second}.msgpack.zst")
    assert (reply.status, reply.body, reply.headers["etag"]) == (200, b"another", f'"{second}"')
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (await team.get(f"/repo/main/noarch/shards/{first}.msgpack.zst")).body == b"one shard"
    assert (await team.head(f"/repo/main/noarch/shards/{first}.msgpack.zst")).length == 9
    # The same bytes are in memory by now; another channel still has no such shard.
    assert (await team.get(f"/repo/main/dev/noarch/shards/{first}.msgpack.zst")).status == 404
    assert (await team.get(f"/repo/main/noarch/shards/{'0' * 64}.msgpack.zst")).status == 404
    assert (await team.get(f"/repo/main/noarch/shards/{first.upper()}.msgpack.zst")).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/repo/main/noarch/current_repodata.json",
        "/repo/main/noarch/current_repodata.json.zst",
        "/repo/main/notices.json",
        "/repo/main/channeldata.json",
        "/repo/main/noarch/repodata.json.bz2",
        "/repo/main/noarch/run_exports.json",
        "/repo/main/linux-64/repodata.json",
        "/repo/main/noarch/gone-1-0.conda",
        "/repo/main/noarch",
        "/repo/main/noarch/a/b/c",
        "/repo/main/NOARCH/repodata.json",
        "/repo/nowhere/noarch/repodata.json",
        "/repo/main/../secret/noarch/repodata.json",
        "/repo/main/%2e%2e/secret/noarch/repodata.json",
        "/repo/main%2fdev/noarch/repodata.json",
        "/repo/main/noarch/%2e%2e%2f%2e%2e%2fstate",
        "/repo/main/noarch/a%00.conda",
        "/repo",
        "/t",
        "/snapshot/1",
        "/snapshot/1/main",
        "/favicon.ico",
        "/repo/main/noarch/" + "a" * 300 + ".conda",
    ],
)
async def test_what_is_not_there_is_404(team: Site, path: str) -> None:
    reply = await team.get(path)
    assert (reply.status, reply.reason) == (404, "Not Found")
    assert reply.headers["content-type"] == "application/problem+json"
    assert json.loads(reply.body)["status"] == 404
    assert (await team.head(path)).headers["content-length"] == reply.headers["content-length"]


async def test_index_like_names_never_reach_the_database(team: Site) -> None:
    for name in ("current_repodata.json", "x.json.zst", "repodata.json.bz2", "repodata.jlap"):
        await team.get(f"/repo/main/noarch/{name}")
    assert team.shelf.asked == []
    await team.get("/repo/main/noarch/a-1-0.tar.bz2")
    assert team.shelf.asked == ["a-1-0.tar.bz2"]


async def test_plus_and_exclamation_mark_both_ways(team: Site) -> None:
    team.shelf.artifact("main", "noarch", "ddd-1!2.0+loc-0.conda", b"epoch and local version")
    for name in ("ddd-1!2.0+loc-0.conda", "ddd-1%212.0%2Bloc-0.conda"):
        assert (await team.get(f"/repo/main/noarch/{name}")).body == b"epoch and local version"
    assert (await team.get("/repo/main/noarch/ddd-1!2.0%20loc-0.conda")).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_only_get_and_head(team: Site, method: str) -> None:
    async with team.connection() as client:
        reply = await client.ask(method, f"/repo/main/{INDEX}", {"Content-Length": "0"})
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


async def test_the_absolute_form_of_a_target(team: Site) -> None:
    target = f"http://firth.example.org/repo/main/{INDEX}"
    assert (await team.get(target)).body == conda_index("noarch", filler=1)[INDEX]
    assert (await team.get(f"/repo/main/{INDEX}?x=1")).status == 200


# --- privacy


async def test_an_authenticated_channel_wants_any_valid_token(team: Site) -> None:
    url = f"/repo/staff/{INDEX}"
    refused = await team.get(url)
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert "token" in json.loads(refused.body)["detail"]
    assert (await team.get(f"/t/is-old{url}")).status == 401
    for target, headers in [
        (f"/t/open-all{url}", {}),
        (f"/t/names-secret{url}", {}),
        (url, basic("open-all", "")),
        (url, basic("__token__", "open-all")),
        (url, {"Authorization": "Bearer open-all"}),
        (f"/t/wrong{url}", {"Authorization": "bearer  open-all"}),
    ]:
        reply = await team.get(target, headers)
        assert (reply.status, reply.headers["cache-control"]) == (200, "private, max-age=60"), target
    await team.tokens.flush()
    assert set(team.used_tokens) == {1, 2}


async def test_a_private_channel_looks_like_no_channel(team: Site) -> None:
    for rest in (INDEX, "noarch/x-1-0.conda", "", "notices.json"):
        unknown = visible(await team.get(f"/repo/nothing/{rest}"))
        assert visible(await team.get(f"/repo/secret/{rest}")) == unknown
        assert visible(await team.get(f"/t/open-all/repo/secret/{rest}")) == unknown
        assert visible(await team.get(f"/t/is-old/repo/secret/{rest}")) == unknown
        assert visible(await team.get(f"/snapshot/12/secret/{rest}")) == visible(
            await team.get(f"/snapshot/12/nothing/{rest}")
        )
    assert team.shelf.asked == []  # nothing was looked up that could take its time
    reply = await team.get(f"/t/names-secret/repo/secret/{INDEX}")
    assert (reply.status, reply.headers["cache-control"]) == (200, "private, max-age=60")


async def test_a_private_subchannel_looks_like_a_folder_of_its_parent(team: Site) -> None:
    assert visible(await team.get(f"/repo/main/hidden/{INDEX}")) == visible(await team.get(f"/repo/main/none/{INDEX}"))
    assert (await team.get(f"/t/names-children/repo/main/hidden/{INDEX}")).status == 200
    assert (await team.get(f"/t/names-secret/repo/main/hidden/{INDEX}")).status == 404


async def test_a_wrong_token_does_not_close_a_public_channel(team: Site) -> None:
    assert (await team.get(f"/t/wrong/repo/main/{INDEX}")).status == 200
    for headers in (basic("x", "wrong"), {"Authorization": "Bearer wrong"}, {"Authorization": "Basic %%%"}):
        assert (await team.get(f"/repo/main/{INDEX}", headers)).status == 200


async def test_package_files_of_a_closed_channel_are_closed_too(team: Site) -> None:
    team.shelf.artifact("secret", "noarch", "s-1-0.conda", b"secret package")
    assert (await team.get("/repo/secret/noarch/s-1-0.conda")).status == 404
    reply = await team.get("/t/names-secret/repo/secret/noarch/s-1-0.conda")
    assert (reply.body, reply.headers["cache-control"]) == (b"secret package", "private, max-age=3600")


# --- snapshots


async def test_snapshots(team: Site) -> None:
    today = "2026-05-01"
    view = team.shelf.views["main"]
    for when in ("12", "2026-04-01", today):
        team.shelf.kept[("main", when)] = view
    lives = {"12": "public, max-age=31536000, immutable", today: "public, max-age=300"}
    lives["2026-04-01"] = lives["12"]
    for when, life in lives.items():
        reply = await team.get(f"/snapshot/{when}/main/{INDEX}")
        assert (reply.status, reply.headers["cache-control"]) == (200, life)
    team.shelf.artifact("main", "noarch", "a-1-0.conda", b"a")
    package = await team.get("/snapshot/12/main/noarch/a-1-0.conda")
    assert (package.body, package.headers["cache-control"]) == (b"a", "public, max-age=3600")
    lost = await team.get(f"/snapshot/3/main/{INDEX}")
    assert lost.status == 404
    assert json.loads(lost.body)["detail"] == "channel main keeps no generation 3; the nearest kept one is 12"
    for when in ("x", "2026-5-1", "-1", "1" * 30, "%D9%A3"):
        assert (await team.get(f"/snapshot/{when}/main/{INDEX}")).status == 404


async def test_todays_privacy_governs_snapshots(team: Site) -> None:
    team.shelf.kept[("staff", "12")] = team.shelf.views["main"]  # it was public then
    assert (await team.get(f"/snapshot/12/staff/{INDEX}")).status == 401
    reply = await team.get(f"/t/open-all/snapshot/12/staff/{INDEX}")
    assert (reply.status, reply.headers["cache-control"]) == (200, "private, max-age=31536000, immutable")


# --- machines


async def test_health(team: Site) -> None:
    reply = await team.get("/healthz")
    assert (reply.status, json.loads(reply.body)) == (200, {"status": "ok"})
    team.unwell = "the state cannot be written"
    reply = await team.get("/healthz")
    assert (reply.status, json.loads(reply.body)["reason"]) == (503, "the state cannot be written")


@pytest.mark.parametrize(
    ("allow", "proxies", "forwarded", "status"),
    [
        (["127.0.0.0/8"], [], None, 200),
        (["10.0.0.0/8"], [], None, 403),
        (["10.0.0.0/8"], [], "10.1.1.1", 403),  # anybody can write that
        (["10.0.0.0/8"], ["127.0.0.1"], "10.1.1.1", 200),
        (["10.0.0.0/8"], ["127.0.0.1"], "10.1.1.1, 192.0.2.7", 403),  # the nearest one counts
        (["10.0.0.0/8"], ["127.0.0.1", "192.0.2.0/24"], "10.1.1.1, 192.0.2.7", 200),
        (["127.0.0.0/8"], ["127.0.0.1"], "203.0.113.9", 403),
        (["10.0.0.0/8"], ["127.0.0.1"], "nonsense", 403),
        (["127.0.0.0/8"], [], "203.0.113.9", 403),  # a proxy that nobody has named as one
        (["127.0.0.0/8"], ["127.0.0.1"], None, 200),
    ],
)
async def test_metrics_are_for_some(
    tmp_path: Path, allow: list[str], proxies: list[str], forwarded: str | None, status: int
) -> None:
    async with running_site(tmp_path, WebSettings(metrics_allow=allow, trusted_proxies=proxies)) as site:
        reply = await site.get("/metrics", {"X-Forwarded-For": forwarded} if forwarded else None)
    assert reply.status == status
    assert (reply.body == b"firth_up 1\n") == (status == 200)


@pytest.mark.parametrize("header", ["Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "Via"])
async def test_metrics_are_for_nobody_behind_a_proxy_that_is_not_trusted(team: Site, header: str) -> None:
    assert (await team.get("/metrics", {header: "127.0.0.1"})).status == 403


@pytest.mark.parametrize("spelled", ["/%74/", "//%74/", "/%74%20/"])
async def test_a_token_counts_only_where_every_mask_finds_it(team: Site, spelled: str) -> None:
    assert (await team.get(f"/t/names-secret/repo/secret/{INDEX}")).status == 200
    assert (await team.get(f"{spelled}names-secret/repo/secret/{INDEX}")).status == 404
    assert (await team.get(f"{spelled}names-secret/repo/main/{INDEX}")).status == 404


# --- nginx


async def test_nginx_sends_large_files(tmp_path: Path) -> None:
    settings = WebSettings(trusted_proxies=["127.0.0.1"], accel_redirect="/_firth/")
    async with running_site(tmp_path, settings, FakeClock()) as site:
        site.shelf.channel("main", conda_index("noarch"))
        row = site.shelf.artifact("main", "noarch", "a-1-0.conda", b"x" * 2_000_000)
        site.shelf.artifact("main", "noarch", "b-1-0.conda", b"small")
        assert row.sha256 is not None
        reply = await site.get("/repo/main/noarch/a-1-0.conda", {"Range": "bytes=0-9", "X-Forwarded-For": "192.0.2.7"})
        inner = f"/_firth/blobs/{row.sha256[:2]}/{row.sha256[2:4]}/{row.sha256}"
        assert (reply.status, reply.body, reply.headers["x-accel-redirect"]) == (200, b"", inner)
        assert reply.headers["etag"] == f'"{row.sha256}"'
        assert "accept-ranges" not in reply.headers  # nginx says it
        local = await site.get("/repo/main/noarch/a-1-0.conda")
        assert (local.body, "x-accel-redirect" in local.headers) == (b"x" * 2_000_000, False)
        known = await site.get("/repo/main/noarch/a-1-0.conda", {"If-None-Match": f'"{row.sha256}"'})
        assert known.status == 304
        assert (await site.get("/repo/main/noarch/b-1-0.conda")).body == b"small"


async def test_only_a_trusted_proxy_gets_the_redirect(tmp_path: Path) -> None:
    async with running_site(tmp_path, WebSettings(accel_redirect="/_firth/"), FakeClock()) as site:
        site.shelf.channel("main", conda_index("noarch"))
        site.shelf.artifact("main", "noarch", "a-1-0.conda", b"x" * 2_000_000)
        reply = await site.get("/repo/main/noarch/a-1-0.conda", {"X-Forwarded-For": "192.0.2.7"})
    assert (len(reply.body), "x-accel-redirect" in reply.headers) == (2_000_000, False)


async def test_an_unforeseen_error_tells_the_client_only_its_number(
    team: Site, caplog: pytest.LogCaptureFixture
) -> None:
    row = team.shelf.artifact("main", "noarch", "a-1-0.conda", b"x", size=None)
    assert row.sha256 is not None
    team.blobs.path(row.sha256).unlink()
    team.blobs.path(row.sha256).mkdir()  # a folder where the file should be
    reply = await team.get("/repo/main/noarch/a-1-0.conda")
    detail = json.loads(reply.body)["detail"]
    assert (reply.status, str(team.root) in detail) == (500, False)
    assert detail.split()[-1] in caplog.text
