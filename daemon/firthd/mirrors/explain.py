"""The only place that tells what a policy made of what a source lists: excluded, explained, a dependency report."""

import asyncio
import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from firth_protocol.errors import Invalid, NotFound, WrongState
from firth_protocol.methods import (
    DependencyReportReply,
    MirrorDependencyReport,
    MirrorExcluded,
    PackageExplain,
    PackageList,
    ReportFormat,
)
from firth_protocol.types import DependencyRow, Excluded, Explained, Family, Package, Page
from firthd.channels import browse, hidden
from firthd.channels.blocks import Blocks
from firthd.channels.policies import NO_POLICY_JUDGES, InForce, Policies
from firthd.families.base import Facts, FamilyRules, Requirement
from firthd.mirrors.report import find
from firthd.store import artifacts, catalog, offers, paging
from firthd.store.artifacts import LiveRecord
from firthd.store.blocks import Judged
from firthd.store.catalog import MirrorRow
from firthd.store.database import Database, Reader
from firthd.store.excluded import Lacking
from firthd.store.journal import Journal
from firthd.store.packed import ChosenRow, LeftOut
from firthd.store.paging import Cut

EXPLAINED_MOST = 50_000
"""Records of one name that are looked at; no real package has half as many."""
COLUMNS = tuple(field.encode_name for field in msgspec.structs.fields(DependencyRow))
_plain_name = re.compile(r"[A-Za-z0-9._-]+(?=[\s\[;<>=!~(@,]|$)").match
"""The name that a requirement begins with, in any family: `lib[fast]>=2`, `lib; extra == 'x'`, `lib (>= 2)`."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes spreadsheets take a cell for a formula."""
CHOSEN, LACKING = 0, 1


