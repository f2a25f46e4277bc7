"""The handlers of the group audit."""

from firth_protocol.methods import AuditList
from firth_protocol.types import AuditEntry, Page
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store import audit


def handlers(engine: Engine) -> dict[str, Handler]:
    async def list_(context: Context, params: AuditList) -> Page[AuditEntry]:
        return await engine.page(lambda r: audit.page(r, query=params.query, cursor=params.cursor, limit=params.limit))

    return {"audit.list": list_}
