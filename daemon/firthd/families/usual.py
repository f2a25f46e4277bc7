"""The only place that says what few families have beside the interface: short ways, and listings with secrets."""

from typing import Protocol, runtime_checkable

from msgspec import Raw

from firthd.families.base import Entry, SourceRecord


@runtime_checkable
class Plain(Protocol):
    """Formats whose records mostly come in the spelling that their fingerprints are taken over."""

    def plain_print(self, raw: Raw | bytes, /) -> bytes:
        """Return the fingerprint of a record that is spelled so, and is proven to be writable; of others nonsense.

        It is compared with a fingerprint that was found: equal ones mean that a record is the one that it was.
        """


@runtime_checkable
class Usual(Protocol):
    """Formats that can take what most records are in one look."""

    def usual_record(self, entry: Entry, /) -> SourceRecord | None:
        """Return what `fingerprint` and `record` make of an entry; None: those must look at it, and may refuse it."""


@runtime_checkable
class Indiscreet(Protocol):
    """A listing whose source may have written users and passwords into addresses; its records have none of them."""

    @property
    def holds_users(self) -> bool:
        """Whether there are any in what was fetched."""
