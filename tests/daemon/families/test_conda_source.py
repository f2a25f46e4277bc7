import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol import errors
from firth_protocol.types import Credentials
from firthd.families.conda.source import normalise

TOKEN = Credentials(token="tk-12345")
BASIC = Credentials(user="me", password="pä:ss")


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "stored", "credentials"),
    [
        ("https://conda.example.org/pkgs/main", "https://conda.example.org/pkgs/main", None),
        ("  https://conda.example.org/pkgs/main/ ", "https://conda.example.org/pkgs/main", None),
        ("HTTPS://Conda.Example.ORG:443//pkgs//main//", "https://conda.example.org/pkgs/main", None),
        ("https://conda.example.org", "https://conda.example.org", None),
        ("https://conda.example.org:8443/a", "https://conda.example.org:8443/a", None),
        ("https://[::1]:8443/a", "https://[::1]:8443/a", None),
        ("https://b\u00fccher.example.org/a", "https://xn--bcher-kva.example.org/a", None),
        ("https://conda.example.org/a+b%20c/ä", "https://conda.example.org/a+b%20c/%C3%A4", None),
        ("https://conda.example.org/label/dev", "https://conda.example.org/label/dev", None),
        ("https://conda.example.org/api/repo/team", "https://conda.example.org/api/repo/team", None),
        ("https://conda.example.org/t/tk-12345/repo/main", "https://conda.example.org/t/{token}/repo/main", TOKEN),
        ("https://conda.example.org/repo/t/tk-12345/org/c", "https://conda.example.org/repo/t/{token}/org/c", TOKEN),
        ("https://conda.example.org/t/tk-12345", "https://conda.example.org/t/{token}", TOKEN),
        ("https://conda.example.org/t/tk%2D12345/main", "https://conda.example.org/t/{token}/main", TOKEN),
        ("https://me:p%C3%A4%3Ass@conda.example.org/main", "https://conda.example.org/main", BASIC),
        ("https://me@conda.example.org/x", "https://conda.example.org/x", Credentials(user="me", password="")),
        ("https://conda.example.org/x/t", "https://conda.example.org/x/t", None),
        ("https://:pw@conda.example.org/x", "https://conda.example.org/x", Credentials(user="", password="pw")),
        ("https://conda.example.org/%74/tools", "https://conda.example.org/%74/tools", None),
        ("https://conda.example.org/t/v1.2/main", "https://conda.example.org/%74/v1.2/main", None),
        ("https://conda.example.org/t/v1.2/t/tk-12345/x", "https://conda.example.org/%74/v1.2/t/{token}/x", TOKEN),
        ("https://conda.example.org/team/t/label/dev", "https://conda.example.org/team/%74/label/dev", None),
        ("https://conda.example.org/main/label/linux-64", "https://conda.example.org/main/label/linux-64", None),
        ("https://conda.example.org/main/label/noarch", "https://conda.example.org/main/label/noarch", None),
        ("https://conda.example.org/main?", "https://conda.example.org/main", None),
        ("file:///media/disk/", "file:///media/disk", None),
        ("file:///media/my disk", "file:///media/my%20disk", None),
        ("file://localhost/media/disk", "file:///media/disk", None),
    ],
)
def test_each_form_of_an_address(given_: str, stored: str, credentials: Credentials | None) -> None:
    found = normalise(given_)
    assert (found.source, found.credentials, found.warnings) == (stored, credentials, [])
    again = normalise(found.source, found.credentials)
    assert (again.source, again.credentials, again.warnings) == (stored, credentials, [])


@pytest.mark.parametrize(
    ("given_", "stored", "left_off"),
    [
        ("https://c.example.org/main/linux-64", "https://c.example.org/main", "/linux-64"),
        ("https://c.example.org/main/noarch/", "https://c.example.org/main", "/noarch"),
        ("https://c.example.org/main/noarch/repodata.json", "https://c.example.org/main", "/noarch/repodata.json"),
        (
            "https://c.example.org/main/odd-9/repodata.json.zst",
            "https://c.example.org/main",
            "/odd-9/repodata.json.zst",
        ),
        ("https://c.example.org/main/channeldata.json", "https://c.example.org/main", "/channeldata.json"),
        ("file:///media/disk/noarch", "file:///media/disk", "/noarch"),
        ("https://c.example.org/noarch", "https://c.example.org", "/noarch"),
    ],
)
def test_an_address_copied_from_a_browser_is_corrected_and_told(given_: str, stored: str, left_off: str) -> None:
    found = normalise(given_)
    assert found.source == stored
    (warning,) = found.warnings
    assert left_off in warning


