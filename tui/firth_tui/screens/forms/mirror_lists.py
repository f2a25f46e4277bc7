"""The lines of a mirror's form that hang on what there is: channels, a family's filters, what a source has."""

from collections.abc import Sequence

from firth_protocol.errors import FirthError
from firth_protocol.platforms import PLATFORMS
from firth_protocol.types import Channel, Filters, MirrorType, SourceFound
from firth_tui.format import Tone, count, counted, size, type_name
from firth_tui.screens.forms.fields import Field, choice_field, text_field, words
from firth_tui.screens.forms.picked import picked, picked_field
from firth_tui.screens.forms.picked_many import PickedMany, known_and_found, picked_many_field
from firth_tui.screens.place import Application

LISTED = 1000
"""Channels that are offered."""
PLATFORM_FILTERS = frozenset({"subdirs", "platforms"})
VERSIONS: dict[str, tuple[str, ...]] = {
    "python_versions": tuple(f"3.{minor}" for minor in range(15, 7, -1)),
    "r_versions": tuple(f"4.{minor}" for minor in range(9, -1, -1)),
}
"""What can be picked, beside what a source has, of the filters that take versions."""
FOUND: dict[MirrorType, tuple[str, ...]] = {
    MirrorType.CONDA: ("subdirs",),
    MirrorType.PYTHON: ("platforms", "python_versions"),
    MirrorType.R: ("platforms", "r_versions"),
}
"""Filters of which a look at a source tells what it has; the answer calls them by the same names."""
SHOWN = 6
NO_CHANNEL = "none yet"
YES_NO = (("yes", "yes"), ("no", "no"))

FILTERS: dict[str, tuple[tuple[str, str, str], ...]] = {
    MirrorType.CONDA: (
        (
            "subdirs",
            "Only platforms",
            "Enter lists them: what the source has, and all others; none taken: all that the source has.",
        ),
    ),
    MirrorType.PYTHON: (
        ("projects", "Only projects", "Names with commas between; empty: all, or what a policy names and that needs."),
        ("package_types", "Only kinds", "wheel, sdist, other (such as .egg); empty: all."),
        (
            "python_versions",
            "Only Pythons",
            "Enter lists them, such as 3.12; none taken: all.",
        ),
        ("platforms", "Only platforms", "Enter lists them; any is for files of every platform. None taken: all."),
    ),
    MirrorType.R: (
        ("packages", "Only packages", "Names with commas between; empty: all that the source has."),
        ("platforms", "Platforms", "Enter lists them; none taken: source."),
        ("r_versions", "Only R", "Enter lists them, for windows and macos; none taken: all from 4.0 on."),
    ),
}

SWITCHES: dict[str, tuple[str, str, str]] = {
    MirrorType.PYTHON: ("prereleases", "Pre-releases", "Whether versions such as 2.0rc1 are taken."),
    MirrorType.R: (
        "archive",
        "Archive",
        "Whether earlier versions are taken too, from the source's archive; as usual: yes.",
    ),
}
"""Filters that are a yes or a no."""


def channel_field(likely: str) -> Field:
    """Return the line of the channel that a mirror fills; `offer_channels` fills its list."""
    options = [("", NO_CHANNEL), *([(likely, likely)] if likely else [])]
    return picked_field("channel", "Channel", "The channel that it fills; enter lists them.", options, likely)


