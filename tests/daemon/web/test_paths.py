"""A path is taken apart once, and nothing hostile comes through."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firthd.web.paths import BadPath, split_path


@pytest.mark.parametrize(
    ("raw", "segments"),
    [
        ("/", ()),
        ("/repo/main/", ("repo", "main")),
        ("//repo///main", ("repo", "main")),
        ("/a/ddd-1!2.0+loc-0.conda", ("a", "ddd-1!2.0+loc-0.conda")),
        ("/a/ddd-1%212.0%2Bloc-0.conda", ("a", "ddd-1!2.0+loc-0.conda")),
        ("/a%20b", ("a b",)),
        ("/%2561", ("%61",)),  # decoded once
        ("/100%", ("100%",)),
    ],
)
def test_segments(raw: str, segments: tuple[str, ...]) -> None:
    assert split_path(raw) == (segments, raw.endswith("/"))


@pytest.mark.parametrize(
    "raw",
    [
        *("", "repo", "*"),
        *("/a/../b", "/a/%2e%2e/b", "/a/."),
        *("/a%2fb", "/a%5cb", "/a\\b"),
        *("/a%00", "/a%0d%0ax", "/%ff", "/a%e2%80%ae"),
        "/" + "a" * 5000,
    ],
)
def test_hostile_paths(raw: str) -> None:
    with pytest.raises(BadPath):
        split_path(raw)


@given(st.text(alphabet="/.%0125aefF\\+ é\x00", max_size=40))
def test_what_comes_through_is_harmless(tail: str) -> None:
    try:
        segments, _ = split_path("/" + tail)
    except BadPath:
        return
    for segment in segments:
        assert segment not in {"", ".", ".."}
        assert not set(segment) & {"/", "\\", "\x00"}
        assert segment.isprintable()
