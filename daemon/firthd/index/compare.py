"""The only place that compares what a source lists with a mirror's live rows: added, replaced, gone, held."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import astuple, replace

from firth_protocol.errors import TooLarge, Upstream
from firthd.families.base import (
    Entry,
    Formats,
    InvalidRecordError,
    Listing,
    SourceRecord,
    Spool,
)
from firthd.index.messages import (
    LICENSES_TOLD,
    PACKAGES,
    POLICY,
    InvalidRecord,
    JudgementResult,
    PartResult,
    ReadParams,
)
from firthd.store.columns import goes_along
from firthd.store.run_file import AddRow, CloseRow, OfferRow, RunFile
from firthd.store.worker_reads import LiveRow, WorkerState
from firthd.upstream.masking import printable, starred
from firthd.worker import Report, TaskProgress

if TYPE_CHECKING:
    from array import array

    from firthd.index.early import EarlyRender
    from firthd.index.judge import PolicyPass

INVALID_LISTED = 1000
FILENAME_SHOWN = 255
REPORT_EVERY = 20_000
GONE, REPLACED, FILTERED = "gone", "replaced", "filtered"


class PartReader:
    """Reads one part; the counts of its result grow here."""

    def __init__(
        self,
        formats: Formats,
        params: ReadParams,
        spool: Spool,
        state: WorkerState,
        run_file: RunFile,
        report: Report,
        policy: "PolicyPass | None" = None,
        early: "EarlyRender | None" = None,
    ) -> None:
        self._policy = policy
        self._early = early
        self._formats = formats
        self._params = params
        self._spool = spool
        self._state = state
        self._run_file = run_file
        self._report = report
        self._live: dict[str, dict[str, LiveRow]] = {}
        self._closed: list[CloseRow] = []
        self._to_store: list[tuple[bytes | None, int | None, bool]] = []  # sha256, size, whether it is counted
        self._covers: Set[str] | None = None  # None: the listing is of the whole part
        self._moved = None if spool.moved is None else frozenset(spool.moved)
        self._elsewhere = 0  # rows of packages that are not covered: they stay
        self._names: set[str] = set()  # that the mirror offers in this part
        self._invalid: list[InvalidRecord] = []
        self._invalid_count = 0
        self._replaced = self._unchanged = self._unhashed = self._before = self._filtered = 0
        self._unexpected, self._surprise = 0, ""
        self._left_out = self._judged_away = self._taken = self._along = self._seen = 0

    def read(self) -> PartResult:
        """Read the part and write its differences."""
        try:
            listing = self._formats.read(self._spool, self._params.max_part_bytes)
        except (Upstream, TooLarge) as error:
            if not self._params.singly or self._params.page:
                raise
            return self.unreadable(error.message)
        return self.compare(listing)

    def unreadable(self, reason: str) -> PartResult:
        """Let a part be as it was, because it cannot be read."""
        return self._as_it_was(unreadable=reason)

    def compare(self, listing: Listing) -> PartResult:
        """Write how a part that was read differs."""
        # `Indiscreet`, `Covering`, `Worded`, `Signed`: to ask for a protocol costs more than all else of a small part.
        if hasattr(listing, "holds_users") and listing.holds_users and self._spool.file is not None:
            hide_users(Path(self._spool.file))
        self._covers = listing.covers if hasattr(listing, "covers") else None
        self._load_live()
        refused = listing.refused if hasattr(listing, "refused") else None
        if self._emptied(listing, refused):
            reason = f"{self._spool.part} lists nothing any more, without a word"
            if self._params.page:
                raise Upstream(f"{reason}; what it listed stays", hint="look at the source")
            return self._as_it_was(emptied=True)
        if self._policy is not None:
            self._names |= self._policy.judging.offered[self._spool.part]
        self._add(self._additions(listing))
        gone, held = self._close_rest(keep=self._params.keep and refused is None)
        taken_back = gone if refused is not None else 0
        self._run_file.close_rows(self._closed)
        names, covers = self._names, self._covers
        self._run_file.offers(changed_offers(self._state, self._params, self._formats, self._spool.part, names, covers))
        bytes_to_store, bytes_unknown = self._weigh()
        return PartResult(
            part=self._spool.part,
            records=(len(listing) if self._spool.share is None else self._seen) - self._along + self._elsewhere,
            kept=self._unchanged + self._taken + self._elsewhere,
            before=self._before + self._elsewhere,
            added=self._taken - self._replaced,
            replaced=self._replaced,
            unchanged=self._unchanged + self._elsewhere,
            gone=gone - taken_back,
            held=held,
            left_out=self._left_out,
            judged_away=self._judged_away,
            filtered=self._filtered + taken_back,
            unhashed=self._unhashed,
            bytes_to_store=bytes_to_store,
            bytes_unknown=bytes_unknown,
            base_url=listing.base_url,
            signed=hasattr(listing, "signed") and (listing.signed or self._nothing_taken(listing)),
            refused=refused,
            unexpected=self._unexpected,
            surprise=self._surprise,
            notes=listing.notes,
            invalid=self._invalid,
            invalid_count=self._invalid_count,
        )

    def _emptied(self, listing: Listing, refused: str | None) -> bool:
        """Tell whether a part that is one of many lists nothing where it had something, and the source says not why."""
        there = self._spool.file is not None
        empty = self._params.singly and there and self._before and not len(listing) and refused is None
        return bool(empty) and not self._params.accept_removals

    def _nothing_taken(self, listing: Listing) -> bool:
        """Tell whether the filters leave nothing of what is listed: clients are shown that there is nothing."""
        many = self._params.singly and not self._spool.lists
        return many and len(listing) > 0 and not self._unchanged and not self._taken

    def _as_it_was(self, *, unreadable: str | None = None, emptied: bool = False) -> PartResult:
        if not self._before:
            self._load_live()
        return PartResult(
            part=self._spool.part,
            records=self._before,
            kept=self._before,
            before=self._before,
            added=0,
            replaced=0,
            unchanged=self._before,
            gone=0,
            base_url=self._spool.base_url,
            unreadable=unreadable,
            emptied=emptied,
        )

    def _load_live(self) -> None:
        params, formats = self._params, self._formats
        whose = (params.channel_id, params.mirror_id, formats.family, self._spool.part)
        covers = self._covers
        rows = (
            self._state.live_rows(*whose) if covers is None else self._state.live_rows_of(*whose, names=sorted(covers))
        )
        anew: set[int] | None = set() if params.page else None
        for row in rows:
            if anew is None:
                anew = self._state.of_pages(*whose)
            if anew and row.id in anew:  # a run has never rendered it
                row = row._replace(fingerprint=b"")
            self._before += not goes_along(row.section)
            section = self._live.setdefault(row.section, {})
            if row.filename in section:  # two live rows of one file cannot be meant: the older one goes
                self._close(section[row.filename], REPLACED)
            section[row.filename] = row
        if covers is not None:
            self._elsewhere = max(0, self._state.live_count(*whose) - self._before)

    def _add(self, rows: Iterator[AddRow]) -> None:
        """Write the records; hand them over as they come where somebody takes them early."""
        if self._params.early_rows is None:
            self._run_file.add(rows)
            return
        while (file := self._run_file.apart(islice(rows, self._params.early_rows))) is not None:
            self._report(TaskProgress(0, None, "records", f"{self._spool.part}: rows are ready", file))

    def _additions(self, listing: Listing) -> Iterator[AddRow]:
        """Yield the records that are new or changed, in order; take those that are there off the live ones."""
        part, family, total = self._spool.part, self._formats.family, len(listing)
        fingerprint, decode, policy, early = self._formats.fingerprint, self._formats.record, self._policy, self._early
        plain = self._formats.plain_print if hasattr(self._formats, "plain_print") else None
        usual = self._formats.usual_record if hasattr(self._formats, "usual_record") else None
        keep = policy.keep if policy is not None and policy.solves else None
        proven_above = self._state.proven_above() if self._live else 0
        takes = self._formats.taker(self._params.filters)
        last: tuple[str, str] | None = None
        last_section, counts = "", True
        entries: Iterable[tuple[int, Entry]]
        if policy is not None:  # then a part is never read in shares
            entries = self._not_left_out(listing, policy.judging.codes[part])
        else:
            entries = enumerate(listing if self._spool.share is None else share_of(listing, self._spool.share))
        for number, entry in entries:
            filename, section, raw, _ = entry
            self._seen = number + 1
            if number % REPORT_EVERY == 0:
                self._report(TaskProgress(number, total, "records", f"{part}: {number:,} of {total:,} read"))
            if section != last_section:
                last_section, counts = section, not goes_along(section)
            self._along += not counts
            of_section = self._live.get(section)
            live = of_section.get(filename) if of_section else None
            if takes is not None and not takes(entry):
                if live is not None:
                    del self._live[section][filename]
                    self._filtered += counts
                    self._close(live, FILTERED)
                continue
            try:
                if (filename, section) == last:
                    raise InvalidRecordError("the file name is listed twice")
                record = usual(entry) if live is None and usual is not None else None
                # What is spelled as its fingerprint is taken, and was proven before, need not even be decoded.
                if record is not None:
                    print16 = record.fingerprint
                elif (
                    live is not None and plain is not None and live.id > proven_above and plain(raw) == live.fingerprint
                ):
                    print16 = live.fingerprint
                else:
                    print16 = fingerprint(raw)
                last = (filename, section)
                if keep is not None:
                    keep(part, entry)
                if live is not None and live.fingerprint == print16:
                    # It was found valid when it was added; leaving the checks out saves a third of a read.
                    self._unchanged += counts
                    self._names.add(live.name)
                    self._unhashed += counts and live.declared == 0
                    del self._live[section][filename]
                    continue
                record = record or decode(entry, print16)
                if record.sha256 is None or not record.declared:
                    record = self._known_here(record, live)
            except InvalidRecordError as error:
                self._refuse(filename, str(error))
                continue
            self._unhashed += counts and record.declared == 0
            self._names.add(record.name)
            if self._moved is not None:
                self._expect(record.name, filename)
            if live is not None:
                del self._live[section][filename]
                self._replaced += counts
                self._close(live, REPLACED)
            self._taken += counts
            self._to_store.append((record.sha256, record.size, counts))
            row = (family, part, *astuple(record), live.id if live is not None else None)
            if early is not None:
                early.add(part, row)
            yield row

    def _not_left_out(self, listing: Listing, codes: "array[int]") -> Iterator[tuple[int, Entry]]:
        """Yield what a policy does not leave out, by its verdicts, then close the rows of what it does."""
        for number, entry in enumerate(listing):
            if not codes[number]:  # `evaluate.KEPT`
                yield number, entry
        along = {section for section in {entry.section for entry in listing} if goes_along(section)}
        self._left_out = len(codes) - codes.count(0)
        if not along and not any(self._live.values()):
            return  # as often: most records are left out, and none of them was there
        for number, entry in enumerate(listing):
            if not codes[number]:
                continue
            counts = entry.section not in along
            self._along += not counts
            self._left_out -= not counts
            live = self._live.get(entry.section, {}).pop(entry.filename, None)
            if live is not None:
                self._judged_away += counts
                self._close(live, POLICY)

    def _expect(self, name: str, filename: str) -> None:
        if self._moved is not None and name not in self._moved:
            self._unexpected += 1
            self._surprise = self._surprise or printable(filename)

    def _known_here(self, record: SourceRecord, live: LiveRow | None) -> SourceRecord:
        """Return a record whose source gives no sha256 with that of the same bytes, if this mirror has seen them."""
        if record.sha256 is not None or record.md5 is None or live is None or live.sha256 is None:
            return self._moved_here(record)
        family, part = self._formats.family, self._spool.part
        known = self._state.bytes_known(self._params.mirror_id, family, part, record.filename)
        if known is None or known[2] != record.md5:
            return record
        return replace(record, sha256=known[1], size=record.size or known[0])

    def _moved_here(self, record: SourceRecord) -> SourceRecord:
        """Return a record without digests with those of the same file where it lay before, unless its size differs.

        What the source declares stays what it is: nothing.
        """
        if record.declared:
            return record
        before = self._formats.elsewhere(self._spool.part, record.filename)
        if before is None:
            return record
        known = self._state.bytes_known(self._params.mirror_id, self._formats.family, *before)
        size, sha256, md5 = known or (None, None, None)
        if known is None or (None not in (size, record.size) and size != record.size):
            return record
        return replace(record, sha256=sha256, md5=md5, size=record.size or size)

    def _refuse(self, filename: str, reason: str) -> None:
        self._invalid_count += 1
        if len(self._invalid) < INVALID_LISTED:
            self._invalid.append(InvalidRecord(printable(filename[:FILENAME_SHOWN]), reason))

    def _close(self, row: LiveRow, reason: str) -> None:
        self._closed.append((row.id, self._formats.family, self._spool.part, row.name, reason))

    def _close_rest(self, *, keep: bool) -> tuple[int, int]:
        """Close what the source no longer lists; return how many, and how many stay because they are stored."""
        rest = [row for section in self._live.values() for row in section.values()]
        digests = (row.sha256 for row in rest if row.sha256)
        stored = self._state.stored(self._params.channel_id, digests) if keep else set()
        gone = [row for row in rest if row.sha256 is None or row.sha256 not in stored]
        held = [row for row in rest if row.sha256 in stored]
        against = {} if self._policy is None else self._policy.rules_against(self._spool.part, held)
        self._names.update(row.name for row in held if against.get(row.id) != PACKAGES)
        for row in gone:
            self._expect(row.name, row.filename)
            self._close(row, GONE)
        for row in held:
            if row.id in against:
                self._close(row, POLICY)
        leaving = counted(row for row in held if row.id in against)
        self._judged_away += leaving
        return counted(gone), counted(held) - leaving

    def _weigh(self) -> tuple[int, int]:
        """Return the bytes to store for what is added and not stored yet, and how many of those have no size."""
        digests = (sha256 for sha256, _, _ in self._to_store if sha256)
        stored = self._state.stored(self._params.channel_id, digests)
        wanted = [(size, counts) for sha256, size, counts in self._to_store if sha256 is None or sha256 not in stored]
        return sum(size or 0 for size, _ in wanted), sum(counts and size is None for size, counts in wanted)


def hide_users(file: Path) -> None:
    """Put stars for the users and passwords that a copy holds in addresses; nothing else of it changes."""
    with file.open("r+b") as copy:
        hidden = starred(copy.read())
        copy.seek(0)
        copy.write(hidden)


def share_of(listing: Listing, share: tuple[float, float]) -> Iterator[Entry]:
    """Yield the entries of a share of a listing; those of one file name belong to the share of the first of them."""
    first, stop = (int(len(listing) * fraction) for fraction in share)
    begins, filename = 0, None
    for number, entry in enumerate(listing):
        if entry.filename != filename:
            begins, filename = number, entry.filename
            if begins >= stop:
                return
        if begins >= first:
            yield entry


def joined(one: PartResult, other: PartResult) -> PartResult:
    """Return what two shares of a part that is read for the first time held together."""
    sums = ("records", "kept", "added", "unhashed", "bytes_to_store", "bytes_unknown", "invalid_count")
    return replace(
        one,
        **{field: getattr(one, field) + getattr(other, field) for field in sums},
        invalid=[*one.invalid, *other.invalid][:INVALID_LISTED],
    )


def judged_together(results: Sequence[JudgementResult]) -> JudgementResult:
    """Return what several workers have judged, each some parts, without a look at dependencies."""
    if len(results) == 1:  # which may have looked at them
        return results[0]
    counts: Counter[str] = Counter()
    for one in results:
        counts.update(one.counts)
    return JudgementResult(
        records=sum(one.records for one in results),
        kept=sum(one.kept for one in results),
        bytes=sum(one.bytes for one in results),
        closes=False,
        counts=dict(counts),
        unmapped=list(dict.fromkeys(text for one in results for text in one.unmapped))[:LICENSES_TOLD],
        wanted=[release for one in results for release in one.wanted],
        notes=list(dict.fromkeys(note for one in results for note in one.notes)),
    )


def counted(rows: Iterable[LiveRow]) -> int:
    """Return how many of these rows are files that people count."""
    return sum(not goes_along(row.section) for row in rows)


def changed_offers(
    state: WorkerState, params: ReadParams, formats: Formats, part: str, names: set[str], of: Set[str] | None = None
) -> Iterator[OfferRow]:
    """Yield what begins and what ends when a mirror offers these names in a part from now on.

    `of`: the only names that are looked at; None: all of them.
    """
    before = state.offered(params.channel_id, params.mirror_id, formats.family, part)
    before = before if of is None else before & of
    yield from ((formats.family, part, name, True) for name in sorted(names - before))
    yield from ((formats.family, part, name, False) for name in sorted(before - names))
