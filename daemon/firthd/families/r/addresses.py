"""The only place that knows the addresses of a channel as R's clients ask for them: a CRAN root below `cran`."""

from firthd.families.addresses import ArtifactAt, Located, ObjectAt, SetUp
from firthd.families.r.names import ARCHIVE, SOURCES, filename_problem, valid_part
from firthd.families.r.paths import ARCHIVED, CURRENT, PACKAGES, elsewhere, file_path

ROOT = "cran"
GZIP_TYPE = "application/gzip"
_INDEXES = {
    PACKAGES: "text/plain; charset=utf-8",
    f"{PACKAGES}.gz": GZIP_TYPE,
    f"{PACKAGES}.rds": GZIP_TYPE,
}


def locate(path: str, accept: str = "") -> Located | None:
    """Return what a URL path below a channel names, None for what no client of R asks for in vain.

    `path` is decoded and has no leading slash. Whether the thing exists is not looked at.
    """
    root, _, path = path.partition("/")
    if root != ROOT:
        return None
    if path in (ARCHIVED, CURRENT):
        return ObjectAt(path=path, media_type=GZIP_TYPE)
    part, filename = taken_apart(path)
    if filename in _INDEXES and part != ARCHIVE:
        packed = f"{path}.gz" if filename == PACKAGES else None
        return ObjectAt(path=path, media_type=_INDEXES[filename], gzip=packed)
    if not part or filename_problem(filename) is not None:
        return None
    also = [place for place in (elsewhere(part, filename),) if place is not None and part == ARCHIVE]
    if part == ARCHIVE:  # an index may list a file there, by its Path
        also.append((SOURCES, path.removeprefix(f"{SOURCES}/")))
    media_type = "application/zip" if filename.endswith(".zip") else "application/x-gzip"
    return ArtifactAt(part=part, filename=filename, media_type=media_type, also=tuple(also))


def taken_apart(path: str) -> tuple[str, str]:
    """Return the part and the path below it; empty ones for what lies in no part."""
    if path.startswith(f"{ARCHIVE}/"):
        return ARCHIVE, path.removeprefix(f"{ARCHIVE}/")
    if path.startswith(f"{SOURCES}/"):
        return SOURCES, path.removeprefix(f"{SOURCES}/")
    before, contrib, rest = path.partition("/contrib/")
    version, _, filename = rest.partition("/")
    part = f"{before}{contrib}{version}"
    return (part, filename) if valid_part(part) else ("", "")


def file_address(part: str, filename: str) -> str:
    """Return where a package's file is below the channel."""
    return f"{ROOT}/{file_path(part, filename)}"


def set_up(address: str) -> tuple[SetUp, ...]:
    """Return what people type to use the channel at an address, client by client."""
    root = f"{address}/{ROOT}"
    return (
        SetUp("R", f'options(repos = c(firth = "{root}"))'),
        SetUp("pak", f'pak::repo_add(firth = "{root}")'),
        SetUp("renv", f'renv::init(repos = c(firth = "{root}"))'),
    )


def install(address: str, package: str) -> tuple[SetUp, ...]:
    """Return what people type to install a package from the channel at an address, client by client."""
    root = f"{address}/{ROOT}"
    return (
        SetUp("R", f'install.packages("{package}", repos = "{root}")'),
        SetUp("pak", f'pak::repo_add(firth = "{root}")\npak::pkg_install("{package}")'),
        SetUp("renv", f'renv::install("{package}", repos = "{root}")'),
    )
