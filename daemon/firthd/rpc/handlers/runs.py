"""The handlers of the group run."""

import msgspec

from firth_protocol.methods import RunGet, RunList, RunLog, RunParams, RunWait
from firth_protocol.types import LogLine, Page, Run
from firthd.channels import browse
from firthd.engine import Engine
from firthd.mirrors.find import find
from firthd.rpc.dispatch import Context, Handler
from firthd.store import paging, runs
from firthd.store.database import Reader


def handlers(engine: Engine) -> dict[str, Handler]:
    async def list_(context: Context, params: RunList) -> Page[Run]:
        async def body(r: Reader) -> Page[Run]:
            mirror = await find(r, params.mirror) if params.mirror is not None else None
            channel = await browse.channel(r, params.channel) if params.channel is not None else None
            found, total = await runs.runs_page(
                r,
                mirror_id=mirror.id if mirror else None,
                channel_id=channel.id if channel else None,
                kind=params.kind,
                state=params.state,
                before=paging.decode(params.cursor, "runs")["page_key"],
                limit=params.limit + 1,
                patterns=context.caller.patterns(),
                store=context.visible(""),
            )
            page, following = paging.cut("runs", found, params.limit, lambda row: (None, row.id))
            items = [engine.queue.describe(row) for row in page]
            return Page(items=items, next_cursor=following, total=total, as_of=await engine.journal.as_of(r))

        return await engine.db.read(body)

    async def get(context: Context, params: RunParams | RunWait) -> RunGet:
        as_of = await engine.db.read(engine.journal.as_of)
        return _with_cursor(await engine.queue.get(params.run), as_of)

    async def log(context: Context, params: RunLog) -> Page[LogLine]:
        live = engine.queue.live(params.run)
        if live is not None:
            await live.flush()
        await engine.queue.row(params.run)

        async def body(r: Reader) -> Page[LogLine]:
            behind = paging.decode(params.cursor, "log")["page_key"]
            after = params.after if behind is None else behind
            lines = await runs.log_page(r, params.run, after, params.limit + 1)
            items, following = paging.cut("log", lines, params.limit, lambda line: (None, line.number))
            return Page(items=items, next_cursor=following, as_of=await engine.journal.as_of(r))

        return await engine.db.read(body)

    async def wait(context: Context, params: RunWait) -> RunGet:
        await engine.queue.wait(params.run, params.timeout)
        return await get(context, params)  # the cursor first, then the run: what happens in between is told again

    return {"run.list": list_, "run.get": get, "run.log": log, "run.wait": wait}


def _with_cursor(run: Run, as_of: str) -> RunGet:
    return RunGet(**msgspec.structs.asdict(run), as_of=as_of)
