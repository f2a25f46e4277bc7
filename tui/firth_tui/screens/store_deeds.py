"""The only place that does what concerns the store: freeing room, and reading what it holds."""

from collections.abc import Awaitable, Callable, Mapping

from firth_protocol.methods import RunReply, StoreGcReply
from firth_tui.actions import Context
from firth_tui.format import counted, size
from firth_tui.screens.asking import confirmed
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Question

Deed = Callable[[PlaceScreen, Context], Awaitable[None]]


async def _gc(place: PlaceScreen, context: Context) -> None:
    found = await place.firth.link.ask(StoreGcReply, "store.gc", dry_run=True)
    if not found.blobs:
        place.firth.tell("Everything in the store is needed: nothing can go.")
        return
    held = found.use.held
    question = Question(
        title=f"Take away {counted(found.blobs, 'file')}, {size(found.bytes)}?",
        lines=[
            "No index, draft, snapshot or grace period needs them.",
            f"Stays: {size(held.index)} in indexes, {size(held.snapshots)} in snapshots,",
            f"{size(held.grace)} in the grace period, {size(held.drafts)} in drafts.",
        ],
        verb="Take away",
    )
    if await confirmed(place, question):
        await place.firth.link.ask(StoreGcReply, "store.gc")
        place.firth.tell(f"Takes away {counted(found.blobs, 'file')}. See the runs.")


async def _scrub(place: PlaceScreen, context: Context) -> None:
    question = Question(
        title="Read every stored file?",
        lines=["What is damaged is fetched or rendered again.", "It reads 64 MB a second, beside all other work."],
        verb="Read",
    )
    if await confirmed(place, question):
        await place.firth.link.ask(RunReply, "store.scrub")
        place.firth.tell("Reads every stored file. See the runs.")


STORE_DEEDS: Mapping[str, Deed] = {"store.gc": _gc, "store.scrub": _scrub}
