"""Secrets of Python and R sources, of advisories and of the hook: none of them comes out, whatever a source repeats."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from msgspec import Struct

from firth_protocol.errors import FirthError
from firth_protocol.types import RunState
from tests.e2e.test_secrets import BEARER, PASSWORD, TOKEN, WRONG, Everything, clean, ended, watched
from tests.support.cran import Cran
from tests.support.python import sample_index
from tests.support.upstream import Fault, FaultyUpstream

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(240)]

CHANNELS = ("main", "second", "third", "fourth")
ASKED = (
    "simple/",
    "simple/beta/",
    "packages/beta/beta-2.0-py3-none-any.whl",
    "packages/beta/beta-1.0-py3-none-any.whl.metadata",
    "cran/src/contrib/PACKAGES",
    "cran/src/contrib/one_1.1.tar.gz",
    "cran/src/contrib/Archive/one/one_1.0.tar.gz",
)


class Place(Struct, frozen=True, kw_only=True):
    """A source that asks for a secret, and the fields of the mirror that has it."""

    upstream: FaultyUpstream
    secret: str
    fields: dict[str, Any]


@asynccontextmanager
async def places() -> AsyncIterator[list[Place]]:
    """Give sources of both families, with each form of a secret that people use there."""
    secret = quote(PASSWORD, safe="")
    async with (
        FaultyUpstream(basic=("me", PASSWORD)) as python,
        FaultyUpstream(bearer=BEARER) as bearer,
        FaultyUpstream(basic=("me", PASSWORD)) as basic,
        FaultyUpstream(token=TOKEN) as token,
    ):
        index = sample_index()
        index.add("alpha", "1.0")
        for upstream in (python, bearer):
            index.serve(upstream)
        for upstream in (basic, token):
            cran = Cran(upstream.files)
            cran.put("one", "1.0")
            cran.put("one", "1.1")
        named = {"filters": {"projects": ["alpha", "beta"]}}
        credentials = {"user": "me", "password": PASSWORD}
        yield [
            Place(
                upstream=python,
                secret=PASSWORD,
                fields={"type": "python", "source": f"{python.url}/simple", "credentials": credentials} | named,
            ),
            Place(
                upstream=bearer,
                secret=BEARER,
                fields={"type": "python", "source": f"{bearer.url}/simple/", "credentials": {"bearer": BEARER}},
            ),
            Place(upstream=basic, secret=PASSWORD, fields={"type": "r", "source": f"http://me:{secret}@{basic.host}"}),
            Place(upstream=token, secret=TOKEN, fields={"type": "r", "source": f"{token.url}/t/{TOKEN}"}),
        ]


def faults(secret: str) -> list[Fault]:
    """Return ways for a source to fail that repeat what it was told."""
    told = quote(secret, safe="")
    return [
        Fault(status=403, reason=f"{secret} is no good", headers={"X-Asked": secret}, body=secret.encode()),
        Fault(redirect=f"http://me:{told}@127.0.0.1:1/t/{told}/x?sig={told}"),
        Fault(body=f"<html>{secret}".encode()),
        Fault(drop=True),
    ]


async def fails(daemon: Everything, base: str, mirror: int, place: Place) -> None:
    """Let a source fail in each way, for a run and for clients."""
    assert sum([await daemon.fetch(f"{base}/{path}") == 200 for path in ASKED]) >= 3
    for fault in faults(place.secret):
        place.upstream.fail("*", fault, times=None)
        await ended(daemon, (await daemon.call("mirror.run", mirror=mirror)).run)
        for path in ASKED:
            await daemon.fetch(f"{base}/{path}")
        place.upstream.heal()


async def test_no_secret_of_any_family_comes_out(tmp_path: Path) -> None:
    hook = f"http://127.0.0.1:1/services/{TOKEN}?key={BEARER}"
    template = f'{{"text": "{{text}}", "key": "{WRONG}"}}'
    settings = f"[runs]\nmax_active = 6\n[upstream]\ntimeout_s = 3\n[notify]\nurl = '{hook}'\ntemplate = '{template}'\n"
    async with places() as all_places, watched(tmp_path, settings) as daemon:
        url = await daemon.process.url(daemon.client)
        mirrors = []
        for number, place in enumerate(all_places):
            await daemon.call("channel.create", name=CHANNELS[number])
            for wrong in (quote(place.secret, safe=""), WRONG):
                with contextlib.suppress(FirthError):
                    await daemon.call(
                        "mirror.check", type=place.fields["type"], source=f"http://me:{wrong}@{place.upstream.host}"
                    )
            made = await daemon.call(
                "mirror.create",
                channel=CHANNELS[number],
                name="m",
                run_now=True,
                also_from=["http://127.0.0.1:1/near"],
                **place.fields,
            )
            assert (await ended(daemon, made.run)).state is RunState.COMPLETED
            mirrors.append(made.mirror.id)
        async with asyncio.TaskGroup() as group:
            for channel, mirror, place in zip(CHANNELS, mirrors, all_places, strict=True):
                group.create_task(fails(daemon, f"{url}/repo/{channel}", mirror, place))
        for address in (
            f"http://me:{WRONG}@127.0.0.1:1/x",
            f"http://127.0.0.1:1/x?token={TOKEN}",
            "http://127.0.0.1:1/x",
        ):
            with contextlib.suppress(FirthError):
                made = await daemon.call("advisory.import", source=address)
                await ended(daemon, made.run)
        with contextlib.suppress(FirthError):
            await daemon.call("notify.test")
        await ended(daemon, (await daemon.call("daemon.backup", path="copy")).run)
        await daemon.call("policy.create", name="open", rules={})
        runs = [run.id for run in (await daemon.call("run.list", limit=1000)).items]
        await daemon.read_all(mirrors, runs, "python")
        for path in ("", "repo/main/", "metrics", "healthz"):
            await daemon.fetch(f"{url}/{path}")
        clean((await daemon.call("config.export")).document, "the document")
        daemon.look_at_state()
