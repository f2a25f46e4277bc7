"""An installation as a document: what is read, refused with its place, written and compared, and in which order."""

import string
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firth_protocol.errors import Invalid
from firth_protocol.types import (
    DateRule,
    Filters,
    KeepGenerations,
    MirrorMode,
    MirrorType,
    Notice,
    OnUpstreamRemoval,
    PackageRule,
    Privacy,
    Rules,
)
from firthd.mirrors.installation_plan import Plan, plan
from firthd.mirrors.installation_text import ChannelEntry, Installation, MirrorEntry, PolicyEntry, read, write

MIRROR = 'type = "conda"\nsource = "https://conda.example.org/forge"\n'


def now(**policies: str) -> Installation:
    """Return an installation of `main` with the mirror `m`, whose policies are as given ("" without)."""
    return read(
        f'[policies.a.rules]\nsigned_only = true\n[policies.b.rules]\n[channels.main]\npolicy = "{policies["main"]}"\n'
        f'[channels.main.mirrors.m]\n{MIRROR}mode = "passive"\ncredentials = ""\npolicy = "{policies["m"]}"\n'
    )


def steps(made: Plan) -> list[tuple[str, str, dict[str, Any]]]:
    return [(change.action, change.name, dict(change.after)) for change in made.changes]


texts = st.text(max_size=12)
keys = st.one_of(st.text(string.ascii_lowercase, min_size=1, max_size=6), st.text(min_size=1, max_size=6)).filter(
    lambda key: "/" not in key
)
mirrors = st.builds(
    MirrorEntry,
    type=st.sampled_from(MirrorType),
    mode=st.sampled_from(MirrorMode),
    source=st.just("file:///srv/source"),
    credentials=st.sampled_from(["", "given", "@forge"]),
    schedule=texts,
    enabled=st.booleans(),
    policy=st.just(""),
    filters=st.builds(Filters, subdirs=st.none() | st.lists(texts, max_size=3), archive=st.none() | st.booleans()),
    on_upstream_removal=st.sampled_from(OnUpstreamRemoval),
    also_from=st.lists(texts, max_size=3),
    proxy=texts,
    max_rate=st.integers(0, 2**53),
)
channels = st.builds(
    ChannelEntry,
    description=texts,
    privacy=st.sampled_from(Privacy),
    keep_generations=st.builds(KeepGenerations),
    notices=st.lists(st.builds(Notice, message=st.text(min_size=1, max_size=9)), max_size=2),
)
policies = st.builds(
    PolicyEntry,
    description=texts,
    rules=st.builds(
        Rules,
        packages=st.none() | st.builds(PackageRule, allow=st.none() | st.lists(st.text(min_size=1), max_size=40)),
        dates=st.none() | st.builds(DateRule, from_=st.none() | st.just("2026-01-31")),
        min_age=st.none() | st.integers(1, 9),
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(keys, policies, max_size=2), st.dictionaries(keys, channels, min_size=1, max_size=2), mirrors)
def test_what_is_written_is_read_back(
    named: dict[str, PolicyEntry], of: dict[str, ChannelEntry], mirror: MirrorEntry
) -> None:
    first = next(iter(of))
    made = Installation(policies=named, channels=of, mirrors={(first, "m"): mirror, (first, "m.2 \u202e"): mirror})
    text = write(made)
    assert read(text) == made
    assert text == write(read(text))
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert not plan(made, made, set()).changes


@pytest.mark.parametrize(
    ("document", "path", "told"),
    [
        ("firth.toml", "$", "@FILE"),
        ("a = [", "$", "no TOML"),
        ("a = " + "[" * 100_000, "$.document", "nested too deeply"),
        ("a." * 300_000 + "b = 1", "$.document", "nested too deeply"),
        ('["a"' + " . 'a'" * 100 + "]", "$.document", "nested too deeply"),
        ("a = " + "9" * 5000, "$", "no TOML"),
        ("format = 2", "$.format", "format 1"),
        ("[policy.few]", "$.policy", "did you mean `policies`?"),
        ("policies = 3", "$.policies", "table"),
        ("[[channels]]", "$.channels", "table"),
        ('channels = { main = "x" }', "$.channels.main", "table"),
        ("[channels.main]\nmirror = {}", "$.channels.main.mirror", "did you mean `mirrors`?"),
        ("[channels.main]\nkeep = {}", "$.channels.main.keep", "keep_generations"),
        ("[channels.main.keep_generations]\nday = 3", "$.channels.main.keep_generations.day", "`days`"),
        ('[channels.main]\nprivacy = "open"', "$.channels.main.privacy", "open"),
        ("[policies.few.rules]\nmin_ages = 3", "$.policies.few.rules.min_ages", "did you mean `min_age`?"),
        ('[policies."a b".rules.packages]\nallows = []', '$.policies."a b".rules.packages.allows', "`allow`"),
        ("[policies.few.rules.cve.score]\nop = '>='\nvalue = nan", "$.policies.few.rules.cve.score.value", "no number"),
        ("[policies.few.rules]\nmin_age = 0", "$.policies.few.rules.min_age", ">= 1"),
        ("[channels.main.mirrors.m]\nfilter = {}", "$.channels.main.mirrors.m.filter", "did you mean `filters`?"),
        ("[channels.main.mirrors.m.credentials]\ntoken = 's3cr3t'", "$.channels.main.mirrors.m.credentials", "@FILE"),
        ("[channels.main.mirrors.m]\ncredentials = 's3cr3t'", "$.channels.main.mirrors.m.credentials", "no secrets"),
        (
            "[channels.main.mirrors.m]\nsource = 'https://me:s3cr3t@conda.example.org/x'",
            "$.channels.main.mirrors.m.source",
            "secrets=@FILE",
        ),
        (
            "[channels.main.mirrors.m]\nsource = 'https://conda.example.org/t/s3cr3t/x'",
            "$.channels.main.mirrors.m.source",
            "secret",
        ),
        ("[channels.main.mirrors.m]\ntoken = 's3cr3t'", "$.channels.main.mirrors.m.token", "no such field"),
    ],
)
def test_what_is_not_understood_is_told_with_its_place(document: str, path: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(document)
    assert refused.value.data["path"] == path
    whole = f"{refused.value.message} {refused.value.hint}"
    assert told in whole
    assert "s3cr3t" not in whole


def test_what_is_told_of_a_hostile_document_is_short() -> None:
    long = "x" * 100_000
    for document in (
        f"[channels.{long}]\nkeep = 1",
        f"[channels.{long}.mirrors.{long}]\n{long} = 1",
        f'[channels.main]\nprivacy = "{long}"',
        f"{long} = 1",
        f'"{long}',
    ):
        with pytest.raises(Invalid) as refused:
            read(document)
        assert len(refused.value.message) + len(refused.value.data["path"]) < 2000


def test_days_may_stand_there_as_toml_has_them() -> None:
    found = read("[policies.few.rules.dates]\nfrom = 2026-01-31")
    assert found.policies["few"].rules == Rules(dates=DateRule(from_="2026-01-31"))


def test_only_what_differs_is_changed_and_what_is_not_named_is_left_alone() -> None:
    here = now(main="a", m="")
    wanted = read('[policies.c]\nrules = {}\n[channels.main]\npolicy = "c"\n[policies.a.rules]\nsigned_only = true')
    made = plan(here, wanted, set())
    assert steps(made) == [("created", "c", {"rules": {}}), ("changed", "main", {"policy": "c"})]
    assert made.unchanged == ["policy a"]
    assert made.left_alone == ["policy b", "mirror main:m"]
    assert made.policies == {("main", "m"): "c"}
    assert steps(plan(here, read('[channels.main]\npolicy = ""'), set())) == [("changed", "main", {"policy": ""})]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("a", ""), ("", "a"), [("main", ""), ("main:m", "a")]),
        (("", "a"), ("a", ""), [("main:m", ""), ("main", "a")]),
        (("a", "b"), ("b", "a"), [("main:m", ""), ("main", "b"), ("main:m", "a")]),
    ],
)
def test_a_policy_passes_between_channel_and_mirror(
    before: tuple[str, str], after: tuple[str, str], expected: list[tuple[str, str]]
) -> None:
    made = plan(now(main=before[0], m=before[1]), now(main=after[0], m=after[1]), set())
    assert [(change.name, change.after["policy"]) for change in made.changes] == expected