def test_where_another_secret_is_given_a_folder_t_is_a_folder() -> None:
    found = normalise("https://conda.example.org/t/tools/main", BASIC)
    assert (found.source, found.credentials) == ("https://conda.example.org/%74/tools/main", BASIC)


def test_a_key_in_the_query_is_kept_as_a_credential() -> None:
    found = normalise("https://conda.example.org/main?sv=2024&sig=S3cret%2Fpw")
    assert found.source == "https://conda.example.org/main"
    assert found.credentials == Credentials(query="sv=2024&sig=S3cret%2Fpw")
    assert "query" in found.warnings[0]
    assert "S3cret" not in repr(found)
    assert normalise(found.source, stored=found.credentials).credentials == found.credentials


def test_a_label_named_like_a_subdir_is_no_subdir() -> None:
    assert normalise("https://c.example.org/main/label/noarch/linux-64").source == (
        "https://c.example.org/main/label/noarch"
    )
    assert normalise("https://c.example.org/main/label/dev/noarch/repodata.json").source == (
        "https://c.example.org/main/label/dev"
    )


def test_a_token_without_a_place_goes_to_the_front_as_conda_does() -> None:
    found = normalise("https://conda.example.org/repo/main", TOKEN)
    assert found.source == "https://conda.example.org/t/{token}/repo/main"
    assert found.credentials == TOKEN
    assert len(found.warnings) == 1


def test_what_is_stored_already_counts_where_nothing_else_is_given() -> None:
    address = "https://conda.example.org/t/{token}/main"
    assert normalise(address, stored=TOKEN).credentials == TOKEN
    assert normalise("https://conda.example.org/t/new-1/main", stored=TOKEN).credentials == Credentials(token="new-1")
    with pytest.raises(errors.Invalid, match="there is none"):
        normalise(address)


def test_secrets_on_an_open_line_are_warned_about() -> None:
    (warning,) = normalise("http://me:pw@conda.example.org/main").warnings
    assert "without encryption" in warning


@pytest.mark.parametrize(
    "source",
    [
        "",
        "main",
        "/media/disk",
        "file:media/disk",
        "file://host.example.org/media",
        "file:///",
        "file:///media/../etc",
        "file:///media/%2e%2e/etc",
        "ftp://conda.example.org/main",
        "javascript://conda.example.org/%0aalert(1)",
        "https://",
        "https:///main",
        "https://conda.example.org:99999/main",
        "https://conda.example.org:x/main",
        "https://[::1/main",
        "https://con da.example.org/main",
        "https://conda.example.org/ma in",
        "https://conda.example.org/ma\nin",
        "https://conda.example.org/main\\..",
        "file:///media/disk?x=1",
        "https://me:pw@conda.example.org/main?sig=12345678",
        "https://conda.example.org/t/tk-1/main?sig=12345678",
        "https://conda.example.org/t//main",
        "https://conda.example.org/main#x",
        "https://conda.example.org/../main",
        "https://conda.example.org/%2E%2E/main",
        "https://conda.example.org/t/{token}/t/{token}/x",
        "https://:@conda.example.org/main",
        "https://me:pw@conda.example.org/t/tk-1/main",
        "https://conda.example.org/t/a%0d%0ab/main",
        "https://conda.example.org/" + "a" * 2048,
    ],
)
def test_what_is_no_address_is_refused(source: str) -> None:
    with pytest.raises(errors.Invalid) as refused:
        normalise(source)
    assert refused.value.message


def test_two_different_secrets_are_refused_and_not_shown() -> None:
    for source in ("https://conda.example.org/t/tk-other/main", "https://me:tk-other@conda.example.org/main"):
        with pytest.raises(errors.Invalid) as refused:
            normalise(source, TOKEN)
        assert "tk-" not in str(refused.value.wire())
    with pytest.raises(errors.Invalid):
        normalise("file:///media/disk", TOKEN)


@given(
    st.sampled_from(["https://", "http://me:S3cret-pw@", "file:///", "", "https://h.example.org/t/S3cret-pw/"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
def test_anything_is_stored_tidily_or_refused_and_shows_no_secret(start: str, rest: str) -> None:
    found, refused = None, None
    try:
        found = normalise(start + rest)
    except errors.Invalid as error:
        refused = error
    if found is None:
        assert refused is not None
        assert "S3cret-pw" not in str(refused.wire())
        return
    assert found.source.isascii()
    assert not set(found.source) & set(' \t\r\n?#\\<>"@'[:-1])
    assert not found.source.endswith("/")
    assert "S3cret-pw" not in found.source + "".join(found.warnings) + repr(found)
    again = normalise(found.source, found.credentials)
    assert (again.source, again.credentials) == (found.source, found.credentials)
