"""The toy family as the house sees it: two parts that runs read, and parts below `lazy/` that clients make it read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from firth_protocol.types import Credentials, Family, Filters, MirrorMode, MirrorType, SourceFound
from firthd.families import families
from firthd.families.addresses import ArtifactAt, Located, ObjectAt, PageAt, SetUp
from firthd.families.base import Answer, Ask, Batch, Facts, FamilyRules, Form, Known, LazyParts, Recogniser, Requests
from firthd.families.source import Normalised
from tests.support.toy.formats import decode

PLACE = "tests.support.toy.formats:FORMATS"
PARTS = ("contrib/src", "main")  # one with a slash
LAZY = "lazy/"
TYPES = {"json": "application/json", "txt": "text/plain"}


class Wanted(Struct, frozen=True):
    name: str

    def matches(self, facts: Facts) -> bool:
        return facts.name == self.name


def ask(part: str) -> Ask:
    forms = (Form(f"{part}/index.json", accept="application/json"), Form(f"{part}/index.txt"))
    return Ask(part=part, forms=forms)


def requests(known: Mapping[str, Known], filters: Filters, thorough: bool, mode: MirrorMode) -> Requests:
    lazy = filters.packages or ([f"{LAZY}one"] if mode is MirrorMode.ACTIVE else [])
    yield Batch(asks=tuple(ask(part) for part in (*PARTS, *lazy)))


def is_lazy(part: str, filters: Filters, mode: MirrorMode) -> bool:
    return mode is MirrorMode.PASSIVE and part.startswith(LAZY) and filters.packages is None


def encoding(form: Form, start: bytes, content_type: str) -> str | None:
    if form.path.endswith(".json"):
        return "json" if start.startswith(b"[") else None
    return "txt" if start.startswith(b"{") else None


def found(source: str, answers: Sequence[Answer]) -> SourceFound:
    return SourceFound(
        type=MirrorType.R, source=source, subdirs=list(PARTS), projects=None, index_bytes=None, warnings=[]
    )


def locate(path: str, accept: str) -> Located | None:
    folder, _, last = path.rpartition("/")
    stem, _, form = last.partition(".")
    if stem == "index" and form in TYPES:
        if folder.startswith(LAZY):
            return PageAt(part=folder, form=form, media_type=TYPES[form], path=path)
        return ObjectAt(path=path, media_type=TYPES[form])
    return ArtifactAt(part=folder[6:], filename=last) if folder.startswith("files/") else None


def facts(part: str, raw: bytes) -> Facts:
    toy = decode(raw)
    return Facts(
        name=toy.name,
        version=toy.version,
        build="",
        build_number=0,
        part=part,
        license=None,
        timestamp=toy.time,
        size=toy.size,
        sha256=toy.sha256,
        md5=None,
        depends=toy.needs,
    )


def normalise(source: str, given: Credentials | None = None, stored: Credentials | None = None) -> Normalised:
    return Normalised(source=source.rstrip("/"), credentials=given or stored, warnings=[])


def check_archive(path: Path, filename: str) -> None:
    if not path.read_bytes().startswith(b"toy"):
        raise ValueError("this is no toy")


TOY = FamilyRules(
    family=Family.R,
    requests=requests,
    encoding=encoding,
    recogniser=Recogniser(
        kind="a box of toys",
        tell_tales=ask("main").forms,
        recognise=lambda form, start, content_type: encoding(form, start, content_type) is not None,
    ),
    filters=frozenset({"packages"}),
    check_filters=lambda filters: [],
    only=lambda filters: None,
    found=found,
    formats=PLACE,
    reads=(),
    first_parts=(),
    empty_part=lambda part: {},
    locate=locate,
    address=lambda part, filename: f"files/{part}/{filename}",
    set_up=lambda address: [SetUp("toy", f"toy --box {address}")],
    install=lambda address, package: [SetUp("toy", f"toy --box {address} {package}")],
    needs_record=lambda section: False,
    fetch_url=lambda place: f"{place.part}/{place.filename}",
    requirement=Wanted,
    facts=facts,
    normalise=normalise,
    check_archive=check_archive,
    sort_versions=lambda versions: sorted(versions, reverse=True),
    reserved_names=frozenset(),
    lazy=LazyParts(
        is_lazy=is_lazy,
        ask=lambda part: ask(part) if part.startswith(LAZY) else None,
        pages=PLACE,
        at=lambda part: None,
        listed=lambda page: frozenset(),
    ),
)


def with_toy() -> Mapping[Family, FamilyRules]:
    """Return the list of families with this one."""
    return {**families(), Family.R: TOY}
