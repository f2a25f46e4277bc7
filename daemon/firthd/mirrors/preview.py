"""The only place that tells what a policy would do, before it does: its effect on what is known of sources."""

import asyncio
from collections.abc import Mapping

from firth_protocol.errors import Invalid
from firth_protocol.methods import PolicyPreview, PolicyPreviewReply
from firth_protocol.types import Family, FilteredCount, MissingDependency, PolicyEffect, Rules
from firthd.channels import browse
from firthd.channels.policies import named_by, no_policy
from firthd.families import load_policing
from firthd.families.base import FamilyRules, Spool
from firthd.index.messages import JudgedBy, PreviewResult, ReadParams
from firthd.mirrors.context import Context
from firthd.mirrors.govern import Governor, in_order
from firthd.mirrors.index import FetchedPart, index_of
from firthd.mirrors.report import find
from firthd.policies.judge import Judge
from firthd.policies.rules import in_words
from firthd.store import catalog, policies
from firthd.store.catalog import MirrorRow
from firthd.store.database import Reader

PREVIEW = "firthd.index.judge:preview_task"
SHOWN = 100
NAMES_SHOWN = 1000


class Previews:
    """Tries policies out on the copies of sources' indexes; nothing is changed."""

    def __init__(self, context: Context, governor: Governor) -> None:
        self._p = context
        self._governor = governor
        self._families: Mapping[Family, FamilyRules] = context.families

    async def preview(self, params: PolicyPreview) -> PolicyPreviewReply:
        """Return the effect on a mirror, or on each of a channel's; raise Invalid for rules that mean nothing."""
        name, rules, families = await self._asked(params)
        await self._governor.check(rules, families)

        async def body(r: Reader) -> list[MirrorRow]:
            if params.mirror is not None:
                return [await find(r, params.mirror)]
            channel = await browse.channel(r, params.channel or "")
            return await catalog.mirrors_of(r, channel.id)

        effects, warnings = [], []
        for mirror in await self._p.db.read(body):
            served = self._families.get(Family(mirror.type.value))
            if served is None or served.policing is None or served.family not in families:
                warnings.append(f"{mirror.channel}:{mirror.name}: its family is not judged")
            elif mirror.policy is not None and params.mirror is None:
                warnings.append(
                    f"{mirror.channel}:{mirror.name}: its own policy {mirror.policy} replaces the channel's"
                )
            else:
                effects.append(await self._effect(mirror, served, served.policing, name, rules))
        return PolicyPreviewReply(summary=in_words(rules, families), effects=effects, warnings=warnings)

    async def _asked(self, params: PolicyPreview) -> tuple[str, Rules, list[Family]]:
        if (params.policy is None) == (params.rules is None):
            raise Invalid("give either `policy` or `rules`", path="$.rules")
        if params.policy is None:
            assert params.rules is not None
            return "preview", params.rules, in_order(params.families)
        wanted = params.policy
        row = await self._p.db.read(lambda r: policies.by_name(r, wanted))
        if row is None:
            raise no_policy(wanted)
        return row.name, row.rules, row.families

    async def _effect(
        self, mirror: MirrorRow, served: FamilyRules, policing: str, name: str, rules: Rules
    ) -> PolicyEffect:
        known = await self._p.db.read(lambda r: catalog.source_indexes(r, mirror.id))
        folder = self._p.source_folder(mirror.id)
        takes = named_by(served, Judge(rules, load_policing(policing)), mirror.filters)
        grows = takes != mirror.filters
        only = served.only(takes)
        if only is not None and grows:
            only |= known.keys()

        def copies() -> list[Spool]:
            parts = [
                FetchedPart(row=row, changed=False)
                for row in known.values()
                if row.file and (folder / row.file).is_file()
            ]
            return index_of(parts, served).to_read(folder, everything=True)

        spools = await asyncio.to_thread(copies)
        params = ReadParams(
            formats=served.formats,
            state_db=str(self._p.db.path),
            run_file="",
            channel_id=mirror.channel_id,
            mirror_id=mirror.id,
            spools=spools,
            only=None if only is None else sorted(only),
            grows=grows,
            singly=served.small_parts,
            filters=mirror.filters,
            policy=JudgedBy(
                policy=name, stamp="", rules=rules, policing=policing, now_ms=self._p.clock.now_ms(), solve=True
            ),
            max_part_bytes=self._p.max_part_bytes,
        )
        result = await self._p.workers.run(PREVIEW, params, PreviewResult)
        found = result.judgement
        notes = list(found.notes) if spools else ["the source was not read yet: there is nothing to judge"]
        if found.wanted:
            notes.append(f"what {len(found.wanted):,} releases say of themselves was not read yet: a run reads it")
        if found.parts_wanted:
            notes.append(f"{len(found.parts_wanted):,} packages that are needed were not read yet: a run reads them")
        return PolicyEffect(
            mirror=mirror.id,
            mirror_name=mirror.name,
            records=found.records,
            kept=found.kept,
            bytes=found.bytes,
            filtered=[
                FilteredCount(reason=rule, whose=name, count=count)
                for rule, count in sorted(found.counts.items(), key=lambda one: (-one[1], one[0]))
            ],
            names_added=result.names_added[:NAMES_SHOWN],
            names_added_total=len(result.names_added),
            names_removed=result.names_removed[:NAMES_SHOWN],
            names_removed_total=len(result.names_removed),
            missing=[
                MissingDependency(requirement=one.requirement, platform=one.platform, chain=one.chain, why=one.why)
                for one in found.missing[:SHOWN]
            ],
            missing_total=found.missing_total,
            unsolvable=found.unsolvable,
            unmapped_licenses=found.unmapped,
            notes=notes,
        )
