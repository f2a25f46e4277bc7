"""The handlers: one short function a method, which translates between the protocol and the rooms."""

from firthd.engine import Engine
from firthd.rpc.dispatch import Handler
from firthd.rpc.handlers import (
    audit,
    channels,
    config,
    daemon,
    mirrors,
    packages,
    policies,
    reports,
    runs,
    schedules,
    store,
    tokens,
)


def handlers(engine: Engine) -> dict[str, Handler]:
    """Return every method's handler by name."""
    found: dict[str, Handler] = {}
    for room in (daemon, channels, mirrors, runs, packages, policies, config, tokens, schedules, audit, store, reports):
        found.update(room.handlers(engine))
    return found
