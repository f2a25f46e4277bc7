"""Channel names: one rule for the daemon, firth.toml and the form that creates a channel."""

import pytest

from firth_protocol import names
from firth_protocol.errors import Invalid


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("main", (None, "main")),
        ("a", (None, "a")),
        ("a" * 63, (None, "a" * 63)),
        ("team/dev", ("team", "dev")),
        ("r2-d_2/x9", ("r2-d_2", "x9")),
        ("simple", (None, "simple")),  # reserved below a channel only
    ],
)
def test_names(name: str, parts: tuple[str | None, str]) -> None:
    assert names.check(name) == parts
    assert names.is_pattern(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Main",
        "9a",
        "_a",
        "a" * 64,
        "a b",
        "a\n",
        "ä",
        "/a",
        "a/",
        "a/b/c",
        "a//b",
        "../a",
        "a/*",
        "*",
        "a%",
        "a\x00",
    ],
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Invalid, match="is no channel name") as caught:
        names.check(name)
    assert caught.value.hint == names.RULE


@pytest.mark.parametrize(
    "name", ["t", "t/x", "x/t", "noarch", "x/noarch", "noarch/x", "x/simple", "x/shards", "x/cran"]
)
def test_reserved_names(name: str) -> None:
    with pytest.raises(Invalid, match="is reserved"):
        names.check(name, frozenset({"noarch"}))


def test_patterns_name_channels_or_all_children_of_one() -> None:
    for text in ("main", "main/dev", "main/*"):
        assert names.is_pattern(text)
    for text in ("*", "*/*", "main/", "main/*x", "main/dev/*", "Main/*", ""):
        assert not names.is_pattern(text)