class Explanations:
    """Answers out of what runs have found."""

    def __init__(
        self,
        db: Database,
        journal: Journal,
        policies: Policies,
        blocks: Blocks,
        families: Mapping[Family, FamilyRules],
    ) -> None:
        self._db = db
        self._journal = journal
        self._policies = policies
        self._blocks = blocks
        self._families = families

    async def excluded(self, params: MirrorExcluded) -> Page[Excluded]:
        """Return a page of what a policy keeps out of a mirror."""
        row, as_of = await self._mirror(params.mirror)
        after = int(paging.decode(params.cursor, "excluded")["page_key"] or 0)
        judgement = self._policies.files.of(row.id)
        found, total = await asyncio.to_thread(
            lambda: judgement.page(rule=params.reason, query=params.query, after=after, limit=params.limit + 1)
        )
        shown, following = paging.cut("excluded", found, params.limit, lambda one: (None, one.id))
        return Page(items=[_excluded(one) for one in shown], next_cursor=following, total=total, as_of=as_of)

    async def packages(self, r: Reader, params: PackageList, now_ms: int) -> Cut[Package]:
        """Return a page of a channel's packages, also of those of which a policy leaves nothing."""
        return await hidden.packages_page(r, params, self._policies, now_ms)

    # --- explain

    async def explain(self, params: PackageExplain) -> Page[Explained]:
        """Return what became of each artifact that a spec matches; raise Invalid for a spec without a name."""
        rules = _served(self._families, params.family)
        need = rules.requirement(params.spec)
        if need.name is None:
            raise Invalid(f"{params.spec!r} names no package", hint="give a name, such as `numpy >=2`", path="$.spec")
        name = need.name

        async def body(r: Reader) -> tuple[list[MirrorRow], list[LiveRecord], set[int] | None, str]:
            channel = await browse.channel(r, params.channel)
            mirrors = await catalog.mirrors_of(r, channel.id)
            live = await artifacts.live_records(r, channel.id, params.family, name, EXPLAINED_MOST)
            owners = await offers.owners(r, channel.id, channel.generation, params.family, name)
            return mirrors, live, owners, await self._journal.as_of(r)

        mirrors, live, owners, as_of = await self._db.read(body)
        ours = [mirror for mirror in mirrors if mirror.type.value == params.family.value]
        found = await asyncio.to_thread(lambda: list(self._explained(rules, need, name, ours, live, owners)))
        found.sort(key=_place)
        after = paging.decode(params.cursor, "explain")["page_key"]
        rest = [one for one in found if after is None or _place(one) > after][: params.limit + 1]
        shown, following = paging.cut(
            "explain", rest[: params.limit + 1], params.limit, lambda one: (None, _place(one))
        )
        return Page(items=shown, next_cursor=following, total=len(found), as_of=as_of)

    def _explained(
        self,
        rules: FamilyRules,
        need: Requirement,
        name: str,
        mirrors: Sequence[MirrorRow],
        live: Sequence[LiveRecord],
        owners: set[int] | None,
    ) -> Iterator[Explained]:
        by_id = {mirror.id: mirror for mirror in mirrors}
        blocked = {(one.mirror_id, one.part, one.filename) for one in live if one.blocked}
        for one in live:
            try:
                facts = rules.facts(one.part, one.raw)
            except ValueError:
                continue
            mirror = by_id.get(one.mirror_id)
            if mirror is not None and need.matches(facts):
                yield self._kept(rules, mirror, one, facts, owners)
        for mirror in mirrors:
            in_force = self._policies.of_mirror(mirror.id)
            if in_force is None or in_force.judge is None:
                continue
            for left_out in self._policies.files.of(mirror.id).named(name, EXPLAINED_MOST):
                if need.matches(_facts_of(left_out)) and (mirror.id, left_out.part, left_out.filename) not in blocked:
                    yield _explained(mirror, left_out, in_force.policy.name)

    def _kept(
        self, rules: FamilyRules, mirror: MirrorRow, one: LiveRecord, facts: Facts, owners: set[int] | None
    ) -> Explained:
        in_force = self._policies.of_mirror(mirror.id)
        verdict, why = "kept", ""
        judged = Judged(id=one.id, family=rules.family, part=one.part, filename=one.filename, raw=one.raw)
        block = self._blocks.against(mirror.channel_id, judged)
        if block is not None or one.blocked:
            verdict, why = "blocked", f"blocked by `{block}`" if block is not None else "a block has just been lifted"
        elif owners is not None and mirror.id not in owners:
            verdict, why = "shadowed", "the name belongs to an older mirror"
        return Explained(
            mirror=mirror.id,
            mirror_name=mirror.name,
            part=one.part,
            filename=one.filename,
            name=facts.name,
            version=facts.version,
            build=facts.build,
            verdict=verdict,
            policy=in_force.policy.name if in_force is not None and in_force.judge is not None else None,
            rule=None,
            why=why,
        )

    # --- the dependency report

    async def report(self, params: MirrorDependencyReport) -> DependencyReportReply:
        """Return a page of what a policy allows with all that it needs; WrongState where there is no such."""
        row, as_of = await self._mirror(params.mirror)
        self._must_close(row, self._policies.of_mirror(row.id))
        judgement = self._policies.files.of(row.id)
        about = await asyncio.to_thread(judgement.about)
        if about is None or not about.closes:
            raise WrongState(f"{row.channel}:{row.name} was not judged yet", hint="its next run looks at dependencies")
        values = paging.decode(params.cursor, "report")
        kind, after = int(values["page_value"] or CHOSEN), int(values["page_key"] or 0)
        rows: list[DependencyRow] = []
        last: tuple[int, int] | None = None
        if kind == CHOSEN:
            chosen = await asyncio.to_thread(judgement.chosen_page, after, params.limit + 1)
            rows = [_chosen(one) for _, one in chosen[: params.limit]]
            last = (CHOSEN, chosen[params.limit - 1][0]) if len(chosen) > params.limit else None
            after = 0
        if last is None:
            room = params.limit - len(rows)
            lacking, _ = await asyncio.to_thread(judgement.missing_page, after, room + 1)
            rows += [_lacking(one) for one in lacking[:room]]
            if len(lacking) > room:
                last = (LACKING, lacking[room - 1].id if room else after)
            elif about.unlisted:
                rows.append(_unlisted(about.unlisted))
        text = csv_text(rows, header=params.cursor is None) if params.format is ReportFormat.CSV else None
        return DependencyReportReply(
            rows=[] if text is not None else rows,
            text=text,
            next_cursor=None if last is None else paging.encode("report", *last),
            as_of=as_of,
        )

    def _must_close(self, row: MirrorRow, in_force: InForce | None) -> None:
        lacks = NO_POLICY_JUDGES if in_force is None else in_force.report_lacks
        if lacks:
            raise WrongState(
                f"there is no dependency report of {row.channel}:{row.name}: {lacks}",
                hint="a policy with `packages.allow` and `include_dependencies` gives one",
            )

    async def _mirror(self, ref: int | str) -> tuple[MirrorRow, str]:
        async def body(r: Reader) -> tuple[MirrorRow, str]:
            return await find(r, ref), await self._journal.as_of(r)

        return await self._db.read(body)


