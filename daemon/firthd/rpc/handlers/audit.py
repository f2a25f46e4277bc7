"""The handlers of the group audit."""

from firth_protocol.methods import AuditList
from firth_protocol.types import AuditEntry, Page
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store import audit, paging
from firthd.store.database import Reader


def handlers(engine: Engine) -> dict[str, Handler]:
    async def list_(context: Context, params: AuditList) -> Page[AuditEntry]:
        async def body(r: Reader) -> Page[AuditEntry]:
            before = paging.decode(params.cursor, "audit")["page_key"]
            found = await audit.page(r, query=params.query, before=before, limit=params.limit + 1)
            items, following = paging.cut("audit", found, params.limit, lambda entry: (None, entry.id))
            return Page(items=items, next_cursor=following, as_of=await engine.journal.as_of(r))

        return await engine.db.read(body)

    return {"audit.list": list_}
