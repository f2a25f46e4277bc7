"""The only place that holds what is published: the views that the web serves from, switched at publication."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from firth_protocol.errors import Forbidden, NotFound
from firth_protocol.types import Notice, Privacy
from firthd.channels import retention
from firthd.clock import Clock, day_end_ms, rfc3339
from firthd.store import artifacts, catalog, generations, objects, pages
from firthd.store.artifacts import FileRow
from firthd.store.catalog import ChannelRow
from firthd.store.database import Database, Reader
from firthd.store.generations import GenerationRow
from firthd.store.objects import ObjectRow

_FILES_REMEMBERED = 20_000
_OBJECTS_REMEMBERED = 20_000
_ABSENCES_REMEMBERED = 1_000
"""Paths that show nothing: clients ask for few of them over and over, and names that are made up push out no other."""


Refuse = Callable[[str, FileRow], Coroutine[Any, Any, None]]
"""Raises Forbidden for a file of a channel (its name) that nobody may have."""


RefuseAbsent = Callable[[int, str, str, str, str], Awaitable[None]]
"""Raises Forbidden for a file (channel's id and name, family, part, file name) that a policy has never let in."""


async def _nobody(channel: str, file: FileRow) -> None:
    pass


async def _nothing(channel_id: int, channel: str, family: str, part: str, filename: str) -> None:
    pass


class View(Struct, frozen=True, kw_only=True):
    """One generation of one channel, as it is served. What its paths show is looked up when it is asked for."""

    channel_id: int
    channel: str
    privacy: Privacy
    generation: int
    shows: int
    published_at_ms: int
    as_of_ms: int | None = None  # the moment whose pages of lazy parts it shows; None: now


class Published:
    """Every channel's published generation in memory, older ones on request."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        grace_ms: int,
        refuse: Refuse = _nobody,
        refuse_absent: RefuseAbsent = _nothing,
    ) -> None:
        self._db = db
        self._refuse = refuse
        self._refuse_absent = refuse_absent
        self._clock = clock
        self._grace_ms = grace_ms
        self._views: dict[str, View] = {}
        self._files: OrderedDict[tuple[int, int, int | None, str, str, str], FileRow] = OrderedDict()
        self._objects: OrderedDict[tuple[int, int, str, str], ObjectRow] = OrderedDict()
        self._absent: OrderedDict[tuple[int, int, str, str], None] = OrderedDict()
        self._moved = 0  # times that objects were moved to other places
        self._forgotten = 0  # times that files were forgotten

    async def load(self) -> None:
        """Read every channel's published generation."""

        async def body(r: Reader) -> dict[str, View]:
            views = {}
            for channel in await catalog.all_channels(r):
                row = await generations.generation(r, channel.id, channel.generation)
                if row is not None:
                    views[channel.name] = await view_as_it_was(r, channel, row)
            return views

        self._views = await self._db.read(body)

    def switch(self, view: View) -> None:
        """Serve this view from now on; called when its publication is committed."""
        self._views[view.channel] = view

    def set_privacy(self, channel: str, privacy: Privacy) -> None:
        if channel in self._views:
            self._views[channel] = replace(self._views[channel], privacy=privacy)

    def set_frozen(self, channel: str, frozen_at_ms: int | None) -> None:
        """Let a channel show the pages of a moment, or of now; one that was rolled back keeps its own moment."""
        view = self._views.get(channel)
        if view is not None and view.shows == view.generation:
            self._views[channel] = replace(view, as_of_ms=frozen_at_ms)

    def drop(self, channel: str) -> None:
        self._views.pop(channel, None)

    def forget_files(self) -> None:
        """Forget which files were found where (a digest was recorded at first sight, a mirror was changed)."""
        self._forgotten += 1
        self._files.clear()

    def current(self, channel: str) -> View | None:
        """Return what a channel serves now."""
        return self._views.get(channel)

    def names(self) -> list[View]:
        """Return every channel's current view, by name."""
        return [self._views[name] for name in sorted(self._views)]

    async def at(self, channel: str, when: str, now_ms: int) -> View:
        """Return a kept generation by number, or the last one of a UTC day (YYYY-MM-DD) or before it.

        Raises NotFound, whose message names the nearest kept ones.
        """
        current = self.current(channel)
        if current is None:
            raise NotFound(f"there is no channel {channel}")

        async def body(r: Reader) -> View:
            row_of_channel = await catalog.channel_by_id(r, current.channel_id)
            if row_of_channel is None:
                raise NotFound(f"there is no channel {channel}")
            row = await retention.resolve(r, row_of_channel, when, now_ms)
            return await view_as_it_was(r, row_of_channel, row, when, now_ms)

        return await self._db.read(body)

    def forget_objects(self) -> None:
        """Forget where objects lie: some were moved or taken away."""
        self._moved += 1
        self._objects.clear()
        self._absent.clear()

    async def object(self, view: View, family: str, path: str) -> ObjectRow | None:
        """Return what a path shows in a view, None when it shows nothing."""
        key = (view.channel_id, view.generation, family, path)
        if key in self._objects:
            self._objects.move_to_end(key)
            return self._objects[key]
        if key in self._absent:
            self._absent.move_to_end(key)
            return None
        moved = self._moved
        row = await self._db.read(lambda r: objects.find(r, view.channel_id, view.generation, family, path))
        if moved == self._moved:  # else what was read may lie elsewhere by now
            if row is None:
                self._absent[key] = None
            else:
                self._objects[key] = row
            if len(self._objects) > _OBJECTS_REMEMBERED:
                self._objects.popitem(last=False)
            if len(self._absent) > _ABSENCES_REMEMBERED:
                self._absent.popitem(last=False)
        return row

    async def notices(self, view: View) -> list[Notice]:
        """Return what a channel tells its users at the moment."""
        row = await self._db.read(lambda r: catalog.channel_by_id(r, view.channel_id))
        now = rfc3339(self._clock.now_ms())
        return [one for one in row.notices if one.expires_at is None or one.expires_at > now] if row else []

    def free(self, channel: str, file: FileRow) -> bool:
        """Tell whether a file is known to be refused to nobody: what keeps it back may be asked for without waiting."""
        asking = self._refuse(channel, file)
        try:
            asking.send(None)
        except StopIteration:
            return True
        except Forbidden:
            return False
        finally:
            asking.close()
        return False

    async def file(self, view: View, family: str, part: str, filename: str) -> FileRow | None:
        """Return the artifact that a file name stands for in a view, or one inside its grace period.

        Raises Forbidden for one that is refused by what is in force now, whatever the view.
        """
        key = (view.channel_id, view.shows, view.as_of_ms, family, part, filename)
        row = self._files.get(key)
        if row is None:
            now = self._clock.now_ms()
            rolled_back = (view.generation, view.published_at_ms) if view.generation > view.shows else None

            async def body(r: Reader) -> FileRow | None:
                found = await artifacts.find_file(
                    r, view.channel_id, view.shows, family, part, filename, now, self._grace_ms, rolled_back
                )
                if found is not None and view.as_of_ms is None:
                    return found
                listed = await pages.find_file(
                    r, view.channel_id, view.shows, family, part, filename, view.as_of_ms, now, self._grace_ms
                )
                return found if listed is None else listed.file

            forgotten = self._forgotten
            row = await self._db.read(body)
            if row is not None and not row.retired and row.delivered and forgotten == self._forgotten:
                self._files[key] = row
                if len(self._files) > _FILES_REMEMBERED:
                    self._files.popitem(last=False)
        if row is not None:
            await self._refuse(view.channel, row)
        else:
            await self._refuse_absent(view.channel_id, view.channel, family, part, filename)
        return row


async def view_as_it_was(
    r: Reader, channel: ChannelRow, row: GenerationRow, when: str | None = None, now_ms: int = 0
) -> View:
    """Build the view of a generation; `when` is the number or the UTC day by which it was asked for.

    Its pages are those of the moment when what it shows was superseded; the newest one's are those of now, or of the
    freeze; a day's are those of its end.
    """
    moment = await superseded(r, channel.id, row.shows)
    if row.shows == row.number:
        if row.number == channel.generation:
            moment = channel.frozen_at
        if when is not None and not when.isdecimal() and (end := day_end_ms(when)) <= now_ms:
            moment = end if moment is None or row.number != channel.generation else min(end, moment)
    return view_of(channel, row, moment)


async def superseded(r: Reader, channel_id: int, number: int) -> int | None:
    """Return when a generation was followed by another one; None while it is the newest."""
    following = await generations.generation(r, channel_id, number + 1)
    return following.time if following else None


def view_of(channel: ChannelRow, row: GenerationRow, as_of_ms: int | None = None) -> View:
    """Build the view of a generation from its rows."""
    return View(
        channel_id=channel.id,
        channel=channel.name,
        privacy=channel.privacy,
        generation=row.number,
        shows=row.shows,
        published_at_ms=row.time,
        as_of_ms=as_of_ms,
    )
