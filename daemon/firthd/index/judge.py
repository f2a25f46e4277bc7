"""The only place that judges what a source lists by a policy; it runs in a worker process, before rows are compared."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType

from firth_protocol.errors import Invalid, TooLarge, Upstream
from firthd.families import load_formats, load_policing
from firthd.families.base import COLUMNS, Entry, Facts, Formats, InvalidRecordError, Listing, Spool
from firthd.families.policing import Brief, NamesFirst, PartEach, Policing, SignsFiles
from firthd.index.messages import (
    LICENSES_TOLD,
    PACKAGES,
    POLICY,
    JudgedBy,
    JudgementResult,
    MissingOne,
    PartResult,
    PreviewResult,
    ReadParams,
    ReadResult,
)
from firthd.index.solve import Solver
from firthd.index.told import Releases
from firthd.policies.advisories import Advisory, Flaws, decode_advisory
from firthd.policies.evaluate import KEPT, NOT_THERE, Judging
from firthd.policies.judge import Judge, Verdict
from firthd.policies.shelf import Candidate
from firthd.store.columns import ALONG, goes_along
from firthd.store.judge_reads import JudgeState
from firthd.store.judgement_file import About, JudgementFile
from firthd.store.packed import ChosenRow
from firthd.store.run_file import RunFile, SightRow
from firthd.store.worker_reads import LiveRow
from firthd.worker import Report, TaskProgress

REPORT_EVERY = 20_000
TOGETHER = 1000
MISSING_TOLD = 1000
NOT_TAKEN = f"{NOT_THERE}, or the mirror's filters leave it out"
NOT_BROUGHT = "it was not read yet"
NOT_NAMED = "the mirror's filters do not name it"
Unreadable = Upstream | TooLarge
"""Why a part could not be read."""


class Sights:
    """When records without a server's own time were seen first, by part."""

    def __init__(self, state: JudgeState, mirror_id: int, family: str, now_ms: int) -> None:
        self._state = state
        self._mirror_id = mirror_id
        self._family = family
        self._now_ms = now_ms
        self._part = ""
        self._known: Mapping[str, tuple[str, int]] = {}
        self._last: tuple[Facts, int] | None = None
        self.new: list[SightRow] = []

    def first_seen(self, facts: Facts) -> int:
        """Return when a record counts as come: what the first look at a part finds, when it was built."""
        if self._last is None or self._last[0] is not facts:
            self._last = facts, self._looked_up(facts)
        return self._last[1]

    def _looked_up(self, facts: Facts) -> int:
        if facts.part != self._part:
            self._part = facts.part
            self._known = self._state.sights(self._mirror_id, facts.part)
        digest = facts.sha256 or facts.md5 or str(facts.size)
        known = self._known.get(facts.filename)
        if known is not None and known[0] == digest:
            return known[1]
        seen = self._now_ms
        if not self._known and facts.timestamp is not None:
            seen = min(seen, facts.timestamp)
        self.new.append((facts.part, facts.filename, digest, seen))
        return seen