async def offer_channels(app: Application, field: Field) -> None:
    """Let one of all channels be picked; what cannot be read is told when the mirror is saved."""
    names: list[str] = []
    cursor = None
    try:
        while len(names) < LISTED:
            page = await app.link.page(Channel, "channel.list", sort="name", cursor=cursor, limit=LISTED)
            names += [each.name for each in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
    except (FirthError, OSError):
        return
    if field.is_attached:
        picked(field).offer([("", NO_CHANNEL), *((name, name) for name in names)])


def platforms_field(kind: MirrorType, name: str, label: str, help: str, value: str, nothing: str) -> Field:
    """Return the line of the platforms that a mirror takes."""

    def doubt(typed: str) -> str:
        return "" if typed in PLATFORMS[kind] else "! no client is known to have it: is it spelled right?"

    return picked_many_field(name, label, help, value, nothing=nothing, doubt=doubt)


def versions_field(name: str, label: str, help: str, value: str, nothing: str) -> Field:
    """Return the line of the versions of Python or R that a mirror takes."""

    def doubt(typed: str) -> str:
        major, dot, minor = typed.partition(".")
        right = bool(dot) and major.isdecimal() and minor.isdecimal()
        return "" if right else "! a version has two numbers, such as 3.12"

    return picked_many_field(name, label, help, value, nothing=nothing, doubt=doubt)


def filter_fields(kind: str, held: Filters) -> list[Field]:
    """Return the lines of what a mirror of one type takes."""
    fields = []
    for name, label, help in FILTERS[kind]:
        given, value = f"{kind}-{name}", ", ".join(getattr(held, name) or ())
        if name in PLATFORM_FILTERS:
            usual = "source" if kind == MirrorType.R else "all that the source has"
            fields.append(platforms_field(MirrorType(kind), given, label, help, value, usual))
        elif name in VERSIONS:
            usual = "all from 4.0 on" if kind == MirrorType.R else "all"
            fields.append(versions_field(given, label, help, value, usual))
        else:
            fields.append(text_field(given, label, help, value))
    if kind in SWITCHES:
        name, label, help = SWITCHES[kind]
        now = {None: "", True: "yes", False: "no"}[getattr(held, name)]
        fields.append(choice_field(f"{kind}-{name}", label, help, [("", "as usual"), *YES_NO], now))
    for name in FOUND[MirrorType(kind)]:
        field = next(field for field in fields if field.field == f"{kind}-{name}")
        offer_found(field, known_of(MirrorType(kind), name), [])
    return fields


def known_of(kind: MirrorType, name: str) -> tuple[str, ...]:
    """Return what can be picked of a filter wherever one mirrors."""
    return VERSIONS.get(name) or tuple(PLATFORMS[kind])


def offer_found(field: Field, known: Sequence[str], found: Sequence[str], *, all_of_it: bool = True) -> None:
    """Let some of what is known be picked: what the source has comes first."""
    assert isinstance(field.control, PickedMany)
    field.control.offer(known_and_found(known, found, all_of_it=all_of_it))


def compare_found(field: Field, name: str, found: SourceFound) -> None:
    """Offer what the source has of a filter, and say beside the line which of what is taken it has not.

    Of a Python index some pages were looked at only: what they have not others may have.
    """
    has: list[str] = getattr(found, name)
    if not has:
        return
    some = found.type is MirrorType.PYTHON
    offer_found(field, known_of(found.type, name), has, all_of_it=not some)
    lacking = [] if some else [one for one in words(field.value) or [] if one not in has]
    shown = f"{'there are' if some else 'the source has'} {', '.join(has)}"
    if lacking:
        field.say(f"! no {', '.join(lacking)}; {shown}", Tone.WARN)
    else:
        field.say(f"{shown}, by some pages" if some else shown)


def found_words(found: SourceFound) -> str:
    """Return what stands at a source, in words."""
    parts = [type_name(found.type)]
    if found.subdirs:
        shown = ", ".join(found.subdirs[:4]) + (" …" if len(found.subdirs) > 4 else "")
        kind = "folder" if found.type is MirrorType.R else "platform"
        parts.append(f"{counted(len(found.subdirs), kind)} ({shown})")
    if found.projects is not None:
        parts.append(f"{count(found.projects)} projects")
    if found.python_versions:
        parts.append(f"for Python {_some(found.python_versions)}")
    if found.r_versions:
        parts.append(f"binaries for R {_some(found.r_versions)}")
    if found.index_bytes is not None:
        parts.append(f"index {size(found.index_bytes)}")
    return ", ".join(parts) + "".join(f"; {warning}" for warning in found.warnings)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
