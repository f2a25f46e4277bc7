"""The handlers of the groups rpc and daemon."""

from firth_protocol.methods import CheckReply, NoParams
from firth_protocol.openrpc import document
from firth_protocol.types import CheckResult, DaemonStatus, Json
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler


def handlers(engine: Engine) -> dict[str, Handler]:
    async def discover(context: Context, params: NoParams) -> Json:
        return document()

    async def status(context: Context, params: NoParams) -> DaemonStatus:
        return await engine.status(context.caller)

    async def check(context: Context, params: NoParams) -> CheckReply:
        found = await engine.check()
        checks = [CheckResult(name=name, ok=ok, text=text) for name, ok, text in found]
        return CheckReply(ok=all(one.ok for one in checks), checks=checks)

    return {"rpc.discover": discover, "daemon.status": status, "daemon.check": check}