class PolicyPass:
    """Judges all parts of a mirror that are read; `of` tells what became of each record of one of them."""

    def __init__(self, params: ReadParams, by: JudgedBy, formats: Formats, state: JudgeState, report: Report) -> None:
        self._by = by
        self._state = state
        self._filters = params.filters
        self._formats = formats
        self._max_bytes = params.max_part_bytes
        self._singly = params.singly and not params.page
        self._report = report
        self.policing: Policing = load_policing(by.policing)
        flaws = Flaws(self.policing, by.rules.cve, read_advisories(state, formats.family)) if by.rules.cve else None
        self.judge = Judge(by.rules, self.policing, now_ms=by.now_ms, flaw=flaws.worst if flaws else None)
        self.sights = Sights(state, params.mirror_id, formats.family, by.now_ms)
        self._only = None if params.only is None else frozenset(params.only)
        self._takes_all = formats.taker(params.filters) is None
        self._grows = params.grows
        self._parts = frozenset(spool.part for spool in params.spools)
        self.judging = Judging(
            self.judge,
            self.sights.first_seen,
            self._drop,
            self._recall,
            self._forgo,
            self._needs,
            self._whole,
            self._not_there,
        )
        self._unneeded = self.judge.unless_needed
        self._names: NamesFirst | None = None
        if self._unneeded is not None and isinstance(self.policing, NamesFirst):
            self._names = self.policing
        self.releases = Releases(state, params.channel_id, self.policing, self.judge)
        self._entries: dict[str, list[Entry]] = {}  # of the parts whose records may be deferred
        self._signs: dict[str, Callable[[str], bool] | None] = {}
        self._file = JudgementFile(by.file, by.share) if by.file is not None else None
        solves = by.solve and self.judge.closes
        self._solver = Solver(None if by.file is None else Path(by.file).parent) if solves else None

    def __enter__(self) -> "PolicyPass":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._solver is not None:
            self._solver.close()
        if self._file is not None:
            self._file.__exit__(kind, error, trace)

    def judge_all(self, spools: Sequence[Spool]) -> Iterator[tuple[Spool, Listing | Unreadable]]:
        """Judge parts; yield each with its listing once it is sure what becomes of its records.

        One of many parts that cannot be read is yielded with the reason; of few, it is raised.
        """
        if not self.judge.waits:
            for spool in spools:
                listing = self._read(spool)
                self._judge_part(spool, listing)
                yield spool, listing
            self.judging.end()
            return
        listings: list[Listing | Unreadable] = []
        for spool in spools:
            listing = self._read(spool)
            self._judge_part(spool, listing)
            if self._names is not None:
                listings.append(listing)
        self._report(TaskProgress(0, None, "records", "resolves dependencies"))
        self.judging.end()
        self._entries.clear()
        for spool in spools:
            yield spool, listings.pop(0) if listings else self._read(spool)

    def _read(self, spool: Spool) -> Listing | Unreadable:
        try:
            return self._formats.read(spool, self._max_bytes)
        except (Upstream, TooLarge) as error:
            if not self._singly:
                raise
            return error

    def _judge_part(self, spool: Spool, listing: Listing | Unreadable) -> None:
        if isinstance(listing, Unreadable):
            return
        judging, facts_of, part, total = self.judging, self.policing.facts, spool.part, len(listing)
        signs = listing.signs if self._by.rules.signed_only and isinstance(listing, SignsFiles) else None
        cut, takes, names = self.judge.cut, self._formats.taker(self._filters), self._names
        judging.begin(part, total, names.platform_of(part) if names is not None else None)
        if names is not None:
            self._entries[part], self._signs[part] = list(listing), signs
        self.releases.begin(part, listing)
        unneeded, key_of, defer = self._unneeded, self.policing.name_key, judging.defer
        entries: Iterable[tuple[int, Entry]] = enumerate(listing)
        if takes is not None:  # what the mirror's filters leave is all that a policy sees
            entries = ((number, entry) for number, entry in entries if takes(entry))
        if cut is not None:
            entries = self._cut(part, total, entries, cut)
        for number, entry in entries:
            if number % REPORT_EVERY == 0:
                self._judged(part, number, total)
            try:
                if names is not None and unneeded is not None and not goes_along(entry.section):
                    key = key_of(names.named(entry))
                    if unneeded(key):
                        defer(number, key)
                        continue
                facts = facts_of(part, entry, signs(entry.filename) if signs is not None else None)
            except InvalidRecordError:
                continue  # whoever compares it refuses it, with the reason
            self.releases.look(facts)
            judging.see(number, self.releases.with_told(facts))
        judging.end_part()

    def _judged(self, part: str, number: int, total: int) -> None:
        self._report(TaskProgress(number, total, "records", f"{part}: {number:,} of {total:,} judged"))

    def _cut(
        self, part: str, total: int, entries: Iterable[tuple[int, Entry]], cut: Callable[[str], bool]
    ) -> Iterator[tuple[int, Entry]]:
        """Leave out what its name alone decides about, and yield the rest: most of an index goes this way."""
        judging, key_of, file = self.judging, self.policing.name_key, self._file
        code, codes = judging.not_allowed, judging.codes[part]
        last, is_cut, told_at = None, False, 0
        following = iter(entries)
        while some := list(islice(following, TOGETHER)):
            if some[0][0] >= told_at:
                told_at = some[0][0] + REPORT_EVERY
                self._judged(part, some[0][0], total)
            filenames: list[str] = []
            left_out: list[Brief] = []
            for (number, entry), brief in zip(some, self._briefs([entry for _, entry in some]), strict=True):
                if brief is None:
                    continue  # whoever compares it refuses it, with the reason
                name = brief.name
                if name != last:  # what has one name mostly stands together
                    last, is_cut = name, cut(key_of(name))
                if not is_cut:
                    yield number, entry
                    continue
                codes[number] = code
                if entry[1][:1] != ALONG:
                    filenames.append(entry[0])
                    left_out.append(brief)
                elif file is not None:
                    file.leave_out(part, entry.filename, brief, code, counts=False)
            if file is not None:
                file.leave_all(part, filenames, left_out, code)
            judging.cut_out(len(filenames))

    def _briefs(self, entries: Sequence[Entry]) -> Sequence[Brief | None]:
        """Return the little that is told of records that are left out; None for what is none."""
        if isinstance(self.policing, NamesFirst):
            with suppress(InvalidRecordError):
                return self.policing.briefs(entries)
        return [self._brief(entry) for entry in entries]

    def _brief(self, entry: Entry) -> Brief | None:
        try:
            return self.policing.brief(entry)
        except InvalidRecordError:
            return None

    def _recall(self, part: str, numbers: Sequence[int]) -> Sequence[Facts | None]:
        """Return lean facts of records that were deferred; None: whoever compares it refuses it."""
        entries = self._entries[part]
        if self._names is None:
            return [self._whole(part, number) for number in numbers]
        return self._names.lean(part, map(entries.__getitem__, numbers), self._signs[part])

    def _whole(self, part: str, number: int) -> Facts | None:
        entry, signs = self._entries[part][number], self._signs[part]
        try:
            return self.policing.facts(part, entry, signs(entry.filename) if signs is not None else None)
        except InvalidRecordError:
            return None

    def _not_there(self, key: str | None) -> str:
        """Return why there is nothing of a name: filters come before all rules, also before what a package needs."""
        if self._only is None and self._takes_all:
            return NOT_THERE
        if self._only is None or key is None or not isinstance(self.policing, PartEach):
            return NOT_TAKEN
        if self.policing.part_of(key) not in self._only:
            return NOT_BROUGHT if self._grows else NOT_NAMED
        return NOT_THERE if self._takes_all else NOT_TAKEN

    def _needs(self, part: str, number: int) -> Sequence[str]:
        return self._names.depends_of(self._entries[part][number]) if self._names is not None else ()

    def _forgo(self, part: str, number: int, code: int) -> bool:
        entry = self._entries[part][number]
        brief = self._brief(entry)
        if brief is not None and self._file is not None:
            self._file.leave_out(part, entry.filename, brief, code)
        return brief is not None

    def _drop(self, facts: Facts, code: int) -> None:
        if self._file is not None:
            self._file.leave_out(facts.part, facts.filename, facts, code, counts=facts.counts)

    def verdict(self, part: str, number: int) -> Verdict | None:
        """Return why a record of a part, by its number in the listing, is left out; None: it is kept."""
        code = self.judging.codes[part][number]
        return None if code == KEPT else self.judging.verdicts[code]

    def rules_against(self, part: str, rows: Sequence[LiveRow]) -> dict[int, str]:
        """Return which rows that the source lists no more are left out, each with the rule that says so."""
        by_id = {row.id: row for row in rows}
        found = {}
        if rows:
            self.releases.live(part)
        for row_id, raw in self._state.raws(list(by_id)):
            row = by_id[row_id]
            rule = self._rule_against(part, Entry(row.filename, row.section, raw))
            if rule is not None:
                found[row_id] = rule
        return found

    def _rule_against(self, part: str, entry: Entry) -> str | None:
        try:
            facts = self.releases.with_told(self.policing.facts(part, entry))
        except InvalidRecordError:
            return None
        verdict = self.judge.alone(facts, self.sights.first_seen)
        if verdict is not None:
            return verdict.rule
        if not self.judge.closes or facts.name in self.judging.names:
            return None
        key = self.policing.name_key(facts.name)
        return None if self.judge.allowed(key, facts) or self.judge.excepted(key, facts) else PACKAGES

    @property
    def solves(self) -> bool:
        """Whether it is to be told of what is kept."""
        return self._solver is not None

    def keep(self, part: str, entry: Entry) -> None:
        """Take note of a record that is kept, for the solver."""
        if self._solver is not None:
            self._solver.keep(part, entry)

    def finish(self) -> JudgementResult:
        """Write what was found, and return it."""
        judging = self.judging
        missing = judging.missing
        self.releases.needed(judging.chosen)
        unsolved, notes = self._notes()
        if self._file is not None:
            self._file.about(
                About(
                    policy=self._by.policy,
                    stamp=self._by.stamp,
                    closes=self.judge.closes,
                    unsolvable=unsolved,
                    unlisted=judging.unlisted,
                    notes=notes,
                )
            )
            self._file.kept(judging.names)
            self._file.verdicts(
                (code, verdict.rule, verdict.why, verdict.refuses)
                for code, verdict in enumerate(judging.verdicts)
                if verdict is not None
            )
            self._file.chosen(map(_chosen, judging.chosen))
            self._file.missing((one.requirement, one.platform, one.chain, one.why) for one in missing)
        return JudgementResult(
            records=judging.records,
            kept=judging.kept,
            bytes=judging.bytes,
            closes=self.judge.closes,
            counts=dict(judging.counts),
            missing=[
                MissingOne(requirement=one.requirement, platform=one.platform, chain=one.chain, why=one.why)
                for one in missing[:MISSING_TOLD]
            ],
            missing_total=len(missing) + judging.unlisted,
            unsolvable=unsolved,
            unmapped=[text for text, _ in self.judge.unmapped.most_common(LICENSES_TOLD)],
            notes=notes,
            wanted=self.releases.wanted(),
            parts_wanted=self._parts_wanted(),
        )

    def _parts_wanted(self) -> list[str]:
        """Return the parts that were not read and that what is kept needs."""
        if not self._grows or not isinstance(self.policing, PartEach):
            return []
        named = self.judge.allow.names if self.judge.allow is not None else ()
        parts = [self.policing.part_of(key) for key in (*named, *self.judging.absent)]
        return [part for part in dict.fromkeys(parts) if part not in self._parts and self._formats.valid_part(part)]

    def _notes(self) -> tuple[list[str], list[str]]:
        """Return what a solver says that cannot be installed, and what was not looked at."""
        judging, notes = self.judging, []
        if judging.unchecked:
            notes.append(
                f"{judging.unchecked:,} requirements were taken by name alone, whatever version they ask for: there are"
                " too many different ones"
            )
        if judging.unlisted:
            notes.append(f"{judging.unlisted:,} more requirements that nothing meets are counted, and not listed")
        unsolved: list[str] = []
        pairs = sorted(judging.allowed_on()) if self._solver is not None else []
        if self._solver is not None and pairs:
            unsolved, note = self._solver.ask(self._by.policing, pairs, self._report)
            notes += [note] if note else []
        return unsolved, notes


