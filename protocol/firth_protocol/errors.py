"""The one tree of errors that can reach a client, with the code and kind of each on the wire."""

from typing import Any, ClassVar, Self


class FirthError(Exception):
    """Something went wrong; the message says what, the hint says what to do next.

    `data` carries the ids involved; never a secret.
    """

    code: ClassVar[int] = -32603
    kind: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", **data: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data: dict[str, Any] = {name: value for name, value in data.items() if value is not None}

    def again(self, message: str | None = None) -> Self:
        """Return a fresh one, with another message when given: one raised again and again grows by its traceback."""
        return type(self)(self.message if message is None else message, hint=self.hint, **self.data)

    def wire(self) -> dict[str, Any]:
        """Return the JSON-RPC error object: code, message, data {kind, hint, retryable, ids}."""
        data = {"kind": self.kind, "hint": self.hint, "retryable": self.retryable, **self.data}
        return {"code": self.code, "message": self.message, "data": data}


class ParseError(FirthError):
    """The bytes are not JSON."""

    code, kind = -32700, "parse"


class InvalidRequest(FirthError):
    """The JSON is not a JSON-RPC 2.0 request."""

    code, kind = -32600, "invalid_request"


class MethodNotFound(FirthError):
    """No such method."""

    code, kind = -32601, "method_not_found"


class InvalidParams(FirthError):
    """A parameter is unknown, lacking or of the wrong type; `path` names it."""

    code, kind = -32602, "invalid_params"


class Internal(FirthError):
    """An unforeseen error; the correlation id leads to the traceback in the log."""

    code, kind = -32603, "internal"


class NotFound(FirthError):
    """The thing named does not exist."""

    code, kind = -32001, "not_found"


class Conflict(FirthError):
    """Somebody else was faster, or the name is taken; `current` has the present object."""

    code, kind = -32002, "conflict"


class Forbidden(FirthError):
    """The caller's role does not allow this."""

    code, kind = -32003, "forbidden"


class Invalid(FirthError):
    """A rule of the domain is broken."""

    code, kind = -32004, "invalid"


class ChannelFrozen(FirthError):
    """The channel is frozen; unfreeze it first."""

    code, kind = -32005, "channel_frozen"


class WrongState(FirthError):
    """The object is not in a state that allows this."""

    code, kind = -32006, "wrong_state"


class Upstream(FirthError):
    """The source did not answer as it should."""

    code, kind, retryable = -32007, "upstream", True


class NoSpace(FirthError):
    """Too little free space."""

    code, kind, retryable = -32008, "no_space", True


class ShrinkGuard(FirthError):
    """The source lost so much that somebody must look first."""

    code, kind = -32009, "shrink_guard"


class CursorExpired(FirthError):
    """The cursor is too old or of another daemon; list again."""

    code, kind, retryable = -32010, "cursor_expired", True


class InUse(FirthError):
    """Something else still needs the object."""

    code, kind = -32011, "in_use"


class TooLarge(FirthError):
    """A size is over the limit."""

    code, kind = -32012, "too_large"


class Unavailable(FirthError):
    """The daemon is starting or stopping; try again in a moment."""

    code, kind, retryable = -32013, "unavailable", True


class Interrupted(FirthError):
    """The daemon stopped while this was running."""

    code, kind, retryable = -32014, "interrupted", True


class WorkerLost(FirthError):
    """The worker process ended before its task was done."""

    code, kind, retryable = -32015, "worker_lost", True


def every_error() -> list[type[FirthError]]:
    """Return each error class of the tree, in the order of their definition."""
    return FirthError.__subclasses__()


def from_wire(error: dict[str, Any]) -> FirthError:
    """Build the error that a reply's error object describes; an unknown code gives a plain FirthError."""
    data = dict(error.get("data") or {})
    hint = str(data.pop("hint", ""))
    kind = data.pop("kind", None)
    data.pop("retryable", None)
    for cls in every_error():
        if cls.kind == kind or (kind is None and cls.code == error.get("code")):
            return cls(str(error.get("message", "")), hint=hint, **data)
    return FirthError(str(error.get("message", "")), hint=hint, **data)