def csv_text(rows: Sequence[DependencyRow], *, header: bool) -> str:
    """Return rows as lines that a spreadsheet opens; no cell of a source becomes a formula there."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in msgspec.structs.astuple(row)])
    return out.getvalue()


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


def _served(families: Mapping[Family, FamilyRules], family: Family) -> FamilyRules:
    rules = families.get(family)
    if rules is None:
        raise NotFound(f"packages of family {family} are not served by this version")
    return rules


def _place(one: Explained) -> list[object]:
    return [one.mirror, one.part, one.filename, one.verdict]


def _excluded(one: LeftOut) -> Excluded:
    return Excluded(
        part=one.part,
        filename=one.filename,
        name=one.name,
        version=one.version,
        build=one.build,
        size=one.size,
        rule=one.rule,
        why=one.why,
    )


def _explained(mirror: MirrorRow, one: LeftOut, policy: str) -> Explained:
    return Explained(
        mirror=mirror.id,
        mirror_name=mirror.name,
        part=one.part,
        filename=one.filename,
        name=one.name,
        version=one.version,
        build=one.build,
        verdict="excluded",
        policy=policy,
        rule=one.rule,
        why=one.why,
    )


def _facts_of(one: LeftOut) -> Facts:
    return Facts(
        name=one.name,
        version=one.version,
        build=one.build,
        build_number=0,
        part=one.part,
        license=None,
        timestamp=None,
        size=one.size,
        sha256=None,
        md5=None,
        depends=[],
        filename=one.filename,
    )


def _chosen(one: ChosenRow) -> DependencyRow:
    return DependencyRow(
        name=one.name,
        version=one.version,
        build=one.build,
        part=one.part,
        filename=one.filename,
        role="direct" if one.direct else "transitive",
        required_by=one.needed_by,
        license=one.license,
        size=one.size,
        state="present",
        reason="",
    )


def _unlisted(count: int) -> DependencyRow:
    return DependencyRow(
        name="…",
        version="",
        build="",
        part="",
        filename="",
        role="transitive",
        required_by="",
        license=None,
        size=None,
        state="missing",
        reason=f"{count:,} more requirements that nothing meets are counted, and not listed",
    )


def _lacking(one: Lacking) -> DependencyRow:
    match = _plain_name(one.requirement)
    name = match[0] if match is not None else one.requirement.partition(" ")[0]
    return DependencyRow(
        name=name,
        version=one.requirement[len(name) :].strip(),
        build="",
        part=one.platform,
        filename="",
        role="transitive" if one.chain else "direct",
        required_by=" > ".join(one.chain),
        license=None,
        size=None,
        state="missing",
        reason=one.why,
    )
