from collections.abc import AsyncIterator

import pytest

from firth_protocol import errors
from firth_protocol.types import Credentials
from firthd.upstream.client import Source, Upstream
from tests.support.upstream import Fault, FaultyUpstream

SECRET = "sesame-123456"


@pytest.fixture
async def other() -> AsyncIterator[FaultyUpstream]:
    async with FaultyUpstream({"x": b"over there"}) as other:
        yield other


async def read(upstream: Upstream, source: Source) -> bytes:
    async with upstream.open(source, "x") as body:
        return b"".join([chunk async for chunk in body])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("credentials", [Credentials(user="me", password=SECRET), Credentials(bearer=SECRET)])
async def test_another_host_gets_no_credentials_even_when_it_leads_back(
    server: FaultyUpstream, other: FaultyUpstream, upstream: Upstream, status: int, credentials: Credentials
) -> None:
    server.fail("x", Fault(status=status, redirect=f"{other.url}/x"))
    other.fail("x", Fault(redirect=f"{server.url}/y"))
    server.files["y"] = b"back home"
    assert await read(upstream, Source(url=server.url, credentials=credentials)) == b"back home"
    assert "authorization" in server.requests[0].headers
    assert not any("authorization" in seen.headers for seen in (*other.requests, server.requests[1]))
    assert SECRET not in repr(other.requests)


async def test_credentials_stay_on_the_way_inside_one_host(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files["y"] = b"here"
    server.fail("x", Fault(redirect="/y"))
    assert await read(upstream, Source(url=server.url, credentials=Credentials(bearer=SECRET))) == b"here"
    assert server.requests[1].headers["authorization"] == f"Bearer {SECRET}"


async def test_a_redirect_that_carries_the_token_to_another_host_is_not_followed(
    server: FaultyUpstream, other: FaultyUpstream, upstream: Upstream
) -> None:
    server.fail("*", Fault(redirect=f"{other.url}/t/{SECRET}/x"))
    source = Source(url=f"{server.url}/t/{{token}}", credentials=Credentials(token=SECRET))
    with pytest.raises(errors.Upstream, match="holds this source's secret") as told:
        await read(upstream, source)
    assert other.requests == []
    assert SECRET not in str(told.value.wire())


async def test_a_user_in_a_redirect_is_dropped(
    server: FaultyUpstream, other: FaultyUpstream, upstream: Upstream
) -> None:
    server.fail("x", Fault(redirect=f"http://me:pw@{other.host}/x"))
    assert await read(upstream, Source(url=server.url)) == b"over there"
    assert "authorization" not in other.requests[0].headers


async def test_a_circle_ends(server: FaultyUpstream, upstream: Upstream) -> None:
    server.fail("*", Fault(redirect="/x"), times=None)
    with pytest.raises(errors.Upstream, match="redirected more than 10 times"):
        await read(upstream, Source(url=server.url))
    assert len(server.requests) == 11


async def test_ten_redirects_are_followed(server: FaultyUpstream, upstream: Upstream) -> None:
    server.files["x"] = b"here at last"
    server.fail("x", Fault(redirect="/x"), times=10)
    assert await read(upstream, Source(url=server.url)) == b"here at last"


@pytest.mark.parametrize(
    "location",
    ["{}/store/conda/x", "{}/x?who=conda&again=anonymous", "{}/miniconda/x?token=tk-12345-old", "{}/x?a=sp=r"],
)
@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(user="conda", password="conda"),
        Credentials(user="", password="anonymous"),
        Credentials(token="tk-12345"),
        Credentials(query="sp=r&sig=S3cret%2Fpw"),
    ],
)
async def test_an_ordinary_word_or_a_part_of_one_blocks_no_redirect(
    server: FaultyUpstream, other: FaultyUpstream, upstream: Upstream, location: str, credentials: Credentials
) -> None:
    other.files |= dict.fromkeys(("store/conda/x", "miniconda/x"), b"over there")
    server.fail("*", Fault(redirect=location.format(other.url)))
    url = f"{server.url}/t/{{token}}" if credentials.token else server.url
    assert await read(upstream, Source(url=url, credentials=credentials)) == b"over there"


@pytest.mark.parametrize("location", ["{}/a/{}/x", "{}/x?key={}", "{}/x?a=1&{}"])
@pytest.mark.parametrize(
    "credentials", [Credentials(token=SECRET), Credentials(bearer=SECRET), Credentials(query=f"sig={SECRET}")]
)
async def test_a_whole_segment_or_value_that_is_the_secret_does(
    server: FaultyUpstream, other: FaultyUpstream, upstream: Upstream, location: str, credentials: Credentials
) -> None:
    server.fail("*", Fault(redirect=location.format(other.url, SECRET)))
    url = f"{server.url}/t/{{token}}" if credentials.token else server.url
    with pytest.raises(errors.Upstream, match="holds this source's secret"):
        await read(upstream, Source(url=url, credentials=credentials))
    assert other.requests == []


async def test_a_key_in_the_query_goes_with_every_request_to_its_own_host_only(
    server: FaultyUpstream, other: FaultyUpstream, upstream: Upstream
) -> None:
    server.fail("x", Fault(redirect=f"{other.url}/x"))
    source = Source(url=server.url, credentials=Credentials(query="sv=2024&sig=a%2Fb+c/d=="))
    assert await read(upstream, source) == b"over there"
    assert server.requests[0].query == "sv=2024&sig=a%2Fb+c/d=="
    assert other.requests[0].query == ""


@pytest.mark.parametrize("line", ["Content-Security-Policy", "Location"])
async def test_header_lines_may_have_64_kib(server: FaultyUpstream, upstream: Upstream, line: str) -> None:
    server.files |= {"x": b"here", "y": b"there"}
    long = "a" * 20_000
    fault = Fault(redirect=f"/y#{long}") if line == "Location" else Fault(headers={line: long})
    server.fail("x", fault)
    assert await read(upstream, Source(url=server.url)) in (b"here", b"there")


@pytest.mark.parametrize(
    "location", ["ftp://h.example.org/x", "file:///etc/passwd", "javascript:alert(1)", "https:///x", "http://[::1/x"]
)
async def test_only_http_is_followed(server: FaultyUpstream, upstream: Upstream, location: str) -> None:
    server.fail("*", Fault(redirect=location))
    with pytest.raises(errors.Upstream, match="which is not followed"):
        await read(upstream, Source(url=server.url))
    assert len(server.requests) == 1


async def test_a_refusal_after_a_redirect_says_where(
    server: FaultyUpstream, other: FaultyUpstream, upstream: Upstream
) -> None:
    server.fail("x", Fault(redirect=f"{other.url}/x"))
    other.basic = ("a", "b")
    with pytest.raises(errors.Upstream, match=f"{other.host} answered 401") as told:
        await read(upstream, Source(url=server.url, credentials=Credentials(bearer=SECRET)))
    assert "redirects" in told.value.hint


async def test_signed_addresses_are_followed_and_shown_without_their_query(
    server: FaultyUpstream, other: FaultyUpstream, upstream: Upstream
) -> None:
    server.fail("x", Fault(redirect=f"{other.url}/nothing?signature={SECRET}%2F1&b=c d"))
    with pytest.raises(errors.NotFound) as told:
        await read(upstream, Source(url=server.url))
    assert other.requests[0].raw_path == f"/nothing?signature={SECRET}%2F1&b=c%20d"
    assert SECRET not in str(told.value.wire())
