"""The handlers of the group mirror."""

import msgspec

from firth_protocol.methods import (
    MirrorCheck,
    MirrorCreate,
    MirrorDelete,
    MirrorDeleteReply,
    MirrorDetailsParams,
    MirrorFill,
    MirrorGet,
    MirrorList,
    MirrorParams,
    MirrorPlan,
    MirrorReply,
    MirrorRestart,
    MirrorRun,
    MirrorStop,
    MirrorUpdate,
    RunReply,
)
from firth_protocol.types import Mirror, MirrorDetails, Page, SourceFound
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store.database import Reader


def handlers(engine: Engine) -> dict[str, Handler]:
    async def check(context: Context, params: MirrorCheck) -> SourceFound:
        return await engine.mirrors.check(params)

    async def create(context: Context, params: MirrorCreate) -> MirrorReply:
        return await engine.mirrors.create(params, context.caller.user)

    async def list_(context: Context, params: MirrorList) -> Page[Mirror]:
        return await engine.page(lambda r: engine.reports.page(r, params, context.caller.patterns()))

    async def get(context: Context, params: MirrorParams) -> MirrorGet:
        async def body(r: Reader) -> MirrorGet:
            mirror = await engine.reports.mirror(r, params.mirror)
            return MirrorGet(**msgspec.structs.asdict(mirror), as_of=await engine.journal.as_of(r))

        return await engine.db.read(body)

    async def update(context: Context, params: MirrorUpdate) -> MirrorReply:
        return await engine.mirrors.update(params, context.caller.user)

    async def run(context: Context, params: MirrorRun) -> RunReply:
        return await engine.mirrors.run(
            params.mirror, context.caller.user, accept_removals=params.accept_removals, dry_run=params.dry_run
        )

    async def plan(context: Context, params: MirrorPlan) -> RunReply:
        return await engine.mirrors.plan(params, context.caller.user)

    async def stop(context: Context, params: MirrorStop) -> RunReply:
        return await engine.mirrors.stop(params.mirror, publish=params.publish, dry_run=params.dry_run)

    async def restart(context: Context, params: MirrorRestart) -> RunReply:
        return await engine.mirrors.restart(params.mirror, context.caller.user, dry_run=params.dry_run)

    async def fill(context: Context, params: MirrorFill) -> RunReply:
        return await engine.mirrors.fill(params, context.caller.user)

    async def delete(context: Context, params: MirrorDelete) -> MirrorDeleteReply:
        return await engine.mirrors.delete(params, context.caller.user)

    async def details(context: Context, params: MirrorDetailsParams) -> MirrorDetails:
        return await engine.reports.details(params.mirror, params.run)

    return {
        "mirror.check": check,
        "mirror.create": create,
        "mirror.list": list_,
        "mirror.get": get,
        "mirror.update": update,
        "mirror.run": run,
        "mirror.plan": plan,
        "mirror.stop": stop,
        "mirror.restart": restart,
        "mirror.fill": fill,
        "mirror.delete": delete,
        "mirror.details": details,
    }
