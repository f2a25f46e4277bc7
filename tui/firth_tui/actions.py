"""What an action is, and the only place that decides whether it can be done now, with the reason why not."""

from collections.abc import Callable, Hashable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from msgspec import Struct

from firth_protocol.errors import NotFound
from firth_protocol.types import Channel, Generation, Mirror, Package, Policy, Role, Run, Token


class Place(StrEnum):
    """Where the user is; a channel's tabs are places of their own."""

    CHANNELS = "channels"
    PACKAGES = "packages"
    CHANNEL_MIRRORS = "channel mirrors"
    SUBCHANNELS = "subchannels"
    GENERATIONS = "generations"
    CHANGES = "changes"
    USE = "use it"
    PACKAGE = "package"
    MIRRORS = "mirrors"
    MIRROR = "mirror"
    RUNS = "runs"
    RUN = "run"
    HEALTH = "health"
    AUDIT = "audit log"
    POLICIES = "policies"
    POLICY = "policy"
    EXCLUDED = "kept out"  # what a policy keeps out of a mirror
    EXPLAIN = "explanation"  # what became of a package's files
    TOKENS = "tokens"
    ADVISORIES = "advisories"
    ADVISORY = "advisory"


class Target(Struct, frozen=True, kw_only=True):
    """A place to go to, and what it is about: a channel's name, the number of a mirror or a run, a package.

    `name`: of a policy, an advisory's id, or the spec that is to be explained. `query`: how a list is filtered.
    """

    place: Place
    channel: str = ""
    number: int = 0
    package: Package | None = None
    name: str = ""
    query: str = ""
    faults: bool = False  # of a list: what failed or is incomplete only


class Danger(StrEnum):
    NONE = "none"
    CONFIRM = "confirm"  # a dialog with Cancel focused names the object and the effect
    NAME = "name"  # the dialog also wants the object's name typed


class Subject(StrEnum):
    """What an action acts on."""

    NONE = "none"
    CHANNEL = "channel"
    MIRROR = "mirror"
    RUN = "run"
    PACKAGE = "package"
    GENERATION = "generation"
    POLICY = "policy"
    TOKEN = "token"
    ROW = "row"  # whatever the cursor is on


class Context(Struct, frozen=True, kw_only=True):
    """All that decides whether an action is possible at this moment."""

    place: Place
    role: Role = Role.NONE
    read_only: bool = False
    connected: bool = True
    methods: frozenset[str] | None = None  # what the daemon offers; None: not known yet
    channel: Channel | None = None
    mirror: Mirror | None = None
    run: Run | None = None
    package: Package | None = None
    generation: Generation | None = None
    policy: Policy | None = None
    token: Token | None = None
    rows: bool = True  # the place has a row under its cursor
    row: Any = None  # that row, and what it is known by
    row_key: Hashable = None
    keys: Mapping[str, str] = {}  # those that somebody has moved, by action id
    marks: frozenset[Hashable] = frozenset()  # what the marked rows are known by


class Action(Struct, frozen=True, kw_only=True):
    """One row: `rank` orders the footer (0: not shown there); `menu` puts it into a mirror's actions menu."""

    id: str
    key: str
    label: str
    help: str
    places: frozenset[Place]
    subject: Subject = Subject.NONE
    role: Role = Role.NONE
    danger: Danger = Danger.NONE
    method: str | None = None
    rank: int = 0
    menu: bool = False
    many: bool = False  # acts on all marked rows when there are some
    changes: bool = True  # of actions that need more than a reader's role: false where they only look
    why: Callable[[Context], str | None] | None = None
    name: Callable[[Context], str] | None = None

    def title(self, context: Context) -> str:
        """Return the label, in the form that fits what it would do now."""
        if self.on_marks(context):
            return f"{self.label} {len(context.marks):,} marked"
        return self.name(context) if self.name else self.label

    def on_marks(self, context: Context) -> bool:
        """Tell whether it would act on the marked rows instead of that under the cursor."""
        return self.many and bool(context.marks)


T = TypeVar("T")


