"""R itself, where it is installed: what its own functions make of a channel."""

import asyncio
import os
import shutil
import warnings
from pathlib import Path

import pytest

RSCRIPT = shutil.which("Rscript")


def needs_r() -> str:
    """Return the path of Rscript; skip the test, loudly, where there is none."""
    if RSCRIPT is None:
        told = "R is not installed (Debian: r-base-core): nothing here was checked against R itself"
        warnings.warn(pytest.PytestWarning(told), stacklevel=2)
        pytest.skip(told)
    return RSCRIPT


async def needs_package(name: str) -> None:
    """Skip the test, loudly, where a package of R's is not installed."""
    needs_r()
    if (await r(f'cat(requireNamespace("{name}", quietly = TRUE))')) != "TRUE":
        told = f"R has no {name} (Debian: r-cran-{name}): nothing here was checked against it"
        warnings.warn(pytest.PytestWarning(told), stacklevel=2)
        pytest.skip(told)


async def r(code: str, library: Path | None = None, *, fails: bool = False) -> str:
    """Run R code with a library of its own; return what it prints. With `fails` it must not succeed."""
    environ = {**os.environ, "R_LIBS": str(library or ""), "R_LIBS_USER": "", "R_PROFILE_USER": "", "LC_ALL": "C.UTF-8"}
    process = await asyncio.create_subprocess_exec(
        needs_r(),
        "--no-init-file",
        "-e",
        code,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode != 0) is fails, err.decode()
    return out.decode()
