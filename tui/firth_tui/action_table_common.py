"""The rows of the action table that lists and all places share: filters, order, marks, copying, the application."""

from firth_tui.actions import Action, Place, Subject

EVERYWHERE = frozenset(Place)
CHANNEL_TABS = frozenset(
    {Place.PACKAGES, Place.CHANNEL_MIRRORS, Place.SUBCHANNELS, Place.GENERATIONS, Place.CHANGES, Place.USE}
)
WITH_MIRROR = frozenset({Place.MIRRORS, Place.CHANNEL_MIRRORS, Place.MIRROR})
LISTS = frozenset(
    {
        Place.CHANNELS,
        Place.PACKAGES,
        Place.CHANNEL_MIRRORS,
        Place.SUBCHANNELS,
        Place.GENERATIONS,
        Place.CHANGES,
        Place.MIRRORS,
        Place.RUNS,
        Place.AUDIT,
        Place.TOKENS,
        Place.POLICIES,
        Place.EXCLUDED,
        Place.EXPLAIN,
        Place.ADVISORIES,
    }
)
NO_ADDRESS = frozenset({Place.POLICIES, Place.POLICY, Place.EXCLUDED, Place.EXPLAIN, Place.ADVISORIES, Place.ADVISORY})
SORTED = frozenset({Place.CHANNELS, Place.PACKAGES, Place.CHANNEL_MIRRORS, Place.MIRRORS, Place.RUNS})
MOVES = frozenset(
    {"open", "app.back", "channel.mirrors", "mirror.open_run", "mirror.details", "log.follow", "log.next"}
)
MARKED = frozenset({Place.CHANNELS, Place.CHANNEL_MIRRORS, Place.MIRRORS})


COMMON: tuple[Action, ...] = (
    # --- lists
    Action(
        id="list.filter",
        name=lambda context: "Search" if context.place is Place.RUN else "Filter",
        key="slash",
        label="Filter",
        help="Show only rows with this text; in a log: search. Esc clears it",
        places=LISTS | {Place.RUN},
        rank=6,
    ),
    Action(
        id="list.mark",
        key="space",
        label="Mark",
        help="Mark the row, or unmark it; what runs, stops and freezes then acts on all marked rows. Esc unmarks all",
        places=MARKED,
        subject=Subject.ROW,
    ),
    Action(id="list.sort", key="o", label="Sort", help="Sort by the next column", places=SORTED),
    Action(id="list.reverse", key="O", label="Reverse", help="Sort the other way round", places=SORTED),
    Action(
        id="list.faults",
        key="exclamation_mark",
        label="Faults only",
        help="Show only what failed or is incomplete; of mirrors then what runs, what is well; again: show all",
        places=frozenset({Place.CHANNELS, Place.MIRRORS, Place.CHANNEL_MIRRORS, Place.RUNS}),
    ),
    Action(id="list.refresh", key="ctrl+r", label="Refresh", help="Ask the daemon again now", places=EVERYWHERE),
    Action(
        id="copy.name",
        key="y",
        label="Copy name",
        help="Copy the name under the cursor to your terminal's clipboard",
        places=EVERYWHERE - {Place.HEALTH, Place.AUDIT},
        subject=Subject.ROW,
    ),
    Action(
        id="copy.file",
        key="enter",
        label="Copy address",
        help="Copy the address of the file under the cursor to your terminal's clipboard",
        places=frozenset({Place.PACKAGE}),
        subject=Subject.ROW,
        rank=1,
    ),
    Action(
        id="copy.url",
        key="u",
        label="Copy address",
        help="Copy the address under the cursor to your terminal's clipboard",
        places=EVERYWHERE
        - {Place.HEALTH, Place.AUDIT, Place.RUNS, Place.RUN, Place.CHANGES, Place.TOKENS}
        - NO_ADDRESS,
        subject=Subject.ROW,
    ),
    # --- the application
    Action(
        id="app.theme",
        key="",
        label="Light or dark",
        help="Switch between the light and the dark colours",
        places=EVERYWHERE,
    ),
    Action(
        id="app.mouse",
        key="",
        label="Mouse on or off",
        help="Off: the terminal selects text with the mouse itself",
        places=EVERYWHERE,
    ),
    Action(
        id="app.palette", key="colon,ctrl+p", label="All actions", help="Find any action by its name", places=EVERYWHERE
    ),
    Action(
        id="app.back", key="escape", label="Back", help="Go back one level; clears a filter first", places=EVERYWHERE
    ),
    Action(
        id="app.help", key="question_mark", label="Help", help="List the keys of this place", places=EVERYWHERE, rank=98
    ),
    Action(
        id="app.quit",
        key="q,ctrl+c",
        label="Quit",
        help="Leave; the daemon and its runs go on",
        places=EVERYWHERE,
        rank=99,
    ),
)
