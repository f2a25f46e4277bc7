"""The only place that turns an action on the daemon into calls: freeing room, reading the store, trying the hook."""

from collections.abc import Awaitable, Callable, Mapping

from firth_protocol.methods import RunReply, StoreGcReply
from firth_protocol.types import NotifyTest
from firth_tui.actions import Context
from firth_tui.dialogue import confirmed, tell_run
from firth_tui.format import counted, size
from firth_tui.screens.place import PlaceScreen
from firth_tui.widgets.dialogs import Question


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
        reply = await place.firth.link.ask(StoreGcReply, "store.gc")
        tell_run(place, reply.run, f"Takes away {counted(found.blobs, 'file')}.")


async def _scrub(place: PlaceScreen, context: Context) -> None:
    question = Question(
        title="Read every stored file?",
        lines=["What is damaged is fetched or rendered again.", "It reads 64 MB a second, beside all other work."],
        verb="Read",
    )
    if await confirmed(place, question):
        reply = await place.firth.link.ask(RunReply, "store.scrub")
        tell_run(place, reply.run, "Reads every stored file.")


async def _notify(place: PlaceScreen, context: Context) -> None:
    tried = await place.firth.link.ask(NotifyTest, "notify.test")
    place.firth.tell(tried.text[:1].upper() + tried.text[1:] + ".", warning=not tried.ok)


STORE_COMMANDS: Mapping[str, Callable[[PlaceScreen, Context], Awaitable[None]]] = {
    "store.gc": _gc,
    "store.scrub": _scrub,
    "notify.test": _notify,
}
