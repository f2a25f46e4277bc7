import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firth_protocol import errors
from firth_protocol.types import Credentials
from firthd.config import UpstreamSettings
from firthd.upstream.client import Source, Upstream
from firthd.upstream.direct import LEAST_BYTES
from firthd.upstream.proxies import from_environment
from tests.support.clock import FakeClock
from tests.support.proxy import small_proxy
from tests.support.upstream import Fault, FaultyUpstream


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with cert.pem and key.pem for 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


async def read(upstream: Upstream, source: Source) -> bytes:
    async with upstream.open(source, "x") as body:
        return b"".join([chunk async for chunk in body])


async def test_an_authority_of_the_mirrors_own_is_trusted_for_that_mirror_only(
    upstream: Upstream, certificate: Path, server_tls: ssl.SSLContext
) -> None:
    async with FaultyUpstream({"x": b"private"}, tls=server_tls) as server:
        trusting = Source(url=server.url, ca_file=str(certificate / "cert.pem"))
        assert await read(upstream, trusting) == b"private"
        with pytest.raises(errors.Upstream, match=f"the certificate of {server.host} is not trusted") as told:
            await read(upstream, Source(url=server.url))
        assert "ca_file" in told.value.hint


async def test_a_large_body_over_tls_is_no_matter_of_its_socket(
    upstream: Upstream, certificate: Path, server_tls: ssl.SSLContext
) -> None:
    content = bytes(3 * LEAST_BYTES)
    async with (
        FaultyUpstream({"x": content}, tls=server_tls) as server,
        upstream.open(Source(url=server.url, ca_file=str(certificate / "cert.pem")), "x") as body,
    ):
        assert not await body.pump(lambda _: None, lambda _: None)
        assert b"".join([chunk async for chunk in body]) == content


