"""A mirror of a CRAN-like source, from its index to what R's clients get."""

import asyncio
import gzip
import hashlib
import json
from pathlib import Path

import pytest

from firth_protocol.errors import Invalid
from firth_protocol.types import Family, RunState
from firthd.clock import utc_day
from firthd.families.r import rds
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.cran import CONTRIB, Cran, packages, stanza, tarball
from tests.support.r_world import World, world
from tests.support.upstream import Fault

ARCHIVE = f"{CONTRIB}/Archive"


async def the_plain_index_goes_out_packed(w: World) -> None:
    """Clients that take gzip get it, under a validator of its own; others get the plain text."""
    plain = await w.get("src/contrib/PACKAGES")
    packed = await w.get("src/contrib/PACKAGES", accept_encoding="br, gzip;q=0.8")
    refused = await w.get("src/contrib/PACKAGES", accept_encoding="gzip;q=0, *")
    assert gzip.decompress(packed.body) == plain.body == refused.body
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert {reply.headers["Vary"] for reply in (plain, packed)} == {"Accept-Encoding"}
    assert packed.headers["ETag"] != plain.headers["ETag"]
    again = await w.get("src/contrib/PACKAGES", accept_encoding="gzip", if_none_match=packed.headers["ETag"])
    assert again.status == 304
    other = await w.get("src/contrib/PACKAGES.gz", accept_encoding="gzip")
    assert other.body == packed.body
    assert "Content-Encoding" not in other.headers


async def test_a_passive_mirror_is_served_and_browsed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        assert (await w.get("src/contrib/PACKAGES")).status == 404  # no mirror yet
        run = await w.mirror()
        assert run.state is RunState.COMPLETED, run
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        assert not w.upstream.asked("*.tar.gz")
        assert (await w.get("src/contrib/alpha_1.1.tar.gz")).body == tarball("alpha", "1.1")
        assert (await w.get("src/contrib/Archive/alpha/alpha_1.0.tar.gz")).body == tarball("alpha", "1.0")
        for absent in ("src/contrib/alpha_9.tar.gz", "bin/windows/contrib/4.3/PACKAGES", "web/packages/", "TIME", ""):
            assert (await w.get(absent)).status == 404, absent
        alpha = await w.call("package.get", channel="stats", family=Family.R, name="alpha")
        assert (alpha.versions, alpha.dependants) == (["1.1", "1.0"], ["beta"])
        assert [(file.filename, file.size) for file in alpha.files] == [
            ("alpha_1.1.tar.gz", len(tarball("alpha", "1.1"))),
            ("alpha/alpha_1.0.tar.gz", len(tarball("alpha", "1.0"))),
        ]
        beta = await w.call("package.get", channel="stats", family=Family.R, name="beta")
        assert beta.dependencies == ["R (>= 3.5.0)", "methods", "alpha (>= 1.0)"]
        assert beta.files[0].depends == ["R (>= 3.5.0)", "methods", "alpha (>= 1.0)"]
        channel = await w.call("channel.get", channel="stats")
        assert channel.addresses.r == f"{w.daemon.url}/repo/stats/cran"
        assert channel.addresses.r in channel.addresses.setup["R"]
        await the_plain_index_goes_out_packed(w)
        await what_renv_and_pak_ask_for_is_there(w)
        w.upstream.requests.clear()
        assert (await w.run()).generation is None
        assert sorted((seen.path, seen.status) for seen in w.upstream.requests) == [
            ("src/contrib/Meta/archive.rds", 304),
            ("src/contrib/Meta/current.rds", 404),
            ("src/contrib/PACKAGES.gz", 304),
        ]


async def what_renv_and_pak_ask_for_is_there(w: World) -> None:
    """The requests that they make, one after the other: a server that answers otherwise is taken for another kind."""
    async with w.http.head(f"{w.daemon.url}/repo/stats/cran/src/contrib/PACKAGES") as reply:
        assert (reply.status, int(reply.headers["Content-Length"]) > 0) == (200, True)
        assert "nexus" not in reply.headers.get("Server", "").lower()
        assert "x-artifactory-id" not in reply.headers
    assert (await w.get("")).status == 404
    for path in ("Archive/alpha/alpha_1.0.tar.gz", "Archive/alpha/alpha_1.1.tar.gz", "alpha_1.1.tar.gz"):
        async with w.http.head(f"{w.daemon.url}/repo/stats/cran/src/contrib/{path}") as reply:
            assert reply.status == 200, path
    # A package may move to the archive between the index and its tarball: pak asks for both places.
    assert (await w.get("src/contrib/Archive/alpha/alpha_1.1.tar.gz")).body == tarball("alpha", "1.1")
    pak = {"accept_encoding": "deflate, gzip, br, zstd", "user_agent": "R (4.2.2 x86_64)"}
    packed = await w.get("src/contrib/PACKAGES.gz", **pak)
    assert "Content-Encoding" not in packed.headers
    assert (await w.get("src/contrib/PACKAGES.gz", if_none_match=packed.headers["ETag"], **pak)).status == 304
    assert (await w.get("src/contrib/Meta/archive.rds")).status == 200


