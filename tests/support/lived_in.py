"""An installation in which people have lived: each family, subchannels, a freeze, many days, tokens."""

from pathlib import Path

from firth_protocol.types import RunState
from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.daemon import HastyClock, Running
from tests.support.python import PythonIndex
from tests.support.sample_r import build_sample_cran

DAY_MS = 86_400_000
PLATFORMS = ("noarch", "linux-64", "osx-arm64")
LONG_NAME = "a-package-with-a-name-that-is-much-longer-than-anybody-would-like-to-type-at-the-end-of-a-long-day"
TOKEN_CHANNEL = "clinic"
WHOLE_CHANNEL = "everything"
_STEMS = [
    "numpy",
    "scipy",
    "pandas",
    "xarray",
    "dask",
    "zarr",
    "netcdf4",
    "hdf5",
    "openblas",
    "fftw",
    "eigen",
    "boost",
    "cmake",
    "ninja",
    "gcc",
    "gfortran",
    "openmpi",
    "petsc",
    "mumps",
    "scotch",
    "metis",
    "geos",
    "proj",
    "gdal",
    "rasterio",
    "shapely",
    "fiona",
    "pyproj",
    "cartopy",
    "matplotlib",
    "seaborn",
    "bokeh",
    "plotly",
    "jupyter",
]


def conda_source(folder: Path) -> ChannelFolder:
    """Write a source of some 100 packages, one of them with many versions and one with a very long name."""
    source = ChannelFolder(folder, PLATFORMS)
    packages = []
    for number, stem in enumerate(_STEMS):
        for variant in ("", "-base", "-mpi"):
            needs = (f"{_STEMS[number - 1]} >=1.0,<3", "not-mirrored-here >=2") if number else ()
            packages.append(
                PackageSpec(
                    name=f"{stem}{variant}",
                    version=f"{1 + number % 3}.{number % 7}",
                    subdir=PLATFORMS[number % 2],
                    depends=needs,
                    license=("BSD-3-Clause", "MIT", "Apache-2.0")[number % 3],
                )
            )
    for platform in PLATFORMS[1:]:
        packages += [
            PackageSpec(name="tides", version=f"2026.{number}", subdir=platform, depends=("numpy >=1.0", "scipy"))
            for number in range(1, 31)
        ]
    packages.append(PackageSpec(name=LONG_NAME, version="2026.11.26.post3.dev12345", build="h0123456789abcdef_1234"))
    source.add(*packages)
    return source


def python_source(folder: Path) -> str:
    """Write a Python index; return its address."""
    index = PythonIndex(plain=True)
    for number, stem in enumerate(_STEMS[:20]):
        index.add(stem, f"1.{number}", needs=[f"{_STEMS[number - 1]}>=1.0"] if number else [])
    index.add("Alpha.One", "1.0", needs=["numpy>=1.0", "scipy; python_version < '4'"])
    index.add("Alpha.One", "1.1", needs=["numpy>=1.0"], tag="cp312-cp312-manylinux_2_28_x86_64")
    index.write(folder)
    return (folder / "simple").as_uri()


async def live(running: Running, folder: Path, clock: HastyClock) -> str:
    """Let an installation be lived in; return the secret of a token that opens what is not public."""
    call = running.client.call
    source = conda_source(folder / "conda")
    build_sample_cran(folder / "cran")
    python = python_source(folder / "python")
    clock.shift_ms = -30 * DAY_MS
    for name, privacy, description in (
        ("main", "public", "What the group uses every day: conda, Python and R packages, looked at each night."),
        ("main/dev", "public", "The same, a week earlier than main."),
        ("ml", "public", "Learning machines."),
        ("ml/stable", "public", "As used in the course of this term."),
        (WHOLE_CHANNEL, "public", "All of a Python index, page by page as people ask."),
        ("empty", "public", ""),
        (TOKEN_CHANNEL, "private", "Patients' software."),
        ("staff", "authenticated", "For everybody who works here."),
    ):
        await call("channel.create", name=name, privacy=privacy, description=description)
    for channel in ("main", "ml/stable", TOKEN_CHANNEL):
        await call(
            "mirror.create", channel=channel, name="conda", type="conda", mode="passive", source=source.path.as_uri()
        )
        assert (await running.run(f"{channel}:conda")).state is RunState.COMPLETED
    cran = (folder / "cran").as_uri()
    await call("mirror.create", channel="main", name="cran", type="r", mode="active", source=cran)
    await running.run("main:cran")
    wanted = {"projects": ["alpha-one", "numpy", "scipy"]}
    await call(
        "mirror.create", channel="main", name="index", type="python", mode="active", source=python, filters=wanted
    )
    await running.run("main:index")
    await call("mirror.create", channel=WHOLE_CHANNEL, name="all", type="python", mode="passive", source=python)
    await running.run(f"{WHOLE_CHANNEL}:all")
    for day in range(29, 1, -4):
        clock.shift_ms = -day * DAY_MS
        source.add(PackageSpec(name="nightly", version=f"2026.{30 - day}", depends=("tides",)))
        await running.run("main:conda")
    clock.shift_ms = 0
    await call("channel.freeze", channel="ml/stable")
    await call(
        "channel.update",
        channel="main",
        revision=(await call("channel.get", channel="main")).revision,
        notices=[{"message": "The cluster moves to new machines on Friday.", "level": "warning"}],
    )
    token = await call("token.create", name="a colleague", channels=[TOKEN_CHANNEL])
    return str(token.token)
