"""The handlers of the group package."""

from firth_protocol.methods import PackageGet, PackageList, PackageRemove, PackageRemoveReply, PackageRestore
from firth_protocol.types import Family, Package, PackageDetail, Page
from firthd.channels import browse
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler
from firthd.store.database import Reader


def handlers(engine: Engine) -> dict[str, Handler]:
    def url(channel: str, family: Family, part: str, filename: str) -> str:
        return f"{engine.base_url()}/repo/{channel}/{engine.families[family].address(part, filename)}"

    async def list_(context: Context, params: PackageList) -> Page[Package]:
        return await engine.page(lambda r: engine.governance.explanations.packages(r, params, engine.clock.now_ms()))

    async def get(context: Context, params: PackageGet) -> PackageDetail:
        async def body(r: Reader) -> PackageDetail:
            return await browse.package(
                r,
                engine.families,
                params.channel,
                params.family,
                params.name,
                as_of=await engine.journal.as_of(r),
                now_ms=engine.clock.now_ms(),
                url=url,
            )

        return await engine.needs.told(await engine.db.read(body))

    async def remove(context: Context, params: PackageRemove) -> PackageRemoveReply:
        return await engine.keepers.removal.remove(params, context.caller.user)

    async def restore(context: Context, params: PackageRestore) -> PackageRemoveReply:
        return await engine.keepers.removal.restore(params, context.caller.user)

    return {"package.list": list_, "package.get": get, "package.remove": remove, "package.restore": restore}