def test_parents_come_first_and_mirrors_in_the_order_of_the_document() -> None:
    wanted = read(f'[channels."x/b"]\n[channels.x.mirrors.z]\n{MIRROR}[channels.x.mirrors.a]\n{MIRROR}')
    assert [change.name for change in plan(Installation(), wanted, set()).changes] == ["x", "x/b", "x:z", "x:a"]


@pytest.mark.parametrize(
    ("document", "path", "told"),
    [
        ("[policies.new]\ndescription = 'x'", "$.policies.new.rules", "needs it"),
        ("[channels.main.mirrors.n]\ntype = 'conda'", "$.channels.main.mirrors.n.source", "needs it"),
        ("[channels.main.mirrors.m]\nmode = 'active'", "$.channels.main.mirrors.m.mode", "it is passive"),
        ("[channels.main]\npolicy = 'none'", "$.channels.main.policy", "no policy 'none'"),
        ("[channels.main.mirrors.m]\npolicy = 'a'", "$.channels.main.mirrors.m.policy", "both"),
        ("[channels.main]\npolicy = 'b'", "$.channels.main.policy", "both"),
        ("[channels.'lost/child']", '$.channels."lost/child"', "no channel 'lost'"),
        ("[channels.main.mirrors.m]\ncredentials = 'given'", "$.channels.main.mirrors.m.credentials", "secrets=@FILE"),
    ],
)
def test_what_cannot_become_true_is_told_before_anything_changes(document: str, path: str, told: str) -> None:
    with pytest.raises(Invalid) as refused:
        plan(now(main="a", m="b"), read(document), set())
    assert refused.value.data["path"] == path
    assert told in f"{refused.value.message} {refused.value.hint}"


def test_credentials_of_one_host_go_to_no_other() -> None:
    here = read(f"[channels.main.mirrors.m]\n{MIRROR}mode = 'passive'\ncredentials = 'given'")
    moved = "[channels.main.mirrors.m]\nsource = 'https://other.example.org/forge'"
    with pytest.raises(Invalid, match="not given"):
        plan(here, read(moved), set())
    assert steps(plan(here, read(moved), {("main", "m")}))[0][2]["credentials"] == "given"
