"""R installs from a channel with what it has on board, and reads its indexes as ours are meant."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from firthd.clock import utc_day
from tests.support.cran import tarball
from tests.support.r_client import needs_package, needs_r, r
from tests.support.r_world import World, world

INSTALL = """
options(repos = c(firth = "{url}"), warn = 2)
lib <- .libPaths()[1]
install.packages("beta", lib = lib, quiet = TRUE)
cat(beta::f(), "+", alpha::f(), "\\n")
"""

# What remotes::install_version does for a version that is not the current one.
OLD = """
repos <- "{url}"; options(warn = 2)
con <- gzcon(url(paste0(repos, "/src/contrib/Meta/archive.rds"), "rb")); archive <- readRDS(con); close(con)
path <- row.names(archive[["alpha"]])[1]
stopifnot(inherits(archive$alpha$mtime, "POSIXct"), archive$alpha$size > 0, !archive$alpha$isdir)
install.packages(paste0(repos, "/src/contrib/Archive/", path), repos = NULL, type = "source", quiet = TRUE)
cat(path, packageVersion("alpha") == "1.0", "\\n")
"""

# Versions that are not the current one: by their number, by a comparison, of a package that is no more.
REMOTES = """
options(repos = c(firth = "{url}"), warn = 2)
lib <- .libPaths()[1]
remotes::install_version("alpha", "1.0", lib = lib, quiet = TRUE, upgrade = "never")
stopifnot(packageVersion("alpha", lib) == "1.0")
remotes::install_version("alpha", ">= 1.1", lib = lib, quiet = TRUE, upgrade = "never")
stopifnot(packageVersion("alpha", lib) == "1.1")
remotes::install_version("gone", "0.1", lib = lib, quiet = TRUE, upgrade = "never")
cat(as.character(packageVersion("gone", lib)), "")
missing <- try(remotes::install_version("alpha", "7.7", lib = lib, quiet = TRUE), silent = TRUE)
cat(inherits(missing, "try-error"))
"""

LISTED = """
for (url in c({urls})) {{
  db <- available.packages(repos = url, ignore_repo_cache = TRUE, filters = list())
  cat(sort(paste(db[, "Package"], db[, "Version"])), sep = ",")
  cat("\\n")
}}
"""


async def test_r_installs_current_and_old_versions(tmp_path: Path) -> None:
    needs_r()
    library = tmp_path / "library"
    library.mkdir()
    async with world(tmp_path) as w:
        await w.mirror("passive")
        url = f"{w.daemon.url}/repo/stats/cran"
        assert (await r(INSTALL.format(url=url), library)).strip() == "beta 2.0-1 + alpha 1.1"
        assert (await r(OLD.format(url=url), library)).strip() == "alpha/alpha_1.0.tar.gz TRUE"


@pytest.mark.deep
@pytest.mark.parametrize("mode", ["passive", "active"])
async def test_remotes_installs_old_versions_out_of_the_archive(tmp_path: Path, mode: str) -> None:
    await needs_package("remotes")
    library = tmp_path / "library"
    library.mkdir()
    async with world(tmp_path) as w:
        w.cran.put("gone", "0.1")
        w.cran.archive("gone")
        await w.mirror(mode)
        places = [f"{w.daemon.url}/repo/stats/cran"]
        if mode == "passive":
            await w.call("channel.freeze", channel="stats")
            w.cran.put("alpha", "1.2")
            await w.run()
            places.append(f"{w.daemon.url}/snapshot/2/stats/cran")
        for url in places:
            assert await r(REMOTES.format(url=url), library) == "0.1 TRUE"


@asynccontextmanager
async def several_channels(folder: Path) -> AsyncIterator[tuple[World, dict[str, str]]]:
    """Give a daemon with channels that show the present and the past: place -> what is listed there."""
    async with world(folder) as w:
        await w.mirror("active")
        await w.mirror("active", channel="frozen")
        await w.call("channel.freeze", channel="frozen")
        day = utc_day(w.clock.now_ms())
        w.clock.shift_ms += 86_400_000
        w.cran.put("alpha", "1.2")
        w.cran.put("gamma", "0.1")
        await w.run("stats:m")
        await w.run("frozen:m")
        before, now = "alpha 1.1,beta 2.0-1", "alpha 1.2,beta 2.0-1,gamma 0.1"
        places = {
            "/repo/stats/cran": now,
            "/repo/frozen/cran": before,
            f"/snapshot/{day}/stats/cran": before,
            "/snapshot/2/stats/cran": before,
        }
        yield w, places


async def test_r_reads_active_frozen_and_dated_channels(tmp_path: Path) -> None:
    needs_r()
    async with several_channels(tmp_path) as (w, places):
        urls = ", ".join(json.dumps(w.daemon.url + place) for place in places)
        out = await r(LISTED.format(urls=urls))
        assert out.splitlines() == list(places.values())


@pytest.mark.deep
async def test_r_installs_from_active_frozen_and_dated_channels(tmp_path: Path) -> None:
    needs_r()
    async with several_channels(tmp_path) as (w, places):
        for number, (place, listed) in enumerate(places.items()):
            library = tmp_path / f"library{number}"
            await asyncio.to_thread(library.mkdir)
            code = f'install.packages("alpha", repos = "{w.daemon.url}{place}", quiet = TRUE); cat(alpha::f())'
            assert await r(code, library) == listed.partition(",")[0]


WRITES = """
contrib <- "{folder}/src/contrib"
stopifnot(tools::write_PACKAGES(contrib, type = "source", latestOnly = FALSE, addFiles = TRUE) == 3)
dir.create(file.path(contrib, "Meta")); setwd(file.path(contrib, "Archive"))
files <- lapply(setNames(nm = list.files(".")), function(name) file.info(list.files(name, full.names = TRUE)))
saveRDS(files, file.path(contrib, "Meta/archive.rds"), version = 2)
"""

SAME = """
read <- function(root) {{
  db <- available.packages(repos = root, ignore_repo_cache = TRUE, filters = list(), fields = c("Note", "Title"))
  db <- db[order(db[, "Package"], db[, "Version"]), colnames(db) != "Repository"]
  db[] <- gsub("[[:space:]]+", " ", db)  # R's own forms of one index break lines differently
  files <- readRDS(gzcon(url(paste0(root, "/src/contrib/Meta/archive.rds"), "rb")))
  list(db, lapply(files, function(frame) list(row.names(frame), frame$size, trunc(as.numeric(frame$mtime)))))
}}
first <- read("{first}")
for (root in c({others})) stopifnot(identical(first, read(root)))
cat(nrow(first[[1]]), length(first[[2]]))
"""


@pytest.mark.deep
async def test_a_tree_that_r_wrote_is_the_same_through_one_daemon_and_two(tmp_path: Path) -> None:
    needs_r()
    tree = tmp_path / "tree"
    packages = {
        "src/contrib/alpha_1.1.tar.gz": tarball("alpha", "1.1", Suggests="beta,\ngamma"),
        "src/contrib/beta_2.0-1.tar.gz": tarball("beta", "2.0-1", Depends="R (>= 3.5.0), methods", Imports="alpha"),
        "src/contrib/beta_1.9.tar.gz": tarball("beta", "1.9", License="MIT + file LICENSE"),
        "src/contrib/Archive/alpha/alpha_1.0.tar.gz": tarball("alpha", "1.0"),
        "src/contrib/Archive/gone/gone_0.1.tar.gz": tarball("gone", "0.1"),
    }

    def write() -> None:
        for path, content in packages.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content)

    await asyncio.to_thread(write)
    await r(WRITES.format(folder=tree))
    async with world(tmp_path) as w:
        await w.mirror("passive", source=tree.as_uri())
        await w.mirror("active", channel="second", source=f"{w.daemon.url}/repo/stats/cran")
        assert await w.digest("second") == await w.digest("stats")
        others = ", ".join(f'"{w.daemon.url}/repo/{channel}/cran"' for channel in ("stats", "second"))
        assert await r(SAME.format(first=tree.as_uri(), others=others)) == "3 2"
        for path, content in packages.items():
            assert (await w.get(path, at="/repo/second/cran/")).body == content
