import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol.errors import Invalid
from firth_protocol.types import Credentials
from firthd.upstream.source import (
    Source,
    address,
    authorization,
    check_credentials,
    masker,
    origin_of,
    proxy_of,
    redirected,
)

HOME = Source(url="https://conda.example.org/main")
WITH_TOKEN = Source(url="https://conda.example.org/t/{token}/main", credentials=Credentials(token="tk/1"))


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("noarch/repodata.json", "https://conda.example.org/main/noarch/repodata.json"),
        ("noarch/a-1!2.0+x-0.conda", "https://conda.example.org/main/noarch/a-1!2.0+x-0.conda"),
        ("noarch/a b?c#d.conda", "https://conda.example.org/main/noarch/a%20b%3Fc%23d.conda"),
        ("noarch/a%2Bb.conda", "https://conda.example.org/main/noarch/a%2Bb.conda"),
        ("noarch/100%.conda", "https://conda.example.org/main/noarch/100%25.conda"),
        ("/files/a.conda", "https://conda.example.org/files/a.conda"),
        ("/files/../a.conda", "https://conda.example.org/a.conda"),
        ("/./a..b/.c.conda", "https://conda.example.org/a..b/.c.conda"),
        ("/a b/c", "https://conda.example.org/a%20b/c"),
        ("//cdn.example.org/a.conda", "https://cdn.example.org/a.conda"),
        ("https://cdn.example.org/a b.conda", "https://cdn.example.org/a%20b.conda"),
        ("https://me:pw@cdn.example.org/a", "https://cdn.example.org/a"),
        ("", "https://conda.example.org/main/"),
    ],
)
def test_references_become_addresses(path: str, url: str) -> None:
    assert address(HOME, path) == url


def test_a_token_goes_into_its_place_percent_encoded() -> None:
    assert address(WITH_TOKEN, "noarch/x") == "https://conda.example.org/t/tk%2F1/main/noarch/x"
    assert address(WITH_TOKEN, "https://conda.example.org/t/{token}/y") == "https://conda.example.org/t/tk%2F1/y"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example.org/{token}/x",
        "https://conda.example.org:8443/{token}/x",
        "https://conda.example.org.evil.example.org/{token}",
        "https://conda.example.org@evil.example.org/{token}",
        "//evil.example.org/{token}",
    ],
)
def test_a_token_is_never_filled_into_another_origins_address(url: str) -> None:
    assert "tk" not in address(WITH_TOKEN, url)


@pytest.mark.parametrize(
    "path",
    ["../x", "noarch/../../x", "noarch/%2e%2e/x", "http://conda.example.org/x", "ftp://x.example.org/", "file:///x"],
)
def test_paths_that_climb_and_addresses_that_are_not_safe_are_refused(path: str) -> None:
    with pytest.raises(Invalid):
        address(HOME, path)


def test_a_lacking_token_is_told() -> None:
    with pytest.raises(Invalid, match="needs a token"):
        address(Source(url="https://conda.example.org/t/{token}/main"), "noarch/x")


@given(st.text(max_size=80))
def test_any_reference_stays_below_the_source_or_is_refused(path: str) -> None:
    try:
        url = address(HOME, f"noarch/{path}")
    except Invalid:
        return
    assert url.startswith("https://conda.example.org/main/noarch/")
    assert url.isascii()
    assert not set(url) & set(' \r\n\t?#\\"<>')


@given(st.text(max_size=80))
def test_a_redirect_leads_to_an_address_fit_for_a_request_line_or_is_refused(location: str) -> None:
    try:
        target = redirected("https://conda.example.org/main/x", location)
    except ValueError:
        return
    assert target.startswith("https://")
    assert target.isascii()
    assert not set(target) & set(" \r\n\t#")
    origin_of(target)


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(),
        Credentials(token="a", bearer="b"),
        Credentials(user="a"),
        Credentials(password="b"),
        Credentials(user="a:b", password="c"),
        Credentials(bearer="a\r\nX-Other: b"),
        Credentials(token="a b"),
        Credentials(token="ä"),
    ],
)
def test_credentials_have_one_form_that_can_be_sent(credentials: Credentials) -> None:
    with pytest.raises(Invalid):
        check_credentials(credentials)


def test_headers_follow_the_form_of_the_credentials() -> None:
    assert authorization(HOME) is None
    assert authorization(WITH_TOKEN) is None
    assert authorization(Source(url="https://h.example.org", credentials=Credentials(bearer="b"))) == "Bearer b"
    basic = Source(url="https://h.example.org", credentials=Credentials(user="me", password="pä"))
    assert authorization(basic) == "Basic bWU6cMOk"
    assert authorization(Source(url="https://me:p%C3%A4@h.example.org")) == "Basic bWU6cMOk"


def test_a_proxys_password_is_taken_out_of_its_address() -> None:
    source = Source(url="https://h.example.org", proxy="http://me:p%40ss@proxy.example.org:3128")
    assert proxy_of(source.proxy) == ("http://proxy.example.org:3128", "Basic bWU6cEBzcw==")
    assert "p@ss" not in masker(source).hide("the password is p@ss")
    with pytest.raises(Invalid, match="proxy") as refused:
        proxy_of("socks5://me:hidden@proxy.example.org")
    assert "hidden" not in str(refused.value)


def test_a_sources_repr_has_no_secret() -> None:
    source = Source(
        url="https://me:first@h.example.org/t/second/main",
        credentials=Credentials(bearer="third"),
        proxy="http://me:fourth@proxy.example.org",
    )
    text = repr(source)
    assert "h.example.org" in text
    assert not any(secret in text for secret in ("first", "second", "third", "fourth"))


@pytest.mark.parametrize(
    "url", ["conda.example.org/main", "ftp://h.example.org/x", "http://[::1/x", "http://h:x/y", ""]
)
def test_a_source_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="is not an http, https or file address"):
        address(Source(url=url), "x")


@pytest.mark.parametrize("proxy", ["http://me:hidden@[::1", "proxy.example.org", "http://me:hidden@", "http://h:x"])
def test_a_proxy_that_is_no_address_is_refused_without_its_password(proxy: str) -> None:
    source = Source(url="https://h.example.org", proxy=proxy)
    with pytest.raises(Invalid, match="the proxy") as refused:
        proxy_of(source.proxy)
    assert "hidden" not in str(refused.value.wire())
    assert "hidden" not in repr(source)
    assert masker(source).hide("it is hidden").count("hidden") == (0 if "hidden" in proxy else 1)
