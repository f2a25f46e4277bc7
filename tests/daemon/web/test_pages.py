"""Pages for people: what they show, to whom, and that nothing in them can become a script."""

import html
import re
from pathlib import Path

import pytest

from firth_protocol.types import Family, Package, Privacy
from firthd.config import WebSettings
from firthd.families.conda.addresses import set_up
from firthd.web.pages.html import POLICY, Html, fill
from tests.support.web import Site, conda_index, running_site


@pytest.fixture
async def team(site: Site) -> Site:
    site.shelf.channel("main", conda_index("noarch"), generation=42)
    site.shelf.channel("main/dev", conda_index("noarch"))
    site.shelf.channel("staff", conda_index("noarch"), privacy=Privacy.AUTHENTICATED)
    site.shelf.channel("secret", conda_index("noarch"), privacy=Privacy.PRIVATE)
    await site.token("open-all")
    await site.token("names-secret", "secret")
    return site


@pytest.mark.parametrize(
    ("path", "channels"),
    [
        ("/", ["main", "main/dev"]),
        ("/t/open-all/", ["main", "main/dev", "staff"]),
        ("/t/names-secret/", ["main", "main/dev", "secret", "staff"]),
        ("/t/wrong/", ["main", "main/dev"]),
    ],
)
async def test_the_list_holds_what_a_visitor_may_see(team: Site, path: str, channels: list[str]) -> None:
    reply = await team.get(path)
    assert re.findall(r'href="repo/([^"]+)/"', reply.body.decode()) == channels
    assert reply.headers["cache-control"].startswith("private")


async def test_a_channels_page_has_a_line_for_each_client(team: Site) -> None:
    reply = await team.get("/repo/main/")
    text = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    for line in (
        *(html.escape(one.lines) for one in set_up("http://firth.example.org/repo/main")),
        "http://firth.example.org/snapshot/2026-04-29/main",
        "Generation 42",
    ):
        assert line in text


async def test_a_channels_page_searches_its_packages_and_escapes_them(team: Site) -> None:
    team.listed = [
        Package(
            family=Family.CONDA,
            name=name,
            version="1.0",
            versions=1,
            files=2,
            stored=0,
            bytes=1,
            platforms=["noarch"],
        )
        for name in ("numpy", "numba", "<script>")
    ]
    text = (await team.get("/repo/main/?q=num")).body.decode()
    assert "2 packages" in text
    assert "<td>numpy</td><td>1.0</td><td>2</td><td>noarch</td>" in text
    hostile = (await team.get("/repo/main/?q=%3Cscript%3E")).body.decode()
    assert "<td>&lt;script&gt;</td>" in hostile
    assert 'value="&lt;script&gt;"' in hostile
    assert "<script>" not in hostile
    assert "No package has this" in (await team.get("/repo/main/?q=zzz")).body.decode()


async def test_without_the_slash_the_page_is_a_redirect(team: Site) -> None:
    reply = await team.get("/t/open-all/repo/staff")
    assert (reply.status, reply.headers["location"]) == (308, "staff/")


async def test_a_token_is_never_repeated(team: Site) -> None:
    text = (await team.get("/t/names-secret/repo/secret/")).body.decode()
    assert "names-secret" not in text
    assert "http://firth.example.org/t/&lt;TOKEN&gt;/repo/secret" in text


async def test_the_public_address_is_the_one_configured(tmp_path: Path) -> None:
    async with running_site(tmp_path, WebSettings(public_url="https://packages.example.org/")) as site:
        site.shelf.channel("main", conda_index("noarch"))
        assert "https://packages.example.org/repo/main" in (await site.get("/repo/main/")).body.decode()


async def test_a_proxy_tells_the_scheme(tmp_path: Path) -> None:
    async with running_site(tmp_path, WebSettings(trusted_proxies=["127.0.0.1"])) as site:
        site.shelf.channel("main", conda_index("noarch"))
        reply = await site.get("/repo/main/", {"X-Forwarded-Proto": "https"})
        assert "https://firth.example.org/repo/main" in reply.body.decode()


async def test_a_hostile_host_is_not_repeated(team: Site) -> None:
    async with team.connection() as client:
        client.writer.write(b"GET /repo/main/ HTTP/1.1\r\nHost: <script>alert(1)</script>\r\n\r\n")
        reply = await client.reply()
    assert b"<script>" not in reply.body
    assert b"http://HOST/repo/main" in reply.body


async def test_the_policy_allows_nothing_but_our_style(team: Site) -> None:
    reply = await team.get("/")
    assert reply.headers["content-security-policy"] == POLICY
    assert POLICY.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in POLICY
    assert reply.headers["referrer-policy"] == "no-referrer"


def test_values_are_escaped_and_html_is_not_escaped_twice() -> None:
    evil = "<b a='1' c=\"2\">&{x}"
    assert fill("<p>{value}</p>", value=evil) == f"<p>{html.escape(evil)}</p>"
    assert fill("<p>{value}</p>", value=Html("<i>x</i>")) == "<p><i>x</i></p>"