async def test_a_certificate_that_is_not_trusted_is_not_tried_again(
    upstream: Upstream, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    async with FaultyUpstream(tls=server_tls) as server:
        with pytest.raises(errors.Upstream) as told:
            await upstream.fetch(Source(url=server.url), "x", tmp_path / "spool", max_bytes=10)
        assert "tried" not in told.value.message


async def test_from_https_nothing_leads_to_http(
    upstream: Upstream, certificate: Path, server: FaultyUpstream, server_tls: ssl.SSLContext
) -> None:
    async with FaultyUpstream(tls=server_tls) as secure:
        secure.fail("*", Fault(redirect=f"{server.url}/x"))
        with pytest.raises(errors.Upstream, match="leads from https to http"):
            await read(upstream, Source(url=secure.url, ca_file=str(certificate / "cert.pem")))
    assert server.requests == []


async def test_a_move_from_http_to_https_loses_the_credentials(
    upstream: Upstream, certificate: Path, server: FaultyUpstream, server_tls: ssl.SSLContext
) -> None:
    async with FaultyUpstream({"x": b"secure"}, tls=server_tls) as secure:
        server.fail("*", Fault(redirect=f"{secure.url}/x"))
        source = Source(url=server.url, credentials=Credentials(bearer="abc"), ca_file=str(certificate / "cert.pem"))
        assert await read(upstream, source) == b"secure"
        assert "authorization" not in secure.requests[0].headers


@pytest.mark.parametrize("content", [None, b"not a certificate"])
async def test_a_ca_file_that_cannot_be_used_is_named(
    upstream: Upstream, tmp_path: Path, content: bytes | None
) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    with pytest.raises(errors.Invalid, match=r"the ca_file .*/ca\.pem cannot be used"):
        await read(upstream, Source(url="https://127.0.0.1:1", ca_file=str(ca_file)))


async def test_plain_http_over_https_is_told(upstream: Upstream, server: FaultyUpstream) -> None:
    with pytest.raises(errors.Upstream, match="no encrypted connection"):
        await read(upstream, Source(url=server.url.replace("http:", "https:")))


async def test_a_proxy_is_used_with_its_own_credentials(upstream: Upstream, server: FaultyUpstream) -> None:
    server.fail("*", Fault(status=200, body=b"through the proxy"), times=None)
    proxy = server.url.replace("://", "://me:pw@")
    source = Source(url="http://conda.example.org/main", proxy=proxy, credentials=Credentials(bearer="abc"))
    assert await read(upstream, source) == b"through the proxy"
    (seen,) = server.requests
    assert seen.headers["host"] == "conda.example.org"
    assert seen.raw_path == "http://conda.example.org/main/x"
    assert seen.headers["proxy-authorization"] == "Basic bWU6cHc="
    assert seen.headers["authorization"] == "Bearer abc"


async def test_a_proxy_that_refuses_a_tunnel_is_told(upstream: Upstream, server: FaultyUpstream) -> None:
    server.fail("*", Fault(status=407), times=None)
    proxy = server.url.replace("://", "://me:pw@")
    with pytest.raises(
        errors.Upstream, match=r"the proxy answered 407 when asked to connect to conda\.example\.org"
    ) as told:
        await read(
            upstream, Source(url="https://conda.example.org/main", proxy=proxy, credentials=Credentials(bearer="abc"))
        )
    assert "password" in told.value.hint
    (seen,) = server.requests
    assert seen.method == "CONNECT"
    assert seen.headers["proxy-authorization"] == "Basic bWU6cHc="
    assert "authorization" not in seen.headers


@asynccontextmanager
async def told_by(environ: dict[str, str]) -> AsyncIterator[Upstream]:
    """Give what asks sources in such an environment."""
    upstream = Upstream(UpstreamSettings(timeout_s=5), FakeClock(auto=True), proxies=from_environment(environ))
    await upstream.start()
    yield upstream
    await upstream.close()


async def test_the_environment_names_proxies_for_sources_that_name_none(
    certificate: Path, server: FaultyUpstream, server_tls: ssl.SSLContext
) -> None:
    ca_file = str(certificate / "cert.pem")
    server.files["x"] = b"plain"
    async with FaultyUpstream({"x": b"secure"}, tls=server_tls) as secure, small_proxy() as one, small_proxy() as own:
        named = {"HTTPS_PROXY": one.url.replace("://", "://me:pa55word@"), "http_proxy": one.url}
        async with told_by(named) as upstream:
            assert await read(upstream, Source(url=secure.url, ca_file=ca_file)) == b"secure"
            assert await read(upstream, Source(url=server.url)) == b"plain"
            assert one.asked == [("CONNECT", secure.host), ("GET", f"{server.url}/x")]
            assert one.authorization == ["Basic bWU6cGE1NXdvcmQ=", None]
            assert await read(upstream, Source(url=secure.url, ca_file=ca_file, proxy=own.url)) == b"secure"
            assert (len(one.asked), len(own.asked)) == (2, 1)
            secure.fail("*", Fault(status=500, reason="pa55word"))
            with pytest.raises(errors.Upstream) as told:
                await read(upstream, Source(url=secure.url, ca_file=ca_file))
            assert "pa55word" not in str(told.value.message)
        async with told_by({**named, "NO_PROXY": "example.org, 127.0.0.0/8"}) as upstream:
            before = len(one.asked)
            assert await read(upstream, Source(url=secure.url, ca_file=ca_file)) == b"secure"
            assert await read(upstream, Source(url=server.url)) == b"plain"
            assert len(one.asked) == before
            assert await read(upstream, Source(url=server.url, proxy=own.url)) == b"plain"
            assert own.asked[-1] == ("GET", f"{server.url}/x")


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("", False),
        ("*", True),
        ("example.org", True),
        (".example.org", True),
        ("*.example.org", True),
        ("other.org,conda.example.org.", True),
        ("ample.org", False),
        ("conda.example.org:443", True),
        ("conda.example.org:8443", False),
        ("10.0.0.0/8", False),
    ],
)
def test_hosts_that_are_asked_without_the_proxy(no_proxy: str, direct: bool) -> None:
    proxies = from_environment({"ALL_PROXY": "proxy.example.org:3128", "no_proxy": no_proxy})
    told = proxies.through("https://conda.example.org/main/x")
    assert told == (None if direct else "http://proxy.example.org:3128")


@pytest.mark.parametrize(
    ("entry", "direct"),
    [("10.0.0.0/8", True), ("10.1.2.3", True), ("10.1.2.3:80", True), ("[fd00::1]:80", False), ("10.1.2", False)],
)
def test_addresses_that_are_asked_without_the_proxy(entry: str, direct: bool) -> None:
    proxies = from_environment({"HTTP_PROXY": "http://proxy.example.org", "NO_PROXY": entry})
    assert (proxies.through("http://10.1.2.3/x") is None) == direct
    assert (proxies.through("http://[fd00::1]/x") is None) == entry.startswith("[")


@pytest.mark.parametrize("proxy", ["socks5://proxy.example.org", "http://", "http://[bad", ""])
def test_what_is_no_http_proxy_is_not_used(proxy: str) -> None:
    assert from_environment({"HTTPS_PROXY": proxy}).through("https://conda.example.org/") is None
