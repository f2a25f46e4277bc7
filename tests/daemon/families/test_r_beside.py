"""What lies beside an R index: the table of times and sizes, what names another server, older plain indexes."""

import asyncio
import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from firth_protocol.types import Family, Filters, MirrorMode, RunState
from firthd.clock import rfc3339
from firthd.families.base import InvalidRecordError, SourceRecord, Spool
from firthd.families.r import rds
from firthd.families.r.formats import FORMATS
from firthd.families.r.names import SOURCES
from firthd.families.r.records import as_listed, facts
from firthd.families.r.requests import requests
from firthd.store.worker_reads import ShownRow
from tests.support.cran import CONTRIB, MTIME, current_rds, tarball
from tests.support.r_world import world

CURRENT = f"{CONTRIB}/Meta/current.rds"
A = b"Package: alpha\nVersion: 1.0"
MD5 = b"\nMD5sum: " + b"ab" * 16


def read(folder: Path, content: bytes, beside: bytes | None = None) -> tuple[list[SourceRecord], list[str]]:
    """Return the records of an index, and what is told of it: reasons of what is left out, then notes."""
    index, table = folder / "PACKAGES", folder / "current.rds"
    index.write_bytes(content)
    if beside is not None:
        table.write_bytes(beside)
    files = () if beside is None else (str(table),)
    listing = FORMATS.read(Spool(part=SOURCES, file=str(index), encoding="txt", beside=files), 1 << 22)
    records, told = [], []
    for entry in listing:
        try:
            records.append(FORMATS.record(entry, FORMATS.fingerprint(entry.raw)))
        except InvalidRecordError as error:
            told.append(str(error))
    return records, [*told, *listing.notes]


def shown(record: SourceRecord) -> ShownRow:
    fields = dict.fromkeys(ShownRow._fields, None) | {"raw": bytes(record.raw), "fingerprint": record.fingerprint}
    return ShownRow(**fields)  # type: ignore[arg-type]


def table(**times: int) -> bytes:
    return current_rds(
        {f"{CONTRIB}/{name}_1.0.tar.gz": b"12345" for name in times}, {f"{n}_1.0.tar.gz": t for n, t in times.items()}
    )