def subject(context: Context, name: str, kind: type[T]) -> T:
    """Return what an action acts on, by the field's name; raise NotFound when there is none."""
    found = getattr(context, name)
    if not isinstance(found, kind):
        raise NotFound(f"there is no {name} under the cursor any more")
    return found


NAMED_KEYS = {
    "slash": "/",
    "question_mark": "?",
    "exclamation_mark": "!",
    "colon": ":",
    "escape": "esc",
    "enter": "enter",
    "space": "space",
}

MOVING_KEYS = (
    ("↑ ↓  j k", "move"),
    ("pgup pgdn", "move by pages"),
    ("g G", "first, last"),
    ("tab", "next pane or field"),
)


def key_name(key: str) -> str:
    """Return a key as it stands on the keyboard; of several the first."""
    first = key.split(",")[0]
    return NAMED_KEYS.get(first, first)


def key_of(action: Action, moved: Mapping[str, str]) -> str:
    """Return an action's keys, as somebody has moved them."""
    return moved.get(action.id, action.key)


def why_not(action: Action, context: Context) -> str | None:
    """Return the reason in one sentence why `action` cannot be done now; None when it can."""
    marked = action.on_marks(context)
    lacking = None if marked else _lacks_subject(action, context)
    if lacking:
        return lacking
    if action.method is not None:
        if not context.connected:
            return "the daemon does not answer; firth keeps trying"
        if context.methods is not None and action.method not in context.methods:
            return f"needs a newer daemon: it has no {action.method}"
        if context.read_only and action.changes and action.role.rank > Role.READER.rank:
            return "firth was started with --read-only"
        if not context.role.covers(action.role):
            return f"needs the role {action.role}; yours is {context.role}"
    # of marked rows each has its own reason: the dialog tells them
    return action.why(context) if action.why and not marked else None


def identity(action: Action, context: Context) -> Hashable:
    """Return which object `action` would act on, so that another one is told from it; None: nothing."""
    match action.subject:
        case Subject.NONE:
            return None
        case Subject.ROW:
            return context.row_key
        case Subject.PACKAGE:
            return (context.package.family, context.package.name) if context.package else None
        case Subject.GENERATION:
            return context.generation.number if context.generation else None
        case _:
            found: Channel | Mirror | Policy | Run | Token | None = getattr(context, action.subject.value)
            return found.id if found else None


def called(action: Action, context: Context) -> str:
    """Return what people call the object that `action` would act on."""
    match action.subject:
        case Subject.CHANNEL if context.channel:
            return context.channel.name
        case Subject.MIRROR if context.mirror:
            return f"{context.mirror.channel}: {context.mirror.name}"
        case Subject.RUN if context.run:
            return f"run {context.run.id}"
        case Subject.PACKAGE if context.package:
            return context.package.name
        case Subject.TOKEN if context.token:
            return f"the token {context.token.name}"
        case Subject.GENERATION if context.generation:
            return f"generation {context.generation.number}"
        case Subject.POLICY if context.policy:
            return f"policy {context.policy.name}"
    return str(getattr(context.row, "name", "") or "the row")


def changed_meanwhile(action: Action, seen: Context, now: Context) -> str | None:
    """Return in one sentence why `action` would not be what was `seen` when it was asked for; None when it is."""
    if action.subject is Subject.NONE:
        return None
    if action.many and seen.marks != now.marks:
        return "other rows are marked now; nothing was done"
    if action.on_marks(seen):
        return None if seen.place is now.place else "another list is in view now; nothing was done"
    what = called(action, seen)
    if seen.place is not now.place or identity(action, seen) != identity(action, now):
        return f"{what} is not under the cursor any more; nothing was done"
    if action.title(seen) != action.title(now):
        return f"{what} has changed meanwhile; nothing was done"
    return None


def _lacks_subject(action: Action, context: Context) -> str | None:
    subject = action.subject
    if subject is Subject.ROW:
        return None if context.rows else "there is nothing here yet"
    if subject is Subject.NONE or getattr(context, subject.value) is not None:
        return None
    return f"there is no {subject} under the cursor"
