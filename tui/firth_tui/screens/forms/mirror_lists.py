"""The lines of a mirror's form that hang on what there is: channels, a family's filters, what a source has."""

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
"""Filters whose values are picked, by the name of the parameter."""
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
        ("projects", "Only projects", "Names with commas between; empty: all that the source has."),
        ("package_types", "Only kinds", "wheel, sdist, other (such as .egg); empty: all."),
        ("python_versions", "Only Pythons", "Such as 3.11, 3.12; empty: all."),
        ("platforms", "Only platforms", "Enter lists them; any is for files of every platform. None taken: all."),
    ),
    MirrorType.R: (
        ("packages", "Only packages", "Names with commas between; empty: all that the source has."),
        ("platforms", "Platforms", "Enter lists them; none taken: source."),
        ("r_versions", "Only R", "Such as 4.4, 4.5, for windows and macos; empty: all from 4.0 on."),
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

    field = picked_many_field(name, label, help, value, nothing=nothing, doubt=doubt)
    offer_platforms(field, kind, [])
    return field


def filter_fields(kind: str, held: Filters) -> list[Field]:
    """Return the lines of what a mirror of one type takes."""
    fields = []
    for name, label, help in FILTERS[kind]:
        given, value = f"{kind}-{name}", ", ".join(getattr(held, name) or ())
        if name in PLATFORM_FILTERS:
            usual = "source" if kind == MirrorType.R else "all that the source has"
            fields.append(platforms_field(MirrorType(kind), given, label, help, value, usual))
        else:
            fields.append(text_field(given, label, help, value))
    if kind in SWITCHES:
        name, label, help = SWITCHES[kind]
        now = {None: "", True: "yes", False: "no"}[getattr(held, name)]
        fields.append(choice_field(f"{kind}-{name}", label, help, [("", "as usual"), *YES_NO], now))
    return fields


def offer_platforms(field: Field, kind: MirrorType, found: list[str]) -> None:
    """Let platforms be picked: those that the source has come first."""
    assert isinstance(field.control, PickedMany)
    field.control.offer(known_and_found(PLATFORMS[kind], found))


def compare_platforms(field: Field, found: SourceFound) -> None:
    """Offer what the source has, and say beside the line which of those taken it has not."""
    if found.type != MirrorType.CONDA or not found.subdirs:
        return
    offer_platforms(field, found.type, found.subdirs)
    lacking = [name for name in words(field.value) or [] if name not in found.subdirs]
    has = f"the source has {', '.join(found.subdirs)}"
    if lacking:
        field.say(f"! no {', '.join(lacking)}; {has}", Tone.WARN)
    else:
        field.say(has)


def found_words(found: SourceFound) -> str:
    """Return what stands at a source, in words."""
    parts = [type_name(found.type)]
    if found.subdirs:
        shown = ", ".join(found.subdirs[:4]) + (" …" if len(found.subdirs) > 4 else "")
        kind = "folder" if found.type is MirrorType.R else "platform"
        parts.append(f"{counted(len(found.subdirs), kind)} ({shown})")
    if found.projects is not None:
        parts.append(f"{count(found.projects)} projects")
    if found.index_bytes is not None:
        parts.append(f"index {size(found.index_bytes)}")
    return ", ".join(parts) + "".join(f"; {warning}" for warning in found.warnings)