def test_a_table_beside_the_index_tells_times_and_sizes(tmp_path: Path) -> None:
    content = A + b"\n\nPackage: beta\nVersion: 1.0" + MD5 + b"\nPublished: 2020-02-03\n\nPackage: gone\nVersion: 1.0\n"
    bare, _ = read(tmp_path, content)
    dated, notes = read(tmp_path, content, table(alpha=1_600_000_000, beta=1_600_000_000))
    assert notes == []
    assert [(one.size, one.timestamp and one.timestamp // 1000) for one in dated] == [
        (5, 1_600_000_000),
        (None, 1_580_688_000),  # a digest tells whether the file is right, and the record its own day
        (None, None),
    ]
    assert facts(SOURCES, bytes(dated[0].raw)).timestamp == 1_600_000_000_000
    assert [as_listed(bytes(one.raw)) for one in dated] == [bytes(one.raw) for one in bare]
    assert [FORMATS.identity(shown(one)) for one in dated] == [one.fingerprint for one in bare]
    later, _ = read(tmp_path, content, table(alpha=1_700_000_000, beta=1_700_000_000))
    assert [one.fingerprint for one in later] == [one.fingerprint for one in dated]  # copied anew, not another package
    assert dated[0].fingerprint != bare[0].fingerprint


@pytest.mark.parametrize(
    "beside",
    [
        b"<html>",
        b"",
        gzip.compress(rds.written(rds.texts(["x"]))),
        gzip.compress(rds.written(rds.things([], names=rds.texts([])))),
        table(alpha=1)[:-9],
        gzip.compress(gzip.decompress(table(alpha=1))[:-40]),
    ],
    ids=["a page", "nothing", "no table", "no names", "cut", "cut inside"],
)
def test_a_table_that_is_none_is_told_and_left_out(tmp_path: Path, beside: bytes) -> None:
    (record,), notes = read(tmp_path, A, beside)
    assert (record.size, record.timestamp) == (None, None)
    assert notes
    assert "left out" in notes[0]


def test_hostile_tables_and_fields_of_ours_say_nothing(tmp_path: Path) -> None:
    odd = rds.things(
        [rds.reals([-5.0, None, 1e300, 7.0]), rds.reals([float("nan"), -1.0, 1e18, 2.0**60])],
        names=rds.texts(["size", "mtime"]),
        row_names=rds.texts([f"{name}_1.0.tar.gz" for name in ("alpha", "beta", "gamma", "../../delta")]),
    )
    content = b"\n\n".join(b"Package: %b\nVersion: 1.0" % name for name in (b"alpha", b"beta", b"gamma"))
    records, _ = read(tmp_path, content, gzip.compress(rds.written(odd)))
    assert [(one.size, one.timestamp) for one in records] == [(None, None)] * 3
    (record,), _ = read(tmp_path, A + b"\nFirth-Now-Size: 1\nFirth-Size: 2\nFirth-X: y\nFirth-Modified: 3\nTitle: T")
    assert (bytes(record.raw), record.size, record.timestamp) == (A + b"\nTitle: T", None, None)


def test_no_client_is_sent_to_another_server(tmp_path: Path) -> None:
    content = A + b"\nDownloadURL: https://elsewhere.example.org/x.tar.gz\nURL: https://u:secret@h.example.org/a b@c"
    (record,), _ = read(tmp_path, content)
    assert bytes(record.raw) == A + b"\nURL: https://h.example.org/a b@c"


@pytest.mark.parametrize("ending", [b"\r", b"\r\n", b"\n"])
def test_lines_end_as_r_has_them(tmp_path: Path, ending: bytes) -> None:
    """R takes a carriage return alone for the end of a line: passed on inside a value it stops the whole repository."""
    lines = [A, MD5.strip(), b"", b"Package: beta", b"Version: 2.0", b"Title: x\ry"]
    content = b"\n".join(lines).replace(b"\n", ending)
    taken, told = read(tmp_path, content)
    assert ([one.filename for one in taken], len(told)) == (["alpha_1.0.tar.gz"], 1)
    cut = content[: content.index(b"Title")] + b"Tit"
    taken, told = read(tmp_path, cut)
    assert ([one.name for one in taken], len(told)) == (["alpha"], 1)


def test_the_table_is_asked_for_where_it_was_and_now_and_then() -> None:
    asked = requests({}, Filters(archive=False), True, MirrorMode.PASSIVE)
    assert [ask.part for ask in next(asked).asks] == [SOURCES]
    only_binaries = requests({}, Filters(platforms=["windows"], r_versions=["4.3"]), True, MirrorMode.PASSIVE)
    assert [ask.part for ask in next(only_binaries).asks] == ["bin/windows/contrib/4.3"]


@pytest.mark.deep
async def test_times_of_a_source_reach_clients_and_nothing_is_fetched_twice(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("active", filters={"archive": False})
        before = await w.digest("stats")
        alpha = await w.call("package.get", channel="stats", family=Family.R, name="alpha")
        assert alpha.files[0].timestamp is None
        w.upstream.files[CURRENT] = current_rds(w.upstream.files)
        w.upstream.requests.clear()
        run = await w.run()
        assert run.state is RunState.COMPLETED, run
        assert not w.upstream.asked("*.tar.gz")
        alpha = await w.call("package.get", channel="stats", family=Family.R, name="alpha")
        assert alpha.files[0].timestamp == rfc3339(MTIME * 1000)
        assert alpha.files[0].sha256 is not None
        assert await w.digest("stats") == before
        plain = (await w.get("src/contrib/PACKAGES")).body
        assert b"Firth" not in plain
        table = rds.read(gzip.decompress((await w.get("src/contrib/Meta/current.rds")).body))
        assert set(table.things()[3].numbers()) == {float(MTIME)}
        touched = dict.fromkeys(("alpha_1.1.tar.gz", "beta_2.0-1.tar.gz"), MTIME + 9)
        w.upstream.files[CURRENT] = current_rds(w.upstream.files, touched)
        generation = (await w.call("channel.get", channel="stats")).generation
        assert (await w.run()).state is RunState.COMPLETED
        assert (await w.call("channel.get", channel="stats")).generation == generation


def encodings(state: Path) -> set[str]:
    """Return how the plain indexes of older generations are kept."""
    with closing(sqlite3.connect(state / "firth.sqlite")) as connection:
        rows = connection.execute("SELECT encoding FROM object WHERE path LIKE '%/PACKAGES' AND until IS NOT NULL")
        return {row[0] for row in rows}


@pytest.mark.deep
async def test_older_generations_keep_the_plain_index_packed_and_serve_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror("passive")
        plain = (await w.get("src/contrib/PACKAGES")).body
        number = (await w.call("channel.get", channel="stats")).generation
        for version in ("1.2", "1.3"):
            w.cran.put("alpha", version)
            await w.run()
        old = f"/snapshot/{number}/stats/cran/"
        before = await w.get("src/contrib/PACKAGES", at=old)
        assert (before.body, before.headers["Content-Length"]) == (plain, str(len(plain)))
        part = await w.get("src/contrib/PACKAGES", at=old, range="bytes=10-19")
        assert (part.status, part.body) == (206, plain[10:20])
        assert await asyncio.to_thread(encodings, w.daemon.state) == {"gzip"}
        back = (await w.call("channel.rollback", channel="stats", generation=number)).run
        assert (await w.daemon.ended(back.id)).state is RunState.COMPLETED
        assert (await w.get("src/contrib/PACKAGES")).body == plain
        assert tarball("alpha", "1.1") == (await w.get("src/contrib/alpha_1.1.tar.gz")).body
