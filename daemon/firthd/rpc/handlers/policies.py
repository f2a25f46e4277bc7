"""The handlers of the groups policy and advisory, and of what policies made of packages and mirrors."""

import msgspec

from firth_protocol.methods import (
    AdvisoryGet,
    AdvisoryImport,
    AdvisoryList,
    AdvisoryParams,
    AdvisoryReply,
    AdvisorySet,
    AdvisorySummary,
    DependencyReportReply,
    MirrorDependencyReport,
    MirrorExcluded,
    NoParams,
    PackageExplain,
    PolicyCreate,
    PolicyDelete,
    PolicyGet,
    PolicyList,
    PolicyParams,
    PolicyPreview,
    PolicyPreviewReply,
    PolicyReply,
    PolicyUpdate,
    RunReply,
    SeqReply,
)
from firth_protocol.types import AdvisoryInfo, Excluded, Explained, Page, Policy
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store.database import Reader


def handlers(engine: Engine) -> dict[str, Handler]:
    governor = engine.governance.governor
    explanations = engine.governance.explanations

    async def create(context: Context, params: PolicyCreate) -> PolicyReply:
        return await governor.create(params)

    async def list_(context: Context, params: PolicyList) -> Page[Policy]:
        return await engine.page(lambda r: governor.page(r, params, context.caller.patterns()))

    async def get(context: Context, params: PolicyParams) -> PolicyGet:
        async def body(r: Reader) -> PolicyGet:
            policy = await governor.get(r, params.policy, context.caller.patterns())
            return PolicyGet(**msgspec.structs.asdict(policy), as_of=await engine.journal.as_of(r))

        return await engine.db.read(body)

    async def update(context: Context, params: PolicyUpdate) -> PolicyReply:
        return await governor.update(params, context.caller.user, context.caller.patterns())

    async def delete(context: Context, params: PolicyDelete) -> SeqReply:
        return await governor.delete(params)

    async def preview(context: Context, params: PolicyPreview) -> PolicyPreviewReply:
        return await engine.governance.previews.preview(params)

    async def excluded(context: Context, params: MirrorExcluded) -> Page[Excluded]:
        return await explanations.excluded(params)

    async def report(context: Context, params: MirrorDependencyReport) -> DependencyReportReply:
        return await explanations.report(params)

    async def explain(context: Context, params: PackageExplain) -> Page[Explained]:
        return await explanations.explain(params)

    async def import_(context: Context, params: AdvisoryImport) -> RunReply:
        return await engine.governance.advisories.import_(params, context.caller.user)

    async def advisories(context: Context, params: AdvisoryList) -> Page[AdvisoryInfo]:
        return await engine.page(lambda r: engine.governance.advisories.page(r, params))

    async def advisory(context: Context, params: AdvisoryParams) -> AdvisoryGet:
        return await engine.governance.touched.get(params.id, context.caller.patterns())

    async def summary(context: Context, params: NoParams) -> AdvisorySummary:
        return await engine.governance.touched.summary()

    async def set_(context: Context, params: AdvisorySet) -> AdvisoryReply:
        return await engine.governance.advisories.set(params, context.caller.user)

    return {
        "advisory.import": import_,
        "advisory.list": advisories,
        "advisory.get": advisory,
        "advisory.summary": summary,
        "advisory.set": set_,
        "policy.create": create,
        "policy.list": list_,
        "policy.get": get,
        "policy.update": update,
        "policy.delete": delete,
        "policy.preview": preview,
        "mirror.excluded": excluded,
        "mirror.dependency_report": report,
        "package.explain": explain,
    }
