"""The only place that says how an R source is asked for its index, and what an answer must look like."""

import re
from collections.abc import Mapping, Sequence

from firth_protocol.types import Filters, MirrorMode, MirrorType, SourceFound
from firthd.families.base import Answer, Ask, Batch, Form, Known, Recogniser, Requests
from firthd.families.r.document import LISTING, RDS, TEXT
from firthd.families.r.filters import PLACES, parts_of
from firthd.families.r.names import ARCHIVE, MACOS_BUILDS, SOURCES, WINDOWS
from firthd.families.r.packed import BZIP2, GZIP, XZ
from firthd.families.r.paths import ARCHIVED, CURRENT, FORMS, PACKAGES
from firthd.families.r.rds import HEADER
from firthd.families.r.requirement import version_key

UNAUTHORISED = 401
PROBED_VERSIONS = ("4.6", "4.5", "4.4", "4.3", "4.2")
_BLANKS = b"\xef\xbb\xbf \t\r\n"
_PAGES = frozenset({"text/html", "application/xhtml+xml", "application/json"})
_field = re.compile(rb"[A-Za-z][A-Za-z0-9/_.@ -]{0,60}:").match


def forms(part: str, usual: str | None = None) -> tuple[Form, ...]:
    """Return what may hold a part's index, the best first; with `usual` that form, and the plain one."""
    if part == ARCHIVE:
        return Form(ARCHIVED), Form(f"{ARCHIVE}/", folder=True)
    names = FORMS if usual is None else dict.fromkeys((usual, PACKAGES))
    return tuple(Form(f"{part}/{name}") for name in names)


def requests(known: Mapping[str, Known], filters: Filters, thorough: bool, _: MirrorMode) -> Requests:
    """Ask for the first part that the filters leave, then for the others in the form that it comes in.

    What the source has not is asked for at first and when `thorough`. One that wants credentials is asked once.
    """
    wanted = parts_of(filters)
    if not thorough and known:
        wanted = [part for part in wanted if part not in known or known[part].there]
    if not wanted:
        return
    (first,) = yield Batch(asks=(Ask(part=wanted[0], forms=forms(wanted[0])),))
    if first.refusal is not None and first.refusal.data.get("status") == UNAUTHORISED:
        return
    usual = first.form.path.rpartition("/")[2] if first.form is not None else None
    at_first = thorough or not known
    if wanted[0] == SOURCES and (known[CURRENT].there if CURRENT in known and not at_first else at_first):
        yield Batch(asks=(Ask(part=CURRENT, forms=(Form(CURRENT),), beside=SOURCES),))
    if len(wanted) > 1:
        yield Batch(
            asks=tuple(
                Ask(part=part, forms=forms(part, None if part in known and known[part].there else usual))
                for part in wanted[1:]
            )
        )


def probe(filters: Filters) -> Requests:
    """Ask for the sources, their archive, and the binaries of the newest R versions, or those that the filters name."""
    (first,) = yield Batch(asks=(Ask(part=SOURCES, forms=forms(SOURCES)),))
    if first.refusal is not None and first.refusal.data.get("status") == UNAUTHORISED:
        return
    usual = first.form.path.rpartition("/")[2] if first.form is not None else PACKAGES
    versions = (filters.r_versions or list(PROBED_VERSIONS))[: len(PROBED_VERSIONS)]
    builds = (
        [WINDOWS, *MACOS_BUILDS] if first.form is None or filters.r_versions else [WINDOWS, *list(MACOS_BUILDS)[:2]]
    )
    binaries = [f"{build}/{version}" for build in builds for version in versions]
    yield Batch(
        asks=(
            Ask(part=ARCHIVE, forms=forms(ARCHIVE)[:1]),
            *(Ask(part=part, forms=(Form(f"{part}/{usual}"),)) for part in binaries),
        )
    )


def encoding(form: Form, start: bytes, content_type: str) -> str | None:
    """Return how an index is packed by its first bytes, None for what is none: a page, anything.

    An empty PACKAGES is one: that of an empty repository.
    """
    if form.folder:
        return LISTING
    packed = start.startswith((GZIP, BZIP2, XZ))
    if form.path.endswith(".rds"):
        return RDS if packed or start.startswith(HEADER) else None
    if packed:
        return TEXT
    text = start.lstrip(_BLANKS)
    if content_type in _PAGES or (form.path.endswith(".gz") and not text):
        return None
    return TEXT if not text or _field(text) else None


RECOGNISER = Recogniser(
    kind="a CRAN root",
    tell_tales=tuple(Form(f"{SOURCES}/{name}") for name in (PACKAGES, f"{PACKAGES}.gz")),
    recognise=lambda form, start, content_type: bool(start) and encoding(form, start, content_type) is not None,
)


def found(source: str, answers: Sequence[Answer]) -> SourceFound:
    """Return what to tell of a source that answered so."""
    there = {answer.part: answer for answer in answers if answer.form is not None}
    sizes = [answer.size for answer in there.values()]
    warnings = []
    if SOURCES not in there:
        warnings.append("there are no sources: a mirror of it needs windows or macos in its filter platforms")
    binaries = [part for part in there if part.startswith("bin/")]
    return SourceFound(
        type=MirrorType.R,
        source=source,
        subdirs=sorted(there, key=lambda part: (part.startswith("bin/"), part)),
        projects=None,
        index_bytes=None if None in sizes else sum(size for size in sizes if size is not None),
        warnings=warnings,
        platforms=[name for name, begin in PLACES.items() if any(part.startswith(begin) for part in there)],
        r_versions=sorted({part.rpartition("/")[2] for part in binaries}, key=version_key, reverse=True),
    )
