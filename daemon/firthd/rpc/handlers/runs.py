"""The handlers of the group run."""

import msgspec

from firth_protocol.methods import RunGet, RunList, RunLog, RunParams, RunWait
from firth_protocol.types import LogLine, Page, Run
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.runs.queue import log_page


def handlers(engine: Engine) -> dict[str, Handler]:
    async def list_(context: Context, params: RunList) -> Page[Run]:
        patterns, store = context.caller.patterns(), context.visible("")
        return await engine.page(lambda r: engine.reports.runs_page(r, params, patterns, store=store))

    async def get(context: Context, params: RunParams | RunWait) -> RunGet:
        as_of = await engine.db.read(engine.journal.as_of)
        return _with_cursor(await engine.queue.get(params.run), as_of)

    async def log(context: Context, params: RunLog) -> Page[LogLine]:
        await engine.queue.flush_log(params.run)
        return await engine.page(lambda r: log_page(r, params.run, params.after, params.cursor, params.limit))

    async def wait(context: Context, params: RunWait) -> RunGet:
        await engine.queue.wait(params.run, params.timeout)
        return await get(context, params)  # the cursor first, then the run: what happens in between is told again

    return {"run.list": list_, "run.get": get, "run.log": log, "run.wait": wait}


def _with_cursor(run: Run, as_of: str) -> RunGet:
    return RunGet(**msgspec.structs.asdict(run), as_of=as_of)
