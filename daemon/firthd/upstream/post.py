"""The only place that sends something outside: one request with a body, to an address of the settings."""

import asyncio
from urllib.parse import urlsplit

import aiohttp

from firth_protocol.errors import Upstream


async def post(url: str, body: bytes, media_type: str, timeout_s: float) -> None:
    """Post a body; redirects are not followed. Raises Upstream, whose text holds of the address only its host."""
    host = urlsplit(url).hostname
    limit = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(url, data=body, headers={"Content-Type": media_type}, allow_redirects=False) as answer,
        ):
            status = answer.status
    except TimeoutError:
        raise Upstream(f"{host} did not answer within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError, asyncio.IncompleteReadError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise Upstream(f"{host} cannot be reached: {why}") from None
    if not 200 <= status < 300:
        raise Upstream(f"{host} answered {status}")
