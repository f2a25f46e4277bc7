"""The action table: keys, reasons, and what the footer shows."""

import ast
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import firth_tui
from firth_protocol.methods import METHODS
from firth_protocol.types import Channel, Mirror, Role
from firth_tui.action_table import ACTIONS, BY_ID, at, footer, menu
from firth_tui.actions import Action, Context, Danger, Place, why_not
from firth_tui.commands import COMMANDS
from tests.support.fake_daemon import FakeDaemon

OWN = {"log.follow", "log.wrap", "log.next", "policy.effect", "excluded.rule", "advisory.policy"}


@pytest.fixture
def world() -> FakeDaemon:
    daemon = FakeDaemon(Path("/nowhere"))
    daemon.add_channel("main")
    daemon.add_mirror("main", "forge")
    return daemon


def context(world: FakeDaemon, place: Place = Place.MIRRORS, **given: Any) -> Context:
    mirror: Mirror = next(iter(world.mirrors.values()))
    channel: Channel = world.channels["main"]
    values = {"role": Role.ADMIN, "methods": frozenset(METHODS), "mirror": mirror, "channel": channel}
    return Context(place=place, **{**values, **given})


@pytest.mark.parametrize("place", list(Place))
def test_no_key_means_two_things_in_one_place(place: Place) -> None:
    keys = Counter(key for action in at(place) for key in action.key.split(",") if key)
    assert [key for key, uses in keys.items() if uses > 1] == []


@pytest.mark.parametrize("place", list(Place))
def test_the_footer_has_six_at_most_with_help_and_quit(place: Place, world: FakeDaemon) -> None:
    shown = [action.id for action, _ in footer(place, context(world, place))]
    assert len(shown) <= 6
    assert shown[-2:] == ["app.help", "app.quit"]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_every_action_can_be_done_and_explains_itself(action: Action) -> None:
    named_tab = action.id.startswith("tab.")
    assert action.id in COMMANDS or action.id in OWN or named_tab
    assert action.help
    assert action.places
    if action.method is not None:
        assert action.method in METHODS, "nobody is shown what no daemon can do"
        assert action.role is not Role.NONE


@pytest.mark.parametrize("action", [each for each in ACTIONS if each.method], ids=lambda each: each.id)
def test_the_role_is_the_methods(action: Action) -> None:
    assert action.method is not None
    assert action.role is METHODS[action.method].role


def test_whatever_is_called_is_in_the_table() -> None:
    called = {
        each.value
        for file in Path(firth_tui.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in {"call", "ask", "page"} and not ast.unparse(call.func.value).endswith("firth")
        for each in call.args
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }
    assert {"mirror.run", "channel.list", "daemon.status"} <= called
    assert called <= set(METHODS)


def test_keys_are_safe_in_tmux_and_prompts() -> None:
    unsafe = {f"ctrl+{letter}" for letter in "sqzbamijh"}
    keys = {key for action in ACTIONS for key in action.key.split(",")}
    assert not keys & unsafe
    assert not any(key.startswith(("f1", "f2", "alt")) for key in keys)


def test_a_destructive_key_is_no_variant_of_a_harmless_one() -> None:
    dangerous = {key for action in ACTIONS if action.danger is not Danger.NONE for key in action.key.split(",")}
    harmless = {key for action in ACTIONS if action.danger is Danger.NONE for key in action.key.split(",")}
    for key in dangerous:
        assert f"ctrl+{key}" not in harmless
        assert key.swapcase() not in harmless or key == "b"


@pytest.mark.parametrize(
    ("name", "given", "reason"),
    [
        ("mirror.run", {"role": Role.READER}, "needs the role operator; yours is reader"),
        ("mirror.run", {"read_only": True}, "firth was started with --read-only"),
        ("mirror.run", {"connected": False}, "the daemon does not answer"),
        ("mirror.run", {"mirror": None}, "there is no mirror under the cursor"),
        ("mirror.run", {"methods": frozenset(METHODS) - {"mirror.run"}}, "needs a newer daemon: it has no mirror.run"),
        ("mirror.stop", {}, "forge is not running"),
        ("mirror.open_run", {}, "forge has not run yet"),
        ("open", {"rows": False}, "there is nothing here yet"),
        ("mirror.delete", {"role": Role.OPERATOR}, "needs the role manager; yours is operator"),
    ],
)
def test_reasons(world: FakeDaemon, name: str, given: dict[str, Any], reason: str) -> None:
    assert (why_not(BY_ID[name], context(world, **given)) or "").startswith(reason)


def test_a_running_mirror_can_be_stopped_and_not_run(world: FakeDaemon) -> None:
    mirror = next(iter(world.mirrors))
    world.begin_run(mirror)
    running = context(world)
    assert why_not(BY_ID["mirror.stop"], running) is None
    assert why_not(BY_ID["mirror.run"], running) == "forge is running already"


def test_reading_is_possible_read_only(world: FakeDaemon) -> None:
    assert why_not(BY_ID["view.audit"], context(world, Place.CHANNELS, read_only=True)) is None
    assert why_not(BY_ID["mirror.plan"], context(world, read_only=True)) is None
    assert why_not(BY_ID["mirror.details"], context(world, read_only=True, role=Role.READER)) is None


def test_the_menu_has_what_people_do_with_a_mirror(world: FakeDaemon) -> None:
    labels = {action.label for action, _ in menu(context(world))}
    assert {"View details", "Edit", "Run now", "Stop", "Restart", "Plan", "Fill", "Delete mirror"} <= labels
