"""The handlers of the group config."""

from firth_protocol.methods import ConfigApply, ConfigApplyReply, ConfigExport, ConfigExportReply
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler


def handlers(engine: Engine) -> dict[str, Handler]:
    async def export(context: Context, params: ConfigExport) -> ConfigExportReply:
        return await engine.installations.export(params, context.caller)

    async def apply(context: Context, params: ConfigApply) -> ConfigApplyReply:
        return await engine.installations.apply(params, context.caller)

    return {"config.export": export, "config.apply": apply}