def sweep_task(params: ReadParams, report: Report) -> ReadResult:
    """Close the live rows that a policy speaks against by their own records; nothing is read of a source.

    What hangs on other records, on age or on signatures is left to the run that judges all. Raises Invalid where no
    policy is given.
    """
    if params.policy is None:
        raise Invalid("there is nothing to judge by")
    formats = load_formats(params.formats)
    state = JudgeState(params.state_db)
    state.count_sets(state.lasting_sets(params.channel_id))
    policing = load_policing(params.policy.policing)
    judge = Judge(params.policy.rules, policing, now_ms=params.policy.now_ms)
    releases = Releases(state, params.channel_id, policing, judge)
    results = []
    with RunFile(params.run_file) as run_file:
        run_file.start_read(COLUMNS)
        for part in state.parts(params.channel_id, formats.family):
            rows = {row.id: row for row in state.live_rows(params.channel_id, params.mirror_id, formats.family, part)}
            report(TaskProgress(0, len(rows), "records", f"{part}: {len(rows):,} judged"))
            releases.live(part)
            out = [
                rows[row_id]
                for row_id, raw in state.raws(list(rows))
                if _against(judge, releases, part, rows[row_id], raw)
            ]
            run_file.close_rows((row.id, formats.family, part, row.name, POLICY) for row in out)
            results.append(
                PartResult(
                    part=part,
                    records=0,
                    kept=len(rows) - len(out),
                    before=len(rows),
                    added=0,
                    replaced=0,
                    unchanged=len(rows) - len(out),
                    gone=0,
                    judged_away=len(out),
                )
            )
    state.close()
    return ReadResult(parts=results)


