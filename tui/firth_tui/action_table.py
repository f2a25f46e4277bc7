"""The action table: the only place that says which actions there are, on which keys, where, and in which role.

Keys, footer, command palette, help and the actions menu are all made from it. Nothing here knows Textual.
"""

from collections.abc import Iterable, Mapping

from firth_protocol.types import Role
from firth_tui import reasons
from firth_tui.action_table_common import CHANNEL_TABS, COMMON, EVERYWHERE, LISTS, MOVES, WITH_MIRROR
from firth_tui.actions import Action, Context, Danger, Place, Subject, key_name, key_of, why_not
from firth_tui.policy_actions import policy_actions


def freeze_name(context: Context) -> str:
    """Return what z does to the channel under the cursor."""
    return "Unfreeze" if context.channel is not None and context.channel.frozen else "Freeze"


ACTIONS: tuple[Action, ...] = (
    # --- moving about
    Action(
        id="open",
        key="enter",
        label="Open",
        help="Open what the cursor is on",
        places=LISTS - {Place.CHANGES, Place.TOKENS, Place.EXCLUDED, Place.EXPLAIN}
        | {Place.MIRROR, Place.HEALTH, Place.ADVISORY},
        subject=Subject.ROW,
        rank=1,
    ),
    Action(
        id="view.channels",
        key="1",
        label="Channels",
        help="Show all channels",
        places=EVERYWHERE,
    ),
    Action(
        id="view.mirrors",
        key="2",
        label="Mirrors",
        help="Show the mirrors of all channels",
        places=EVERYWHERE,
    ),
    Action(
        id="view.runs",
        key="3",
        label="Runs",
        help="Show all runs, newest first",
        places=EVERYWHERE,
    ),
    Action(
        id="view.health",
        key="4",
        label="Health",
        help="Show how the daemon, its store and its mirrors are",
        places=EVERYWHERE,
    ),
    Action(
        id="view.audit",
        key="5",
        label="Audit log",
        help="Show who changed what, newest first",
        places=EVERYWHERE,
        role=Role.ADMIN,
        method="audit.list",
        changes=False,
    ),
    Action(
        id="view.tokens",
        key="6",
        label="Tokens",
        help="Show the tokens that clients may have",
        places=EVERYWHERE,
        role=Role.ADMIN,
        method="token.list",
        changes=False,
    ),
    Action(id="tab.packages", key="P", label="Packages", help="What the channel offers now", places=CHANNEL_TABS),
    Action(id="tab.mirrors", key="M", label="Mirrors", help="What the channel is filled from", places=CHANNEL_TABS),
    Action(id="tab.subchannels", key="B", label="Subchannels", help="Channels below this one", places=CHANNEL_TABS),
    Action(
        id="tab.generations",
        key="V",
        label="Generations",
        help="What was published when; each publication makes one",
        places=CHANNEL_TABS,
    ),
    Action(
        id="tab.changes",
        key="C",
        label="Changes",
        help="What a generation added and removed; of a frozen channel: what waits",
        places=CHANNEL_TABS,
    ),
    Action(id="tab.use", key="U", label="Use it", help="Set-up lines for each client, to copy", places=CHANNEL_TABS),
    # --- channels
    Action(
        id="channel.create",
        key="n",
        label="New channel",
        help="Create a channel; it serves an empty index at once",
        places=frozenset({Place.CHANNELS}),
        role=Role.MANAGER,
        method="channel.create",
        rank=2,
    ),
    Action(
        id="subchannel.create",
        key="n",
        label="New subchannel",
        help="Create a channel below this one; it has its own mirrors and its own freeze",
        places=frozenset({Place.SUBCHANNELS}),
        role=Role.MANAGER,
        method="channel.create",
        why=reasons.not_nested,
        rank=2,
    ),
    Action(
        id="channel.edit",
        key="e",
        label="Edit channel",
        help="Change description, privacy and how long generations are kept",
        places=frozenset({Place.CHANNELS, Place.USE, Place.PACKAGES, Place.GENERATIONS}),
        subject=Subject.CHANNEL,
        role=Role.MANAGER,
        method="channel.update",
    ),
    Action(
        id="channel.freeze",
        key="z",
        label="Freeze / unfreeze",
        help="While frozen, clients keep seeing the same content; mirrors go on in the background",
        places=CHANNEL_TABS | {Place.CHANNELS},
        subject=Subject.CHANNEL,
        role=Role.OPERATOR,
        method="channel.freeze",
        name=freeze_name,
        rank=3,
        many=True,
    ),
    Action(
        id="channel.mirrors",
        key="m",
        label="Mirrors of it",
        help="Show what this channel is filled from",
        places=frozenset({Place.CHANNELS}),
        subject=Subject.CHANNEL,
        rank=4,
    ),
    Action(
        id="channel.delete",
        key="d",
        label="Delete channel",
        help="Delete the channel with its mirrors and generations",
        places=frozenset({Place.CHANNELS, Place.USE}),
        subject=Subject.CHANNEL,
        role=Role.MANAGER,
        danger=Danger.NAME,
        method="channel.delete",
        why=reasons.has_subchannels,
    ),
    Action(
        id="channel.rollback",
        key="b",
        label="Go back to it",
        help="Publish this earlier generation again and freeze the channel; unfreezing returns to the present",
        places=frozenset({Place.GENERATIONS}),
        subject=Subject.GENERATION,
        role=Role.MANAGER,
        danger=Danger.CONFIRM,
        method="channel.rollback",
        why=reasons.not_current,
        rank=2,
    ),
    # --- mirrors
    Action(
        id="mirror.create",
        key="n",
        label="New mirror",
        help="Create a mirror: a standing order to copy a source into a channel",
        places=frozenset({Place.MIRRORS, Place.CHANNEL_MIRRORS, Place.PACKAGES}),
        role=Role.MANAGER,
        method="mirror.create",
        rank=2,
    ),
    Action(
        id="mirror.run",
        key="r",
        label="Run now",
        help="Read the source now and publish what changed",
        places=WITH_MIRROR,
        subject=Subject.MIRROR,
        role=Role.OPERATOR,
        method="mirror.run",
        why=reasons.already_running,
        rank=3,
        menu=True,
        many=True,
    ),
    Action(
        id="mirror.stop",
        key="s",
        label="Stop",
        help="Stop the run within 5 s; what it verified stays stored",
        places=WITH_MIRROR | {Place.RUN},
        subject=Subject.MIRROR,
        role=Role.OPERATOR,
        danger=Danger.CONFIRM,
        method="mirror.stop",
        why=reasons.needs_a_run,
        rank=4,
        menu=True,
        many=True,
    ),
    Action(
        id="mirror.restart",
        key="t",
        label="Restart",
        help="Stop the run if there is one, then begin again at step 1",
        places=WITH_MIRROR | {Place.RUN},
        subject=Subject.MIRROR,
        role=Role.OPERATOR,
        danger=Danger.CONFIRM,
        method="mirror.restart",
        menu=True,
        many=True,
    ),
    Action(
        id="mirror.details",
        key="v",
        label="View details",
        help="Counts, what was dropped and why, what could not be had, earlier runs",
        places=frozenset({Place.MIRRORS, Place.CHANNEL_MIRRORS}),
        subject=Subject.MIRROR,
        menu=True,
    ),
    Action(
        id="mirror.edit",
        key="e",
        label="Edit",
        help="Change name, source, frequency and filters",
        places=WITH_MIRROR,
        subject=Subject.MIRROR,
        role=Role.MANAGER,
        method="mirror.update",
        menu=True,
    ),
    Action(
        id="mirror.plan",
        key="p",
        label="Plan",
        help="Tell what a run would add, remove and download; changes nothing",
        places=WITH_MIRROR,
        subject=Subject.MIRROR,
        role=Role.OPERATOR,
        method="mirror.plan",
        changes=False,
        menu=True,
    ),
    Action(
        id="mirror.fill",
        key="f",
        label="Fill",
        help="Download every file of a passive mirror that is not stored yet",
        places=WITH_MIRROR,
        subject=Subject.MIRROR,
        role=Role.OPERATOR,
        method="mirror.fill",
        why=reasons.needs_passive,
        menu=True,
        many=True,
    ),
    Action(
        id="mirror.delete",
        key="d",
        label="Delete mirror",
        help="Delete the mirror; its packages stay or go, as you choose",
        places=WITH_MIRROR,
        subject=Subject.MIRROR,
        role=Role.MANAGER,
        danger=Danger.NAME,
        method="mirror.delete",
        menu=True,
    ),
    Action(
        id="mirror.menu",
        key="a",
        label="Actions",
        help="List what can be done with this mirror",
        places=WITH_MIRROR,
        subject=Subject.MIRROR,
        rank=5,
    ),
    Action(
        id="mirror.open_run",
        key="l",
        label="Last run",
        help="Show the mirror's newest run with its steps and its log",
        places=WITH_MIRROR,
        subject=Subject.MIRROR,
        why=reasons.never_ran,
        menu=True,
    ),
    *policy_actions(WITH_MIRROR, EVERYWHERE),
    # --- packages
    Action(
        id="package.remove",
        key="d",
        label="Remove package",
        help="Take the package out of the channel; no run brings it back until it is restored",
        places=frozenset({Place.PACKAGES, Place.PACKAGE}),
        subject=Subject.PACKAGE,
        role=Role.MANAGER,
        danger=Danger.CONFIRM,
        method="package.remove",
        why=reasons.frozen_blocks,
    ),
    Action(
        id="package.restore",
        key="b",
        label="Restore package",
        help="Let a removed package come back",
        places=frozenset({Place.PACKAGES, Place.PACKAGE}),
        subject=Subject.CHANNEL,
        role=Role.MANAGER,
        danger=Danger.CONFIRM,
        method="package.restore",
    ),
    # --- tokens
    Action(
        id="token.create",
        key="n",
        label="New token",
        help="Make a token for clients; its secret is shown once, and copied to your terminal's clipboard",
        places=frozenset({Place.TOKENS, Place.USE}),
        role=Role.ADMIN,
        method="token.create",
        rank=2,
    ),
    Action(
        id="token.revoke",
        key="d",
        label="Revoke",
        help="Have the token open nothing any more, from now on",
        places=frozenset({Place.TOKENS}),
        subject=Subject.TOKEN,
        role=Role.ADMIN,
        danger=Danger.CONFIRM,
        method="token.revoke",
        why=reasons.revoked,
        rank=3,
    ),
    # --- the store
    Action(
        id="store.gc",
        key="x",
        label="Free room",
        help="Take away stored files that no index, draft, snapshot or grace period needs",
        places=frozenset({Place.HEALTH}),
        role=Role.ADMIN,
        danger=Danger.CONFIRM,
        method="store.gc",
        rank=2,
    ),
    Action(
        id="store.scrub",
        key="s",
        label="Scrub",
        help="Read every stored file; what is damaged comes again",
        places=frozenset({Place.HEALTH}),
        role=Role.ADMIN,
        danger=Danger.CONFIRM,
        method="store.scrub",
        rank=3,
    ),
    Action(
        id="notify.test",
        key="t",
        label="Try notifying",
        help="Send a notification for a try, as [notify] in firth.toml says",
        places=frozenset({Place.HEALTH}),
        role=Role.ADMIN,
        method="notify.test",
    ),
    # --- the run's log
    Action(
        id="log.follow",
        key="G",
        label="Follow",
        help="Go to the end of the log and follow it",
        places=frozenset({Place.RUN}),
        rank=1,
    ),
    Action(
        id="log.wrap",
        key="w",
        label="Wrap",
        help="Wrap long lines of the log, or cut them",
        places=frozenset({Place.RUN}),
        rank=2,
    ),
    Action(
        id="log.next",
        key="N",
        label="Next match",
        help="Go to the next line that the search finds",
        places=frozenset({Place.RUN}),
    ),
    *COMMON,
)

