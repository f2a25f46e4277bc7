"""The handlers of the group channel."""

import msgspec

from firth_protocol.methods import (
    ChannelChanges,
    ChannelChangeState,
    ChannelCreate,
    ChannelDelete,
    ChannelGenerations,
    ChannelGet,
    ChannelList,
    ChannelParams,
    ChannelReply,
    ChannelRollback,
    ChannelUpdate,
    FreezeReply,
    RunReply,
    SeqReply,
)
from firth_protocol.types import Change, Channel, Generation, Page
from firthd.channels import blocks, browse
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store import catalog
from firthd.store.database import Reader


def handlers(engine: Engine) -> dict[str, Handler]:
    async def create(context: Context, params: ChannelCreate) -> ChannelReply:
        return await engine.channels.create(params, context.caller)

    async def list_(context: Context, params: ChannelList) -> Page[Channel]:
        return await engine.page(lambda r: browse.channels_page(r, params, context.caller.patterns()))

    async def get(context: Context, params: ChannelParams) -> ChannelGet:
        async def body(r: Reader) -> ChannelGet:
            row = await browse.channel(r, params.channel)
            seen = context.caller.patterns()
            channel = await browse.describe(r, row, seen)
            mirrors = [await engine.reports.describe(r, mirror) for mirror in await catalog.mirrors_of(r, row.id)]
            families = {total.family for total in channel.families}
            return ChannelGet(
                **msgspec.structs.asdict(channel),
                mirror_list=mirrors,
                subchannel_list=await catalog.subchannels(r, row.id, seen),
                blocks=await blocks.told(r, row.id),
                addresses=engine.addresses(row.name, families),
                as_of=await engine.journal.as_of(r),
            )

        return await engine.db.read(body)

    async def update(context: Context, params: ChannelUpdate) -> ChannelReply:
        return await engine.channels.update(params, context.caller)

    async def delete(context: Context, params: ChannelDelete) -> SeqReply:
        reply = await engine.channels.delete(params.channel, params.confirm, context.caller, dry_run=params.dry_run)
        await engine.mirrors.forget_deleted()
        return reply

    async def freeze(context: Context, params: ChannelChangeState) -> FreezeReply:
        return await engine.channels.freeze(params.channel, context.caller, dry_run=params.dry_run)

    async def unfreeze(context: Context, params: ChannelChangeState) -> FreezeReply:
        return await engine.channels.unfreeze(params.channel, context.caller, dry_run=params.dry_run)

    async def generations(context: Context, params: ChannelGenerations) -> Page[Generation]:
        return await engine.page(lambda r: browse.generations_page(r, params.channel, params.cursor, params.limit))

    async def changes(context: Context, params: ChannelChanges) -> Page[Change]:
        return await engine.page(lambda r: browse.changes_page(r, params))

    async def rollback(context: Context, params: ChannelRollback) -> RunReply:
        return await engine.channels.rollback(
            params.channel, params.generation, context.caller.user, dry_run=params.dry_run
        )

    return {
        "channel.create": create,
        "channel.list": list_,
        "channel.get": get,
        "channel.update": update,
        "channel.delete": delete,
        "channel.freeze": freeze,
        "channel.unfreeze": unfreeze,
        "channel.generations": generations,
        "channel.changes": changes,
        "channel.rollback": rollback,
    }