def _against(judge: Judge, releases: Releases, part: str, row: LiveRow, raw: bytes) -> bool:
    try:
        facts = releases.with_told(judge.policing.facts(part, Entry(row.filename, row.section, raw)))
    except InvalidRecordError:
        return False
    return judge.alone(facts) is not None


def preview_task(params: ReadParams, report: Report) -> PreviewResult:
    """Judge what a source lists and change nothing; raise Invalid where no policy is given."""
    if params.policy is None:
        raise Invalid("a preview is of a policy")
    formats = load_formats(params.formats)
    state = JudgeState(params.state_db)
    state.count_sets(state.lasting_sets(params.channel_id))
    spools = [spool for spool in params.spools if params.only is None or spool.part in params.only]
    with PolicyPass(params, params.policy, formats, state, report) as judged:
        for spool, listing in judged.judge_all(spools):
            if judged.judge.closes and not isinstance(listing, Unreadable):
                for number, entry in enumerate(listing):
                    if judged.verdict(spool.part, number) is None:
                        judged.keep(spool.part, entry)
        judgement = judged.finish()
    shown = {
        row.name
        for part in state.parts(params.channel_id, formats.family)
        for row in state.live_rows(params.channel_id, params.mirror_id, formats.family, part)
    }
    state.close()
    kept = judged.judging.names
    return PreviewResult(judgement=judgement, names_added=sorted(kept - shown), names_removed=sorted(shown - kept))


def read_advisories(state: JudgeState, family: str) -> list[Advisory]:
    """Return the advisories about packages of a family."""
    return [decode_advisory(document) for document in state.advisories(family)]


def _chosen(one: Candidate) -> ChosenRow:
    facts, by = one.facts, one.needed_by
    return ChosenRow(
        facts.part,
        facts.filename,
        facts.name,
        facts.version,
        facts.build,
        facts.size,
        facts.license,
        one.direct or one.excepted,
        by.facts.filename if by is not None else "",
    )
