"""The only place that decides which file clients wait for is fetched next: places per host, shared fairly.

A host has its own places, under a high common cap. Of either one client may have half in one channel, and three
quarters in all, as one channel may: a source that crawls keeps only itself busy, and so does a client that asks for two
hundred files at once, or all that come from behind one address. A place that gets free goes to the client that has the
fewest. What nobody waits for any more gives way to what somebody does.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

COMMON = 128
"""Files fetched for clients at once, from all hosts; each takes about four open files."""


class Wanted(Protocol):
    """What is fetched: for which channel, who has joined it, and what keeps it from being asked for."""

    clients: Counter[str]
    waits_for: str | None

    @property
    def channel_id(self) -> int: ...


class _Ticket:
    """One fetch that has a place or waits for one."""

    def __init__(self, live: Wanted, host: str, give_up: Callable[[], None], number: int) -> None:
        self.live = live
        self.host = host
        self.give_up = give_up
        self.number = number
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.client: str | None = None  # on whose account it has its place
        self.given_up = False


class Places:
    """Who fetches, and who waits. `per_host`: files fetched at once from one host."""

    def __init__(self, per_host: int, common: int = COMMON) -> None:
        self._per_host = per_host
        self._common = common
        self._waiting: list[_Ticket] = []
        self._busy: list[_Ticket] = []
        self._arrivals = 0

    @asynccontextmanager
    async def place(self, live: Wanted, host: str, give_up: Callable[[], None]) -> AsyncIterator[None]:
        """Hold a place for one file of a host; `live.waits_for` says why there is none yet.

        `give_up` is called at most once, when nobody has joined the file and somebody else needs its place, or when
        nobody has joined it and it has none yet: it must end the caller's task soon, and not call back.
        """
        self._arrivals += 1
        ticket = _Ticket(live, host, give_up, self._arrivals)
        self._waiting.append(ticket)
        try:
            self.deal()
            await ticket.granted
            yield
        finally:
            live.waits_for = None
            (self._busy if ticket in self._busy else self._waiting).remove(ticket)
            self.deal()

    def deal(self) -> None:
        """Give free places away; to be called too when somebody has left a file."""
        while (chosen := self._next()) is not None:
            ticket, client = chosen
            self._waiting.remove(ticket)
            self._busy.append(ticket)
            ticket.client = client
            ticket.live.waits_for = None
            if not ticket.granted.done():
                ticket.granted.set_result(None)
        for ticket in self._waiting:
            ticket.live.waits_for = self._reason(ticket)
            if not ticket.live.clients:
                self._end(ticket)
        self._make_room()

    def _next(self) -> tuple[_Ticket, str | None] | None:
        """Return the waiting ticket of the client that has the least, the oldest of these, if there is a place."""
        if len(self._busy) >= self._common:
            return None
        hosts = Counter(ticket.host for ticket in self._busy)
        ranked = [
            (rank, ticket, client)
            for ticket in self._waiting
            if hosts[ticket.host] < self._per_host and not ticket.given_up
            for rank, client in self._ranks(ticket)
        ]
        return min(ranked, key=lambda one: one[0])[1:] if ranked else None

    def _ranks(self, ticket: _Ticket) -> list[tuple[tuple[int, int, int], str | None]]:
        """Return on which clients' account a ticket may have a place, and how much each has; nobody's comes last."""
        if not ticket.live.clients:
            return [((self._per_host, self._common, ticket.number), None)]
        ranks: list[tuple[tuple[int, int, int], str | None]] = []
        channel = ticket.live.channel_id
        joined = [busy for busy in self._busy if busy.live.clients]
        neighbours = [busy for busy in joined if busy.live.channel_id == channel]
        for client in ticket.live.clients:
            # Whoever left a file has nothing to answer for; whoever joined it later got it for nothing.
            theirs = [busy for busy in joined if busy.client == client and client in busy.live.clients]
            ours = [busy for busy in theirs if busy.live.channel_id == channel]
            there = sum(busy.host == ticket.host for busy in theirs)
            if (
                self._within(ours, ticket.host, _half)
                and self._within(theirs, ticket.host, _most)
                and self._within(neighbours, ticket.host, _most)
            ):
                ranks.append(((there, len(theirs), ticket.number), client))
        return ranks

    def _within(self, busy: list[_Ticket], host: str, share: Callable[[int], int]) -> bool:
        """Tell whether those who have these places may have one more of this host."""
        there = sum(one.host == host for one in busy)
        return len(busy) < share(self._common) and there < share(self._per_host)

    def _reason(self, ticket: _Ticket) -> str:
        there = sum(busy.host == ticket.host for busy in self._busy)
        if there >= self._per_host:
            return f"{there} other files are being fetched from {ticket.host}"
        if len(self._busy) >= self._common:
            return f"{len(self._busy)} other files are being fetched"
        return f"{there} other files are being fetched from {ticket.host}, for the same client or channel"

    def _make_room(self) -> None:
        """Let fetches that nobody has joined end where somebody waits for their place."""
        full = len(self._busy) >= self._common
        wanted = Counter(ticket.host for ticket in self._waiting if ticket.live.clients and self._ranks(ticket))
        ending = Counter(ticket.host for ticket in self._busy if ticket.given_up)
        hosts = Counter(ticket.host for ticket in self._busy)
        for ticket in list(self._busy):
            if ticket.live.clients or ticket.given_up:
                continue
            here = wanted[ticket.host] > ending[ticket.host] and hosts[ticket.host] >= self._per_host
            if here or (full and wanted.total() > ending.total()):
                ending[ticket.host] += 1
                self._end(ticket)

    def _end(self, ticket: _Ticket) -> None:
        if not ticket.given_up:
            ticket.given_up = True
            ticket.give_up()


def _half(places: int) -> int:
    return max(1, places // 2)


def _most(places: int) -> int:
    return max(1, places * 3 // 4)
