"""What the handlers and the servers are given to work with: the daemon's rooms, built once by the composition root."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from firth_protocol.types import Addresses, DaemonStatus, Family, Page, ScheduleNext
from firthd.access import Caller
from firthd.channels.manage import Channels
from firthd.channels.needs import Needs
from firthd.channels.tokens import Tokens
from firthd.channels.usage import Usage
from firthd.clock import Clock
from firthd.families.base import FamilyRules
from firthd.mirrors.caretakers import Caretakers
from firthd.mirrors.governance import Governance
from firthd.mirrors.installation import Installations
from firthd.mirrors.manage import Mirrors
from firthd.mirrors.report import Reports
from firthd.notify.notifications import Notifications
from firthd.runs.queue import RunQueue
from firthd.store.database import Database, Reader
from firthd.store.journal import Journal
from firthd.store.paging import Cut

T = TypeVar("T")


class Engine(Struct, frozen=True, kw_only=True):
    """The rooms that a method may need."""

    db: Database
    journal: Journal
    clock: Clock
    queue: RunQueue
    channels: Channels
    mirrors: Mirrors
    reports: Reports
    keepers: Caretakers
    governance: Governance
    installations: Installations
    tokens: Tokens
    usage: Usage
    needs: Needs
    notifications: Notifications
    families: Mapping[Family, FamilyRules]
    base_url: Callable[[], str]
    status: Callable[[Caller], Awaitable[DaemonStatus]]
    coming: Callable[[str, int, int], ScheduleNext]
    check: Callable[[], Awaitable[list[tuple[str, bool, str]]]]

    async def page(self, read: Callable[[Reader], Awaitable[Cut[T]]]) -> Page[T]:
        """Return a page of a list as clients get it, with the moment at which it was read."""

        async def body(r: Reader) -> Page[T]:
            found = await read(r)
            as_of = await self.journal.as_of(r)
            return Page(items=found.items, next_cursor=found.following, total=found.total, as_of=as_of)

        return await self.db.read(body)

    def addresses(self, channel: str, families: set[Family]) -> Addresses:
        """Return where clients reach a channel, with the lines that set them up."""
        root = f"{self.base_url()}/repo/{channel}"
        return Addresses(
            conda=root,
            python=f"{root}/simple/" if Family.PYTHON in families else None,
            r=f"{root}/cran" if Family.R in families else None,
            snapshot=f"{self.base_url()}/snapshot/{{number or YYYY-MM-DD}}/{channel}",
            setup={
                one.client: one.lines
                for family, rules in self.families.items()
                if family is Family.CONDA or family in families
                for one in rules.set_up(root)
            },
        )
