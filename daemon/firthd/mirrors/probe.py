"""The only place that finds out what stands at a source's address, by some of the requests that a run makes."""

import asyncio
from collections.abc import Mapping

from msgspec.structs import replace

from firth_protocol.errors import FirthError, Invalid, Upstream
from firth_protocol.types import Family, Filters, MirrorMode, MirrorType, SourceFound
from firthd.families.base import Answer, Ask, FamilyRules, Form, Recogniser
from firthd.mirrors.asking import walk
from firthd.upstream.client import LOOK_BYTES, Peek, Source, mask
from firthd.upstream.client import Upstream as Upstreams
from firthd.upstream.source import is_file

UNCHECKED = "`check: false` takes the address without asking"
PROBE_S = 10.0
TELL_TALE_BYTES = 8192
INSTEAD_BYTES = 512 * 1024
ELSEWHERE_S = 1.0
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})


class Probe:
    """Looks at one source; nothing of it is kept."""

    def __init__(
        self, upstream: Upstreams, source: Source, rules: FamilyRules, recognisers: Mapping[Family, Recogniser]
    ) -> None:
        self._upstream = upstream
        self._source = source
        self._rules = rules
        self._recognisers = recognisers
        self._answers: list[Answer] = []
        self._instead: tuple[Form, Peek] | None = None  # what answered 200 and was no index
        self._beside = True
        self._what: str | None = None  # what that is, in the words of the family

    async def run(self, filters: Filters, timeout_s: float = PROBE_S, *, beside: bool = True) -> SourceFound:
        """Return which parts the source has, of those that its family looks at; `beside`: files beside them too.

        Raises errors.Upstream when nobody answers in time or access is refused, Invalid when something else stands
        there; the text says what.
        """
        shown = mask(self._source.url)
        self._beside = beside
        warnings = []
        try:
            async with asyncio.timeout(timeout_s):
                probe, every = self._rules.probe, self._rules.requests
                await walk(probe(filters) if probe else every({}, filters, True, MirrorMode.PASSIVE), self._ask)
        except TimeoutError:
            if not any(answer.form for answer in self._answers):
                raise Upstream(f"{shown} did not answer within {timeout_s:g} s", hint=UNCHECKED, url=shown) from None
            warnings.append(f"not all of the source answered within {timeout_s:g} s; there may be more")
        except Upstream as error:
            hint = f"{error.hint}; {UNCHECKED}" if error.hint else UNCHECKED
            raise Upstream(error.message, hint=hint, **error.data) from None
        if not any(answer.form for answer in self._answers):
            raise await self._nothing(shown)
        found = self._rules.found(self._source.url, self._answers)
        return replace(found, warnings=[*found.warnings, *warnings])

    async def _ask(self, asked: Ask) -> Answer:
        if asked.beside is not None and not self._beside:
            return Answer(part=asked.part, form=None)
        try:
            answer = await self._first_form(asked)
        except Upstream:
            if asked.beside is None:
                raise
            answer = Answer(part=asked.part, form=None)
        self._answers.append(answer)
        return answer

    async def _first_form(self, asked: Ask) -> Answer:
        refusal: Upstream | None = None
        instead = self._rules.instead
        in_folder = is_file(self._source)
        for form in (form for form in asked.forms if form.in_folder in {None, in_folder}):
            most = LOOK_BYTES if instead is None else INSTEAD_BYTES
            peek = await self._upstream.peek(self._source, form.path, max_bytes=most, accept=form.accept)
            if peek.status == 200:
                if self._rules.encoding(form, peek.body, peek.content_type) is not None:
                    what = None if instead is None else instead(asked.part, form, peek.body, peek.content_type)
                    if what is None:
                        whole = len(peek.body) < most
                        return Answer(part=asked.part, form=form, size=peek.length, start=peek.body, whole=whole)
                    self._what = self._what or what
                self._instead = self._instead or (form, peek)
            elif peek.status in {401, 403} or peek.status in _LATER:
                refusal = refusal or self._refused(peek)
                if peek.status in _LATER:
                    raise refusal
        return Answer(part=asked.part, form=None, refusal=refusal)

    def _refused(self, peek: Peek) -> Upstream:
        if peek.status in _LATER:
            hint = "try again later"
        elif self._source.credentials:
            hint = "check the credentials"
        else:
            hint = "the source may want credentials"
        return Upstream(
            f"the source answered {peek.status} for {peek.url}", hint=hint, status=peek.status, url=peek.url
        )

    async def _nothing(self, shown: str) -> FirthError:
        """Return what to say of a source that has no part: what it is instead, where that can be told."""
        wrong = f"{shown} is not {self._rules.recogniser.kind}"
        other = await self._other()
        if other is not None:
            return Invalid(
                f"{wrong}: there is {self._recognisers[other].kind}",
                hint=f"make a mirror of type {other}",
                found=MirrorType(other),
                path="source",
            )
        if (place := await self._elsewhere()) is not None:
            return Invalid(
                f"{wrong} itself, but {mask(place)} is",
                hint="take that address as the source",
                path="source",
            )
        refusal = next((answer.refusal for answer in self._answers if answer.refusal is not None), None)
        if refusal is not None:
            return Upstream(refusal.message, hint=f"{refusal.hint}; {UNCHECKED}", **refusal.data)
        if self._instead is not None:
            form, peek = self._instead
            what = self._what or ("a web page" if peek.content_type in _HTML_TYPES else "something else")
            return Invalid(
                f"{wrong}: there is {what} where the index {form.path or 'itself'} should be",
                hint="look at the address in a browser",
                path="source",
            )
        usual = next((form.path for form in self._rules.recogniser.tell_tales if form.path), "")
        return Invalid(
            f"{wrong}: it has none of the files that one has, such as {usual}",
            hint=f"look at the address in a browser; {UNCHECKED}",
            path="source",
        )

    async def _elsewhere(self) -> str | None:
        """Return where below the address an index stands, None when none of the usual places has one."""
        instead = self._rules.instead
        for form in () if is_file(self._source) else self._rules.other_places:
            try:
                async with asyncio.timeout(ELSEWHERE_S):
                    peek = await self._upstream.peek(
                        self._source, form.path, max_bytes=INSTEAD_BYTES, accept=form.accept
                    )
            except TimeoutError:
                return None
            except FirthError:
                continue
            there = peek.status == 200 and self._rules.encoding(form, peek.body, peek.content_type) is not None
            part = self._answers[0].part
            if there and (instead is None or instead(part, form, peek.body, peek.content_type) is None):
                return f"{self._source.url}/{form.path}"
        return None

    async def _other(self) -> Family | None:
        """Return the family that the source is one of instead, None when that cannot be told."""
        for family, recogniser in self._recognisers.items():
            if family is self._rules.family:
                continue
            for form in recogniser.tell_tales:
                try:
                    peek = await self._upstream.peek(
                        self._source, form.path, max_bytes=TELL_TALE_BYTES, accept=form.accept
                    )
                except FirthError:
                    continue  # what the index said is the better answer
                if peek.status == 200 and recogniser.recognise(form, peek.body, peek.content_type):
                    return family
        return None
