"""The only place that knows which screen shows which place; screens know places, never one another."""

from collections.abc import Callable, Mapping

from firth_tui.actions import Place, Target
from firth_tui.screens.place import PlaceScreen


def screen_for(target: Target) -> PlaceScreen:
    """Return a new screen that shows `target`."""
    return _MAKERS[target.place](target)


# A screen's module is read when its place is first opened: the first paint does not wait for all of them.


def _channels(target: Target) -> PlaceScreen:
    from firth_tui.screens.channels import ChannelsScreen

    return ChannelsScreen()


def _channel(target: Target) -> PlaceScreen:
    from firth_tui.screens.channel import ChannelScreen

    return ChannelScreen(target.channel, target.place)


def _package(target: Target) -> PlaceScreen:
    from firth_tui.screens.package import PackageScreen

    assert target.package is not None
    return PackageScreen(target.channel, target.package)


def _mirrors(target: Target) -> PlaceScreen:
    from firth_tui.screens.mirrors import MirrorsScreen

    return MirrorsScreen(faults=target.faults, query=target.query)


def _mirror(target: Target) -> PlaceScreen:
    from firth_tui.screens.mirror import MirrorScreen

    return MirrorScreen(target.number)


def _runs(target: Target) -> PlaceScreen:
    from firth_tui.screens.runs import RunsScreen

    return RunsScreen()


def _run(target: Target) -> PlaceScreen:
    from firth_tui.screens.run import RunScreen

    return RunScreen(target.number)


def _health(target: Target) -> PlaceScreen:
    from firth_tui.screens.health import HealthScreen

    return HealthScreen()


def _audit(target: Target) -> PlaceScreen:
    from firth_tui.screens.health import AuditScreen

    return AuditScreen()


def _policies(target: Target) -> PlaceScreen:
    from firth_tui.screens.policies import PoliciesScreen

    return PoliciesScreen()


def _policy(target: Target) -> PlaceScreen:
    from firth_tui.screens.policy import PolicyScreen

    return PolicyScreen(target.name)


def _excluded(target: Target) -> PlaceScreen:
    from firth_tui.screens.excluded import ExcludedScreen

    return ExcludedScreen(target.number)


def _explain(target: Target) -> PlaceScreen:
    from firth_tui.screens.explain import ExplainScreen

    return ExplainScreen(target.channel, target.name, target.package)


def _tokens(target: Target) -> PlaceScreen:
    from firth_tui.screens.tokens import TokensScreen

    return TokensScreen()


def _advisories(target: Target) -> PlaceScreen:
    from firth_tui.screens.advisories import AdvisoriesScreen

    return AdvisoriesScreen()


def _advisory(target: Target) -> PlaceScreen:
    from firth_tui.screens.advisory import AdvisoryScreen

    return AdvisoryScreen(target.name)


_MAKERS: Mapping[Place, Callable[[Target], PlaceScreen]] = {
    Place.CHANNELS: _channels,
    Place.PACKAGES: _channel,
    Place.CHANNEL_MIRRORS: _channel,
    Place.SUBCHANNELS: _channel,
    Place.GENERATIONS: _channel,
    Place.CHANGES: _channel,
    Place.USE: _channel,
    Place.PACKAGE: _package,
    Place.MIRRORS: _mirrors,
    Place.MIRROR: _mirror,
    Place.RUNS: _runs,
    Place.RUN: _run,
    Place.HEALTH: _health,
    Place.AUDIT: _audit,
    Place.POLICIES: _policies,
    Place.POLICY: _policy,
    Place.EXCLUDED: _excluded,
    Place.EXPLAIN: _explain,
    Place.TOKENS: _tokens,
    Place.ADVISORIES: _advisories,
    Place.ADVISORY: _advisory,
}
