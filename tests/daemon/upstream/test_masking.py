from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firthd.upstream.masking import Masker, mask

SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=30)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://conda.example.org/main", "https://conda.example.org/main"),
        ("https://me:secret@conda.example.org:8443/main", "https://***@conda.example.org:8443/main"),
        ("https://me@conda.example.org/main", "https://***@conda.example.org/main"),
        ("https://conda.example.org/t/tk-12345/main", "https://conda.example.org/t/***/main"),
        ("https://conda.example.org/repo/t/tk-12345", "https://conda.example.org/repo/t/***"),
        ("https://conda.example.org/t/{token}/main", "https://conda.example.org/t/{token}/main"),
        ("https://conda.example.org/t/{token}secret/main", "https://conda.example.org/t/***/main"),
        ("https://cdn.example.org/x.conda?signature=abc", "https://cdn.example.org/x.conda?***"),
        ("https://conda.example.org/main#secret", "https://conda.example.org/main"),
        ("me:secret@conda.example.org/main", "***"),
        ("https://[::1/secret", "***"),
        ("file:///media/disk", "file:///media/disk"),
        ("https://conda.example.org/\x1b[31mred", "https://conda.example.org/?[31mred"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert mask(url) == shown


@given(st.text(), st.text(min_size=1))
def test_no_address_gets_control_characters_or_a_failure_out_of_masking(start: str, rest: str) -> None:
    for url in (start + rest, f"https://{rest}", f"https://host.example.org/{rest}"):
        assert all(ord(letter) >= 32 and ord(letter) != 127 for letter in mask(url))


@given(SECRET)
def test_a_secret_never_passes_however_it_is_quoted(secret: str) -> None:
    hide = Masker((secret,))
    for spelling in (secret, quote(secret, safe=""), quote(secret), quote_plus(secret), quote(secret, safe="").lower()):
        for text in (f"it said {spelling}!", f"see https://host.example.org/a/{spelling}/b for more"):
            assert spelling not in hide.foreign(text)
            assert spelling not in hide.hide(text)
        assert spelling not in hide.url(f"https://host.example.org/a/{spelling}/b")


@pytest.mark.parametrize("word", ["conda", "administrator", "pw", "a1"])
def test_a_secret_that_may_be_a_word_is_hidden_as_a_whole_word_only(word: str) -> None:
    hide = Masker((word,))
    assert hide.hide(f"{word}, mini{word} and {word}s") == f"***, mini{word} and {word}s"
    assert hide.hide(f"/x/{word}/y%2F{word}%2F") == "/x/***/y%2F***%2F"


def test_what_a_server_says_becomes_one_short_printable_line() -> None:
    said = Masker(()).foreign("go\r\naway\x00 " + "x" * 1000)
    assert said.startswith("go?away? x")
    assert len(said) <= 200
