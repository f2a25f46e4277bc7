"""The only place that knows how much room downloads may take, and what runs in progress have reserved of it."""

from firth_protocol.errors import NoSpace
from firthd.clock import Clock
from firthd.mirrors import plan
from firthd.store.blobs import BlobStore

LOOK_S = 0.5
"""How long a look at the free space holds, as long as what was handed out since is taken off."""


class SpaceGuard:
    """Free space less the floor less reservations, for runs and for files fetched on request."""

    def __init__(self, blobs: BlobStore, floor_percent: float, clock: Clock) -> None:
        self._blobs = blobs
        self._clock = clock
        self._looked: tuple[float, int] | None = None  # when, and how many bytes may be handed out until the next look
        self._percent = floor_percent
        self._reserved: dict[int, int] = {}

    async def now(self, *, besides: int | None = None) -> plan.Space:
        """Return the space as it is, with the reservations of all runs but `besides`."""
        floor = plan.floor_bytes(await self._blobs.total_bytes(), self._percent)
        reserved = sum(size for run, size in self._reserved.items() if run != besides)
        return plan.Space(free=await self._blobs.free_bytes(), floor=floor, reserved=reserved)

    async def reserve(self, run: int, needed: int) -> plan.Space:
        """Reserve bytes for a run; raise NoSpace with the exact figures when they do not fit."""
        space = await self.now(besides=run)
        reason = plan.space_reason(needed, space)
        if reason is not None:
            raise NoSpace(reason, hint="free space, or narrow the mirror's filters", needed=needed, usable=space.usable)
        self._reserved[run] = needed
        return space

    def spent(self, run: int, size: int) -> None:
        """Take what has arrived off a run's reservation."""
        if run in self._reserved:
            self._reserved[run] = max(0, self._reserved[run] - size)

    def release(self, run: int) -> None:
        self._reserved.pop(run, None)

    async def enough(self, size: int | None) -> None:
        """Raise NoSpace when a file of `size` bytes (None: unknown) would go below the floor."""
        now = self._clock.monotonic()
        if self._looked is not None and size is not None and now - self._looked[0] < LOOK_S:
            left = self._looked[1] - size
            if left > 0:  # far from the floor: a look at the disk for each small file would cost more than the file
                self._looked = (self._looked[0], left)
                return
        space = await self.now()
        self._looked = (now, max(0, space.free - space.floor - (size or 0)))
        if space.free - (size or 0) < space.floor:
            raise NoSpace(
                f"{space.free:,} bytes are free, {space.floor:,} stay free: no file is fetched until there is room",
                hint="free space on the store's file system",
            )
