"""The only place that edits without a revision: it reads the present one first, and says when that moved."""

from collections.abc import Callable, Mapping
from typing import Any

from firth_protocol.ctl.transport import Daemon
from firth_protocol.describe import fields_of
from firth_protocol.errors import Conflict
from firth_protocol.methods import Method

ATTEMPTS = 5


def edit(
    daemon: Daemon, method: Method, getter: Method, params: Mapping[str, Any], say: Callable[[str], None]
) -> dict[str, Any]:
    """Return the reply of an edit based on the revision that `getter` tells.

    What somebody else changed between the two calls stays, beside what is given here: the edit is tried again on that
    revision, and `say` is told. Raises the tree's errors and Unreachable.
    """
    given = next(field.name for field in fields_of(method.params) if field.required)
    asked = next(field.name for field in fields_of(getter.params) if field.required)
    attempt = 0
    while True:
        attempt += 1
        revision = daemon.call(getter.name, {asked: params[given]})["revision"]
        try:
            reply: dict[str, Any] = daemon.call(method.name, {**params, "revision": revision})
            return reply
        except Conflict as error:
            current = error.data.get("current")
            moved = isinstance(current, dict) and current.get("revision") != revision
            if not moved or attempt == ATTEMPTS:
                raise
            say(f"{params[given]} was changed meanwhile; the edit is repeated on what it is now")
