"""The only place that says how a conda source is asked for its index, and what an answer must look like."""

from collections.abc import Iterator, Mapping, Sequence

from firth_protocol.types import Filters, MirrorMode, MirrorType, SourceFound
from firthd.families.base import Answer, Ask, Batch, Form, Known, Recogniser, Requests
from firthd.families.conda.names import KNOWN_SUBDIRS, NOARCH
from firthd.families.conda.paths import CHANNELDATA, RUN_EXPORTS

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
UNAUTHORISED = 401
COMMON_SUBDIRS = ("linux-64", "osx-arm64", "win-64", "osx-64", "linux-aarch64")
PROBED_BESIDE_NOARCH = 3
PROBED_WITHOUT_NOARCH = 5
_BLANKS = b"\xef\xbb\xbf \t\r\n"  # a byte order mark too


def forms(subdir: str) -> tuple[Form, ...]:
    """Return what may hold a subdir's index, the smallest first."""
    return Form(f"{subdir}/repodata.json.zst"), Form(f"{subdir}/repodata.json")


def requests(known: Mapping[str, Known], filters: Filters, thorough: bool, _: MirrorMode) -> Requests:
    """Ask for noarch, then for the other subdirs: those that the filter names, or those that the source has.

    What the source has is found by asking for every subdir there is: at first, and when `thorough`; then once for each
    that it had not, in the form that the others come in. A source that wants credentials is not asked thirty times.
    """
    sides = {name: before for name, before in known.items() if before.beside is not None}
    known = {name: before for name, before in known.items() if before.beside is None}
    if filters.subdirs is not None:
        wanted = set(filters.subdirs)
    elif thorough or not known:
        wanted = {*KNOWN_SUBDIRS, *known}
    else:
        wanted = {part for part, before in known.items() if before.there}
    (first,) = yield Batch(asks=(Ask(part=NOARCH, forms=forms(NOARCH)),))
    if first.refusal is not None and first.refusal.data.get("status") == UNAUTHORISED:
        return
    usual = {before.path.rpartition("/")[2] for before in known.values() if before.there}

    def asked(subdir: str) -> Ask:
        before = known.get(subdir)
        if before is None or before.there or not usual:
            return Ask(part=subdir, forms=forms(subdir))
        return Ask(part=subdir, forms=tuple(form for form in forms(subdir) if form.path.rpartition("/")[2] in usual))

    others = yield Batch(asks=tuple(asked(subdir) for subdir in sorted(wanted - {NOARCH})))
    there = [answer.part for answer in (first, *others) if answer.form is not None]
    if there:
        yield Batch(asks=tuple(side_asks(there, sides, everything=thorough or not known)))


def side_asks(subdirs: Sequence[str], known: Mapping[str, Known], *, everything: bool) -> Iterator[Ask]:
    """Yield the files beside the index to ask for: those that were there, and with `everything` the others once."""
    names: list[tuple[str, str, tuple[Form, ...]]] = [(CHANNELDATA, "", (Form(CHANNELDATA),))]
    for subdir in subdirs:
        name = f"{subdir}/{RUN_EXPORTS}"
        names.append((name, subdir, (Form(f"{name}.zst"), Form(name))))
    for name, beside, wanted in names:
        before = known.get(name)
        if before is not None and before.there:
            yield Ask(part=name, forms=wanted, beside=beside)
        elif everything:
            yield Ask(part=name, forms=wanted if before is None else wanted[-1:], beside=beside)


def probe(filters: Filters) -> Requests:
    """Ask for noarch and for the subdirs that nearly every source has one of, or the first that the filter names.

    Enough to tell what stands there: the run looks for the rest. Where noarch is there, an absent subdir is asked for
    in no better form than noarch has.
    """
    (first,) = yield Batch(asks=(Ask(part=NOARCH, forms=forms(NOARCH)),))
    if first.refusal is not None and first.refusal.data.get("status") == UNAUTHORISED:
        return
    wanted = [subdir for subdir in filters.subdirs or COMMON_SUBDIRS if subdir != NOARCH]
    plain = first.form is not None and not first.form.path.endswith(".zst")
    if first.form is not None:
        wanted = wanted[:PROBED_BESIDE_NOARCH]
    yield Batch(
        asks=tuple(
            Ask(part=subdir, forms=forms(subdir)[1:] if plain else forms(subdir))
            for subdir in wanted[:PROBED_WITHOUT_NOARCH]
        )
    )


def encoding(form: Form, start: bytes, content_type: str) -> str | None:
    """Return how an index is packed by its first bytes, None for what is none: a page, an empty answer, anything."""
    if form.path.endswith(".zst"):
        return "zst" if start.startswith(ZSTD_MAGIC) else None
    return "json" if start.lstrip(_BLANKS).startswith(b"{") else None


RECOGNISER = Recogniser(
    kind="a conda channel",
    tell_tales=forms(NOARCH),
    recognise=lambda form, start, content_type: encoding(form, start, content_type) is not None,
)


def found(source: str, answers: Sequence[Answer]) -> SourceFound:
    """Return what to tell of a source that answered so."""
    there = {answer.part: answer for answer in answers if answer.form is not None}
    sizes = [answer.size for answer in there.values()]
    warnings = []
    if NOARCH not in there:
        warnings.append("there is no noarch: conda clients refuse such a channel, a mirror of it gets an empty one")
    return SourceFound(
        type=MirrorType.CONDA,
        source=source,
        subdirs=[*(subdir for subdir in KNOWN_SUBDIRS if subdir in there), *sorted(there.keys() - set(KNOWN_SUBDIRS))],
        projects=None,
        index_bytes=None if None in sizes else sum(size for size in sizes if size is not None),
        warnings=warnings,
    )
