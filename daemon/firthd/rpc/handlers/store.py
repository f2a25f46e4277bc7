"""The handlers of the group store, and daemon.backup."""

import asyncio

import msgspec

from firth_protocol.methods import DaemonBackup, NoParams, RunReply, StoreGc, StoreGcReply, StoreScrub, StoreStatusReply
from firth_protocol.types import Json, RunKind
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store.journal import newest


def handlers(engine: Engine) -> dict[str, Handler]:
    care = engine.keepers.care

    async def queue(context: Context, kind: RunKind, params: Json | None = None) -> RunReply:
        run_id, seq = await engine.db.write(lambda tx: care.queue(tx, kind, context.caller.user, "by hand", params))
        return RunReply(run=await engine.queue.get(run_id), seq=seq)

    async def nothing() -> RunReply:
        return RunReply(run=None, seq=await engine.db.read(newest))

    async def status(context: Context, params: NoParams) -> StoreStatusReply:
        as_of = await engine.db.read(engine.journal.as_of)
        use = await care.status()
        seen = [one for one in use.snapshots if context.visible(one.channel)]
        return StoreStatusReply(**(msgspec.structs.asdict(use) | {"snapshots": seen}), as_of=as_of)

    async def gc(context: Context, params: StoreGc) -> StoreGcReply:
        found = await care.look()
        reply = await nothing() if params.dry_run else await queue(context, RunKind.GC)
        return StoreGcReply(
            run=reply.run, blobs=len(found.unneeded), bytes=found.unneeded_bytes, use=found.use, seq=reply.seq
        )

    async def scrub(context: Context, params: StoreScrub) -> RunReply:
        return await nothing() if params.dry_run else await queue(context, RunKind.SCRUB)

    async def backup(context: Context, params: DaemonBackup) -> RunReply:
        place = await asyncio.to_thread(engine.keepers.backups.place, params.path)
        return await nothing() if params.dry_run else await queue(context, RunKind.BACKUP, {"path": str(place)})

    return {"store.status": status, "store.gc": gc, "store.scrub": scrub, "daemon.backup": backup}
