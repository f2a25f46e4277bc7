"""No failure of any kind shows a secret: not in the error, its data, its traceback, nor in the log."""

import logging
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest

from firth_protocol import errors
from firth_protocol.types import Credentials
from firthd.upstream.client import Source, Upstream
from tests.support.upstream import Fault, FaultyUpstream

SECRET = "S3cret/with+signs=&more"
SPELLINGS = (SECRET, quote(SECRET, safe=""), quote(SECRET), quote(SECRET, safe="").lower())

FORMS = {
    "token": Credentials(token=SECRET),
    "basic": Credentials(user="me", password=SECRET),
    "bearer": Credentials(bearer=SECRET),
}
FAULTS = {
    "status that repeats it": Fault(status=403, reason=f"no access for {SECRET}"),
    "trouble that repeats it": Fault(status=503, reason=f"https://me:{quote(SECRET, safe='')}@h.example.org is down"),
    "unauthorized": Fault(status=401),
    "pause": Fault(status=429, retry_after=9999),
    "redirect nowhere": Fault(redirect=f"ftp://h.example.org/t/{quote(SECRET, safe='')}/"),
    "redirect home": Fault(redirect=f"/t/{quote(SECRET, safe='')}/again?key={quote(SECRET, safe='')}"),
    "redirect away": Fault(redirect=f"http://me:{quote(SECRET, safe='')}@127.0.0.1:1/t/{quote(SECRET, safe='')}/x"),
    "dropped": Fault(drop=True, reset=True),
    "cut": Fault(cut_after=3, no_validators=True),
    "encoded": Fault(headers={"Content-Encoding": "br"}),
    "too large": Fault(body=b"x" * 2000),
    "no such place": Fault(status=404),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", FAULTS)
async def test_a_failure_shows_no_secret(
    server: FaultyUpstream,
    upstream: Upstream,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    form: str,
    kind: str,
) -> None:
    path = "noarch/repodata.json"
    content = b"0123456789"
    server.files |= {f"t/{SECRET}/{path}": content, path: content}
    server.fail("*", FAULTS[kind], times=None)
    url = f"{server.url}/t/{{token}}" if form == "token" else server.url
    source = Source(url=url, credentials=FORMS[form])
    told: list[str] = [repr(source), str(source)]
    with caplog.at_level(logging.DEBUG):
        try:
            told.append(repr(await upstream.fetch(source, path, tmp_path / "spool", max_bytes=1000)))
        except errors.FirthError as error:
            told += _everything(error)
        try:
            async with upstream.open(source, path) as body:
                told += [body.url, *[repr(chunk) async for chunk in body]]
        except errors.FirthError as error:
            told += _everything(error)
        try:
            told.append(repr(await upstream.head(source, path)))
            told.append((await upstream.peek(source, path)).url)
        except errors.FirthError as error:
            told += _everything(error)
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("firthd"))
    assert len(told) > 3
    for spelling in SPELLINGS:
        assert spelling not in "\n".join(told)
        assert spelling not in ours


@pytest.mark.parametrize(
    "proxy", ["http://me:{}@127.0.0.1:1", "socks5://me:{}@proxy.example.org", "me:{}@proxy.example.org:3128"]
)
@pytest.mark.parametrize("url", ["http://conda.example.org", "https://conda.example.org"])
async def test_a_proxy_that_fails_shows_no_secret(upstream: Upstream, proxy: str, url: str) -> None:
    source = Source(url=url, proxy=proxy.format(quote(SECRET, safe="")))
    with pytest.raises(errors.FirthError, match="proxy") as told:
        async with upstream.open(source, "x"):
            pass
    text = "\n".join([repr(source), *_everything(told.value)])
    assert not any(spelling in text for spelling in SPELLINGS)


def _everything(error: errors.FirthError) -> list[str]:
    return [str(error), repr(error), repr(error.wire()), "".join(traceback.format_exception(error))]
