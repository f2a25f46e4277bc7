"""The only place that knows the addresses of a channel as Python clients ask for them (PEP 503, PEP 691)."""

from functools import lru_cache
from urllib.parse import quote

from firthd.families.addresses import ArtifactAt, Life, Located, ObjectAt, PageAt, RedirectTo, SetUp
from firthd.families.python.names import METADATA_ENDING, filename_problem, normalised, valid_name, valid_project
from firthd.families.python.page import HTML_FORM, JSON_FORM
from firthd.families.python.paths import GZIPPED, PACKAGES, SIMPLE, list_path, page_path

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
PLAIN_HTML = "text/html"
VARY = "Accept"
_NAMES = {
    JSON: JSON,
    HTML: HTML,
    PLAIN_HTML: PLAIN_HTML,
    "application/vnd.pypi.simple.latest+json": JSON,
    "application/vnd.pypi.simple.latest+html": HTML,
}
_PROJECT_SEGMENTS = 2
_FILE_SEGMENTS = 3


def locate(path: str, accept: str = "") -> Located | None:
    """Return what a URL path below a channel names, None for what no Python client asks for.

    `path` is decoded and has neither a leading nor a trailing slash. Whether the thing exists is not looked at.
    """
    segments = path.split("/")
    if segments[0] == SIMPLE and len(segments) <= _PROJECT_SEGMENTS:
        media_type = negotiated(accept)
        form = JSON_FORM if media_type == JSON else HTML_FORM
        if media_type == PLAIN_HTML:
            media_type = "text/html; charset=utf-8"
        if len(segments) == 1:
            return ObjectAt(path=list_path(form), media_type=media_type, folder=True, vary=VARY)
        name = segments[1]
        if not valid_name(name):
            return None
        project = normalised(name)
        if project != name:
            return RedirectTo(f"{SIMPLE}/{project}/")
        path = page_path(project, form)
        return PageAt(
            part=project,
            form=form,
            media_type=media_type,
            path=path,
            folder=True,
            vary=VARY,
            gzip=f"{path}{GZIPPED}",
        )
    if segments[0] == PACKAGES and len(segments) == _FILE_SEGMENTS:
        _, project, filename = segments
        if not valid_project(project) or filename_problem(filename) is not None:
            return None
        media_type = "text/plain; charset=utf-8" if filename.endswith(METADATA_ENDING) else "application/octet-stream"
        return ArtifactAt(part=project, filename=filename, media_type=media_type, life=Life.FOREVER)
    return None


@lru_cache(maxsize=1024)
def negotiated(accept: str) -> str:
    """Return the content type for an Accept header: the best that is named; HTML for whoever names none of them."""
    best, found = 0.0, PLAIN_HTML
    for part in accept.lower().split(","):
        name, *params = (text.strip() for text in part.split(";"))
        kind = _NAMES.get(name)
        if kind is None:
            continue
        quality = next((text.partition("=")[2].strip() for text in params if text.startswith("q=")), "1")
        try:
            value = float(quality)
        except ValueError:
            continue
        if value > best:
            best, found = value, kind
    return found


def page_at(project: str) -> PageAt | None:
    """Return where the page of a project is that `page.files_on` reads; None: no project is called so."""
    found = locate(f"{SIMPLE}/{project}", JSON)
    return found if isinstance(found, PageAt) else None


def file_address(project: str, filename: str) -> str:
    """Return where a file is below the channel."""
    return f"{PACKAGES}/{project}/{quote(filename, safe='!+~=')}"


def set_up(address: str) -> tuple[SetUp, ...]:
    """Return what people type to use the channel at an address, client by client."""
    pip, uv, _ = install(address, "PACKAGE")
    project = f'[[tool.uv.index]]\nname = "firth"\nurl = "{address}/{SIMPLE}/"\ndefault = true'
    return pip, uv, SetUp("uv project", project)


def install(address: str, package: str) -> tuple[SetUp, ...]:
    """Return what people type to install a package from the channel at an address, client by client."""
    index = f"{address}/{SIMPLE}/"
    return (
        SetUp("pip", f"pip install --index-url {index} {package}"),
        SetUp("uv", f"uv pip install --default-index {index} {package}"),
        SetUp("uv project", f"uv add --default-index {index} {package}"),
    )
