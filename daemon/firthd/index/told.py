"""The only place in a worker that knows what files beside an index tell of releases, and which of them are wanted."""

from collections.abc import Iterable, Mapping, Sequence

from firthd.families.base import Entry, Facts, InvalidRecordError
from firthd.families.policing import Policing, ToldApart
from firthd.index.messages import Teller, WantedRelease
from firthd.policies.judge import Judge
from firthd.policies.shelf import Candidate
from firthd.store.judge_reads import JudgeState

WANTED_MAX = 5000
"""Releases that are wanted at once; the next round wants the rest."""


class Releases:
    """What is known of the releases of a channel, part by part."""

    def __init__(self, state: JudgeState, channel_id: int, policing: Policing, judge: Judge) -> None:
        self._state = state
        self._channel_id = channel_id
        self._policing = policing
        self._judge = judge
        rules = judge.rules
        apart = isinstance(policing, ToldApart) and (rules.licenses is not None or judge.closes)
        self._apart: ToldApart | None = policing if apart and isinstance(policing, ToldApart) else None
        self._tellers: dict[tuple[str, str], list[Entry]] = {}  # of releases of which nothing is known
        self._wanted: dict[tuple[str, str], None] = {}
        self._documents: Mapping[str, bytes] = {}

    def begin(self, part: str, entries: Iterable[Entry]) -> None:
        """Begin a part: what is known of its releases counts where the index still lists what told it."""
        if self._apart is None:
            return
        told = self._state.told(self._channel_id, part)
        documents = {}
        for version, tellers in self._apart.tellers(part, entries).items():
            known = (told.get((version, one.filename, self._digest(part, one))) for one in tellers)
            document = next((one for one in known if one is not None), None)
            if document is not None:
                documents[version] = document
            else:
                self._tellers[part, version] = tellers
        self._documents = documents

    def live(self, part: str) -> None:
        """Begin a part of which rows are judged, whatever its index lists."""
        if self._apart is not None:
            told = self._state.told(self._channel_id, part)
            self._documents = {version: document for (version, _, _), document in told.items()}

    def with_told(self, facts: Facts) -> Facts:
        """Return facts of a record of the part with what is known of its release."""
        if self._apart is None:
            return facts
        return self._apart.with_told(facts, self._documents.get(facts.version))

    def look(self, facts: Facts) -> None:
        """Want the release of a record where the verdict hangs on it, and not on its name alone."""
        if self._apart is None or (facts.part, facts.version) not in self._tellers:
            return
        if self._judge.rules.licenses is not None and self._judge.may_come(facts):
            self._wanted[facts.part, facts.version] = None

    def needed(self, chosen: Iterable[Candidate]) -> None:
        """Want the releases of what is kept, for what they need."""
        if self._apart is not None:
            for one in chosen:
                if (one.facts.part, one.facts.version) in self._tellers:
                    self._wanted[one.facts.part, one.facts.version] = None

    def wanted(self) -> list[WantedRelease]:
        """Return what is to be read of the source before all can be judged."""
        return [
            WantedRelease(part=part, version=version, tellers=self._told(part, self._tellers[part, version]))
            for part, version in list(self._wanted)[:WANTED_MAX]
        ]

    def _told(self, part: str, entries: Sequence[Entry]) -> list[Teller]:
        assert self._apart is not None
        return [
            Teller(
                section=one.section,
                filename=one.filename,
                small=self._apart.small(one.section),
                digest=self._digest(part, one),
                size=self._size(part, one),
                raw=bytes(one.raw),
            )
            for one in entries
        ]

    def _digest(self, part: str, entry: Entry) -> str:
        try:
            facts = self._policing.facts(part, entry)
        except InvalidRecordError:
            return ""
        return facts.sha256 or facts.md5 or ""

    def _size(self, part: str, entry: Entry) -> int | None:
        try:
            return self._policing.facts(part, entry).size
        except InvalidRecordError:
            return None