BY_ID = {action.id: action for action in ACTIONS}


def at(place: Place) -> list[Action]:
    """Return the actions of one place, in the order of the table."""
    return [action for action in ACTIONS if place in action.places]


def footer(place: Place, context: Context, most: int = 6) -> list[tuple[Action, str | None]]:
    """Return at most `most` actions for the footer, each with why it is greyed; help and quit are always among them."""
    ranked = sorted((action for action in at(place) if action.rank), key=lambda action: action.rank)
    last = [action for action in ranked if action.rank >= 90]
    first = [action for action in ranked if action.rank < 90][: most - len(last)]
    return [(action, why_not(action, context)) for action in [*first, *last]]


def menu(context: Context) -> list[tuple[Action, str | None]]:
    """Return a mirror's actions menu, each with why it is greyed."""
    return [(action, why_not(action, context)) for action in ACTIONS if action.menu]


def listed(moved: Mapping[str, str]) -> list[str]:
    """Return a line for each action that has a key, as it stands in keys.toml."""
    lines = []
    for action in ACTIONS:
        if action.key:
            keys = " ".join(key_name(key) for key in key_of(action, moved).split(","))
            moving = f'"{action.id}" = "{keys}"'
            lines.append(f"{moving:<34} # {action.help}")
    return lines


def sections(place: Place) -> list[tuple[str, list[Action]]]:
    """Return the actions of a place for its help, each once: those that move, those of this place, the others."""
    here = at(place)
    moves = [action for action in here if action.id in MOVES or action.id.startswith(("view.", "tab."))]
    rest = [action for action in here if action not in moves]
    return [
        ("Move", moves),
        ("This place", [action for action in rest if action.places != EVERYWHERE]),
        ("Everywhere", [action for action in rest if action.places == EVERYWHERE]),
    ]


def for_keys(places: Iterable[Place]) -> list[Action]:
    """Return every action with a key that one of `places` has, without repeats."""
    wanted = frozenset(places)
    return [action for action in ACTIONS if action.key and action.places & wanted]
