"""The handlers of the groups report and notify."""

from firth_protocol.methods import NoParams, ReportDownloads
from firth_protocol.types import DownloadCount, NotifyTest, TextPage
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store.database import Reader


def handlers(engine: Engine) -> dict[str, Handler]:
    async def downloads(context: Context, params: ReportDownloads) -> TextPage[DownloadCount]:
        await engine.usage.catch_up()  # what has just been downloaded is told, too

        async def body(r: Reader) -> TextPage[DownloadCount]:
            return await engine.usage.report(r, params, context.caller.patterns(), await engine.journal.as_of(r))

        return await engine.db.read(body)

    async def test(context: Context, params: NoParams) -> NotifyTest:
        return await engine.notifications.test()

    return {"report.downloads": downloads, "notify.test": test}
