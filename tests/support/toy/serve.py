"""A daemon of its own process that knows the toy family beside the others; it works until it is killed."""

import asyncio
import os

from firthd import config
from firthd.service import running
from tests.support.toy.family import with_toy


async def serve() -> None:
    settings = config.load(config.Flags(), os.environ, os.geteuid()).settings
    async with running(settings, families=with_toy):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
