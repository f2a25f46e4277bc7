"""The handlers of the group schedule."""

from firth_protocol.methods import ScheduleNextParams
from firth_protocol.types import ScheduleNext
from firthd.engine import Engine
from firthd.rpc.dispatch import Context, Handler


def handlers(engine: Engine) -> dict[str, Handler]:
    async def next_(context: Context, params: ScheduleNextParams) -> ScheduleNext:
        return engine.coming(params.schedule, engine.clock.now_ms(), params.count)

    return {"schedule.next": next_}