async def test_what_moves_to_the_archive_keeps_its_digests(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        first = await w.mirror("active")
        assert (first.state, first.counts.active) == (RunState.COMPLETED, 3)
        w.cran.put("alpha", "1.2")
        w.upstream.requests.clear()
        run = await w.run()
        assert (run.state, run.counts.added, run.counts.removed) == (RunState.COMPLETED, 2, 1)
        assert [seen.path for seen in w.upstream.asked("*.tar.gz")] == ["src/contrib/alpha_1.2.tar.gz"]
        alpha = await w.call("package.get", channel="stats", family=Family.R, name="alpha")
        moved = next(file for file in alpha.files if file.filename == "alpha/alpha_1.1.tar.gz")
        assert moved.sha256 == hashlib.sha256(tarball("alpha", "1.1")).hexdigest()
        assert moved.md5 == hashlib.md5(tarball("alpha", "1.1")).hexdigest()
        for place in ("src/contrib", "src/contrib/Archive/alpha"):  # whoever read the index before finds it too
            assert (await w.get(f"{place}/alpha_1.1.tar.gz")).body == tarball("alpha", "1.1")


@pytest.mark.deep
async def test_what_moved_is_held_to_the_sum_that_it_had(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror()
        w.cran.archive("beta", listed=False)
        size = len(w.upstream.files[f"{ARCHIVE}/beta/beta_2.0-1.tar.gz"])
        w.upstream.files[f"{ARCHIVE}/beta/beta_2.0-1.tar.gz"] = bytes(size)
        w.cran.index()
        await w.run()
        assert await w.listed() == ["alpha 1.1"]
        reply = await w.get("src/contrib/Archive/beta/beta_2.0-1.tar.gz")
        assert reply.status == 502, reply
        assert b"md5" in reply.body.lower()


async def test_a_tarball_that_moves_while_a_run_goes_on_is_found(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.cran.archive("beta", listed=False)  # the index of sources still lists it
        w.upstream.files[f"{CONTRIB}/PACKAGES"] += stanza("beta", "2.0-1", tarball("beta", "2.0-1")) + b"\n\n"
        w.upstream.files[f"{CONTRIB}/beta_2.0-1.tar.gz"] = b""
        w.cran.index()
        del w.upstream.files[f"{CONTRIB}/beta_2.0-1.tar.gz"]
        content = tarball("beta", "2.0-1", Imports="alpha (>= 1.0)", Depends="R (>= 3.5.0), methods")
        listed = packages([stanza("alpha", "1.1", tarball("alpha", "1.1")), stanza("beta", "2.0-1", content)])
        w.upstream.files[f"{CONTRIB}/PACKAGES.gz"] = gzip.compress(listed)
        run = await w.mirror("active", filters={"archive": False})
        assert run.state is RunState.COMPLETED, run
        assert (await w.get("src/contrib/beta_2.0-1.tar.gz")).body == content
        lazy = await w.mirror("passive", channel="other", filters={"archive": False})
        assert lazy.state is RunState.COMPLETED
        assert (await w.get("src/contrib/beta_2.0-1.tar.gz", at="/repo/other/cran/")).body == content
        assert not w.upstream.asked(f"{ARCHIVE}/alpha*")


async def test_filters_leave_out_packages_the_archive_and_platforms(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        windows = b"PK not really"
        for folder in ("bin/windows/contrib/4.3", "bin/windows/contrib/4.4", "bin/macosx/big-sur-arm64/contrib/4.4"):
            w.upstream.files[f"{folder}/PACKAGES"] = packages(
                [stanza("alpha", "1.1", windows, Built="R 4.3.1; ; x; w")]
            )
        w.upstream.files["bin/windows/contrib/4.3/alpha_1.1.zip"] = windows
        run = await w.mirror(filters={"packages": ["alpha"], "archive": False})
        assert run.counts.added == 1
        assert await w.listed() == ["alpha 1.1"]
        assert (await w.get("src/contrib/Archive/alpha/alpha_1.0.tar.gz")).status == 404
        assert list(rds.read(gzip.decompress((await w.get("src/contrib/Meta/archive.rds")).body)).values) == []
        beta = await w.call("package.list", channel="stats", query="beta")
        assert beta.items == []
        taken = {"platforms": ["source", "windows"], "r_versions": ["4.3"]}
        await w.call("mirror.update", mirror="stats:m", revision=1, filters=taken)
        assert (await w.run()).state is RunState.COMPLETED
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        assert await w.listed("bin/windows/contrib/4.3") == ["alpha 1.1"]
        assert (await w.get("bin/windows/contrib/4.3/alpha_1.1.zip")).body == windows
        assert (await w.get("bin/windows/contrib/4.4/PACKAGES")).status == 404
        await w.call("mirror.update", mirror="stats:m", revision=2, filters={"platforms": ["macos"]})
        run = await w.run()
        assert run.state is RunState.COMPLETED, run
        assert await w.listed() == await w.listed("bin/windows/contrib/4.3") == []  # empty, and no page of errors
        assert await w.listed("bin/macosx/big-sur-arm64/contrib/4.4") == ["alpha 1.1"]


@pytest.mark.deep
async def test_a_narrower_filter_is_no_shrinking(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for number in range(150):
            w.upstream.files[f"{CONTRIB}/p{number}x_1.0.tar.gz"] = b"x"
        listed = packages(stanza(f"p{number}x", "1.0", b"x") for number in range(150))
        w.upstream.files[f"{CONTRIB}/PACKAGES.gz"] = gzip.compress(listed)
        await w.mirror(filters={"archive": False})
        await w.call("mirror.update", mirror="stats:m", revision=1, filters={"archive": False, "packages": ["p7x"]})
        run = await w.run()
        assert (run.state, run.counts.removed) == (RunState.COMPLETED, 149)
        assert await w.listed() == ["p7x 1.0"]


async def test_an_empty_repository_is_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.upstream.files.clear()
        Cran(w.upstream.files)
        run = await w.mirror()
        assert run.state is RunState.COMPLETED, run
        assert await w.listed() == []
        assert (await w.get("src/contrib/Meta/archive.rds")).status == 200
        again = await w.run()
        assert again.generation is None


@pytest.mark.deep
async def test_a_file_of_no_bytes_is_an_empty_repository(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.upstream.files.clear()
        w.upstream.files["src/contrib/PACKAGES"] = b""
        plain = await w.mirror(channel="other")
        assert plain.state is RunState.COMPLETED, plain
        assert await w.listed(at="/repo/other/cran/") == []


async def test_a_record_that_r_cannot_take_is_left_out_and_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        odd = [stanza("alpha", "1.0b"), stanza("gamma", "1.0", Depends="R (>=3.5)"), b"# nothing"]
        content = gzip.decompress(w.upstream.files[f"{CONTRIB}/PACKAGES.gz"]) + packages(odd)
        w.upstream.files[f"{CONTRIB}/PACKAGES.gz"] = gzip.compress(content)
        run = await w.mirror()
        assert (run.state, run.counts.failed) == (RunState.INCOMPLETE, 3)
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        details = await w.call("mirror.details", mirror="stats:m")
        told = {one.filename: one.reason for one in details.failed}
        assert "cannot compare" in told["alpha_1.0b.tar.gz"]
        assert "(R (>=3.5))" in told["gamma_1.0.tar.gz"]
        assert "no field" in told["record 5"]


@pytest.mark.deep
async def test_several_places_and_names_of_files_are_kept(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        content = {name: tarball("gamma", name) for name in ("1.0", "1.1")}
        listed = [
            stanza("gamma", "1.0", content["1.0"], Path="4.3.0/Recommended"),
            stanza("gamma", "1.1", content["1.1"], File="0123abcd.tar.gz"),
        ]
        w.upstream.files[f"{CONTRIB}/PACKAGES.gz"] = gzip.compress(packages(listed))
        w.upstream.files[f"{CONTRIB}/4.3.0/Recommended/gamma_1.0.tar.gz"] = content["1.0"]
        w.upstream.files["elsewhere"] = content["1.1"]
        w.upstream.fail(f"{CONTRIB}/0123abcd.tar.gz", Fault(redirect="/elsewhere"), times=None)
        await w.mirror()
        assert await w.listed() == ["gamma 1.1", "gamma 1.0"]
        assert (await w.get("src/contrib/4.3.0/Recommended/gamma_1.0.tar.gz")).body == content["1.0"]
        assert (await w.get("src/contrib/0123abcd.tar.gz")).body == content["1.1"]


def pages(files: dict[str, bytes], folder: str) -> "dict[str, bytes]":
    """Return what a server shows of a folder: a page each for it and for those in it."""
    below = [path.removeprefix(f"{folder}/") for path in files if path.startswith(f"{folder}/")]
    shown = {f"{folder}/": sorted({f"{path.partition('/')[0]}/" for path in below})}
    for name in shown[f"{folder}/"]:
        shown[f"{folder}/{name}"] = sorted(path.removeprefix(name) for path in below if path.startswith(name))
    head = '<a href="../">up</a><a href="?C=M;O=A">sort</a><a href="https://other.example.org/x_1.tar.gz">x</a>'
    return {
        path: (head + "".join(f'<A class=x HREF="{name}">{name}</A> 1K' for name in names)).encode()
        for path, names in shown.items()
    }


@pytest.mark.deep
async def test_an_archive_without_a_table_is_read_by_its_pages(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        del w.upstream.files[f"{CONTRIB}/Meta/archive.rds"]
        for path, page in pages(w.upstream.files, ARCHIVE).items():
            w.upstream.files[path] = page
            w.upstream.content_types[path] = "text/html"
        run = await w.mirror("active")
        assert (run.state, run.counts.active) == (RunState.COMPLETED, 3), run
        assert (await w.get("src/contrib/Archive/alpha/alpha_1.0.tar.gz")).body == tarball("alpha", "1.0")
        archive = rds.read(gzip.decompress((await w.get("src/contrib/Meta/archive.rds")).body))
        assert list(archive.things()[0].attribute("row.names").texts()) == ["alpha/alpha_1.0.tar.gz"]
        assert (await w.run()).generation is None


@pytest.mark.deep
async def test_an_archive_without_a_table_is_read_from_the_disk(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        del w.upstream.files[f"{CONTRIB}/Meta/archive.rds"]
        folder = tmp_path / "tree"
        for path, content in w.upstream.files.items():
            if not path.endswith("/"):
                file = folder / path
                await asyncio.to_thread(file.parent.mkdir, parents=True, exist_ok=True)
                await asyncio.to_thread(file.write_bytes, content)
        run = await w.mirror("active", channel="disk", source=folder.as_uri())
        assert (run.state, run.counts.active) == (RunState.COMPLETED, 3), run
        assert (await w.get("src/contrib/Archive/alpha/alpha_1.0.tar.gz", at="/repo/disk/cran/")).status == 200


async def test_firth_mirrors_firth(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror()
        w.cran.put("alpha", "1.2")
        await w.run()
        first = await w.digest("stats")
        for number, root in enumerate(("api/repo",)):
            name = f"second{number}"
            run = await w.mirror("active", channel=name, source=f"{w.daemon.url}/{root}/stats/cran")
            assert run.state is RunState.COMPLETED, run
            assert await w.digest(name) == first
            assert (await w.get("src/contrib/alpha_1.2.tar.gz", at=f"/repo/{name}/cran/")).body == tarball(
                "alpha", "1.2"
            )
            assert await w.listed(at=f"/repo/{name}/cran/") == await w.listed()


@pytest.mark.deep
async def test_the_form_that_is_there_is_read(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.mirror()
        forms = {end: (await w.get(f"src/contrib/PACKAGES{end}")).body for end in ("", ".gz", ".rds")}
        digests = set()
        for number, (end, content) in enumerate(forms.items()):
            for other in forms:
                w.upstream.files.pop(f"{CONTRIB}/PACKAGES{other}", None)
            w.upstream.files[f"{CONTRIB}/PACKAGES{end}"] = content
            run = await w.mirror(channel=f"c{number}")
            assert run.state is RunState.COMPLETED, run
            digests.add(await w.digest(f"c{number}"))
        assert digests == {await w.digest("stats")}


async def test_what_stands_at_a_source_is_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        w.upstream.files["bin/windows/contrib/4.4/PACKAGES.gz"] = gzip.compress(b"")
        found = await w.call("mirror.check", type="r", source=f"{w.upstream.url}/src/contrib/")
        assert found.subdirs == ["src/contrib", "src/contrib/Archive", "bin/windows/contrib/4.4"]
        assert any("was left off" in warning for warning in found.warnings)
        with pytest.raises(Invalid, match="there is a CRAN root"):
            await w.call("mirror.check", type="conda", source=w.upstream.url)
        with pytest.raises(Invalid, match="is not a CRAN root"):
            await w.call("mirror.check", type="r", source=f"{w.upstream.url}/nothing")
        with pytest.raises(Invalid, match="has no filter"):
            await w.mirror(filters={"subdirs": ["noarch"]})


FAULTS = {
    "500": Fault(status=500),
    "gone": Fault(status=404),
    "refused": Fault(status=403),
    "a page": Fault(status=200, body=b"<html>down</html>", headers={"Content-Type": "text/html"}),
    "cut": Fault(cut_after=20),
    "dropped": Fault(drop=True),
    "slow": Fault(pace_s=0.05, chunk_bytes=64),
    "other bytes": Fault(body=b"Package: alpha\nVersion: 9.9\n" * 40, no_validators=True),
}
USUAL = {("file", "other bytes")}
TABLE = [
    pytest.param(where, name, marks=() if (where, name) in USUAL else pytest.mark.deep)
    for where in ("index", "archive", "file")
    for name in FAULTS
]


@pytest.mark.parametrize(("where", "name"), TABLE)
async def test_faults_of_a_source(tmp_path: Path, where: str, name: str) -> None:
    """What fails is told, and what clients have stays as it was; the run after it puts all right."""
    async with world(tmp_path) as w:
        await w.mirror("active")
        before, after = ["alpha 1.1", "beta 2.0-1"], ["alpha 1.2", "beta 2.0-1", "gamma 1.0"]
        w.cran.put("gamma", "1.0")
        w.cran.put("alpha", "1.2")
        paths = {
            "index": f"{CONTRIB}/PACKAGES*",
            "archive": f"{CONTRIB}/Meta/archive.rds",
            "file": "*/gamma_1.0.tar.gz",
        }
        w.upstream.fail(paths[where], FAULTS[name], times=None)
        run = await w.run()
        if name == "slow":
            assert (run.state, await w.listed()) == (RunState.COMPLETED, after), run
        elif where == "file":
            assert (run.state, run.counts.failed) == (RunState.INCOMPLETE, 1), run
            assert await w.listed() == after[:2]
        elif (where, name) != ("index", "other bytes"):
            # An index that is gone is guarded above a hundred packages; below that its packages are retired and told.
            gone = [] if where == "index" else after
            assert await w.listed() == (before if run.state is RunState.FAILED else gone), run
        assert (await w.get("src/contrib/alpha_1.1.tar.gz")).body == tarball("alpha", "1.1")
        w.upstream.heal()
        run = await w.run(accept_removals=True)
        assert run.state is RunState.COMPLETED, run
        assert await w.listed() == after
        assert (await w.get("src/contrib/gamma_1.0.tar.gz")).body == tarball("gamma", "1.0")
        assert (await w.get("src/contrib/Archive/alpha/alpha_1.1.tar.gz")).body == tarball("alpha", "1.1")


async def test_conda_and_r_live_in_one_channel(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        folder = ChannelFolder(tmp_path / "conda")
        folder.add(PackageSpec(name="zlib"))
        await asyncio.to_thread(folder.write)
        conda = {"name": "c", "type": "conda", "source": (tmp_path / "conda").as_uri()}
        await w.mirror("active")
        assert (await w.mirror("active", **conda)).state.ended
        assert (await w.run("stats:c")).state is RunState.COMPLETED
        both = await w.call("channel.get", channel="stats")
        digest = await w.digest("stats")
        assert {one.family for one in both.families if one.artifacts} == {Family.CONDA, Family.R}
        await w.call("channel.freeze", channel="stats")
        w.cran.put("alpha", "1.2")
        folder.add(PackageSpec(name="xz"))
        await asyncio.to_thread(folder.write)
        for mirror in ("stats:m", "stats:c"):
            await w.run(mirror)
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        reply = await w.call("channel.unfreeze", channel="stats")
        assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED
        assert await w.listed() == ["alpha 1.2", "beta 2.0-1"]
        names = json.loads((await w.get("noarch/repodata.json", at="/repo/stats/")).body)
        assert len(names["packages.conda"]) == 2
        then = f"/snapshot/{both.generation}/stats/"
        assert await w.listed(at=f"{then}cran/") == ["alpha 1.1", "beta 2.0-1"]
        assert len(json.loads((await w.get("noarch/repodata.json", at=then)).body)["packages.conda"]) == 1
        today = f"/snapshot/{utc_day(w.clock.now_ms())}/stats/cran/"
        assert await w.listed(at=today) == ["alpha 1.2", "beta 2.0-1"]
        reply = await w.call("channel.rollback", channel="stats", generation=both.generation)
        assert (await w.daemon.ended(reply.run.id)).state is RunState.COMPLETED
        assert await w.listed() == ["alpha 1.1", "beta 2.0-1"]
        assert (await w.get("src/contrib/alpha_1.1.tar.gz")).body == tarball("alpha", "1.1")
        assert await w.digest("stats") == digest
