"""What stands beside a list on a wide terminal: what enter would show of the row under the cursor, in short."""

from collections.abc import Mapping
from typing import Any

from firth_protocol.methods import AdvisoryGet, ChannelGet
from firth_protocol.types import (
    AdvisoryInfo,
    Channel,
    Family,
    Mirror,
    MirrorDetails,
    MirrorType,
    Package,
    PackageDetail,
    Run,
)
from firth_tui.format import (
    Cell,
    Sign,
    Tone,
    age,
    ahead,
    clean,
    count,
    counted,
    family_name,
    kind_name,
    mode_name,
    privacy_cell,
    since,
    size,
    state_cell,
    step_cell,
    type_name,
)
from firth_tui.screens.advisories import affected_cell, score_cell
from firth_tui.screens.channel_lists import left_out_text
from firth_tui.screens.mirror import failure_lines
from firth_tui.screens.mirrors import missing_of, state_of, step_of
from firth_tui.screens.place import PlaceScreen

Lines = list[list[Cell]]

FAMILIES: Mapping[MirrorType, Family] = {
    MirrorType.CONDA: Family.CONDA,
    MirrorType.PYTHON: Family.PYTHON,
    MirrorType.R: Family.R,
}
MOST_WANTED = 4
MOST = 12
"""How many rows of what belongs to a row are shown."""


def brief(screen: PlaceScreen, row: Any) -> Lines:
    """Return what is known of a row without asking anybody."""
    if isinstance(row, Channel):
        return _channel(screen, row)
    if isinstance(row, Mirror):
        return _mirror(screen, row)
    if isinstance(row, Package):
        return _package(row)
    if isinstance(row, AdvisoryInfo):
        return [_title(row.id, score_cell(row)), [Cell(" "), Cell(clean(row.summary, 600))]]
    return _run(screen, row) if isinstance(row, Run) else []


async def more(screen: PlaceScreen, row: Any) -> Lines:
    """Return what the daemon has to add about a row; raises FirthError or OSError when it cannot be asked."""
    link = screen.firth.link
    if isinstance(row, Channel):
        inside = _inside(screen, await link.ask(ChannelGet, "channel.get", channel=row.name))
        return [*inside, *await _wanted(screen, channel=row.name)]
    if isinstance(row, Mirror):
        failures = failure_lines(await link.ask(MirrorDetails, "mirror.details", mirror=row.id))[: MOST * 2]
        return [*await _wanted(screen, channel=row.channel, family=FAMILIES[row.type]), *failures]
    if isinstance(row, AdvisoryInfo):
        return _meant(await link.ask(AdvisoryGet, "advisory.get", id=row.id))
    channel = screen.context().channel
    if isinstance(row, Package) and channel is not None and not row.left_out:
        return _needs(
            await link.ask(PackageDetail, "package.get", channel=channel.name, family=row.family, name=row.name)
        )
    return []


def _meant(advisory: AdvisoryGet) -> Lines:
    """Return the packages of channels that an advisory names, with how many of their files it means."""
    lines: Lines = [[]]
    for each in advisory.touches[:MOST]:
        meant = affected_cell(each)
        lines.append([Cell(f" {clean(each.channel, 14):<15}"), Cell(f"{clean(each.package, 16):<17}"), meant])
    left = advisory.touches_total - min(MOST, len(advisory.touches))
    if left:
        lines.append([Cell(f" and {counted(left, 'more', 'more')}", Tone.MUTED)])
    return lines if advisory.touches else [[], [Cell(" no channel lists a package that it names", Tone.MUTED)]]


async def _wanted(screen: PlaceScreen, **of: str) -> Lines:
    """Return what clients downloaded most lately, out of a channel; nothing where they did not."""
    page = await screen.firth.link.page(Package, "package.list", sort="-downloads", limit=MOST_WANTED, **of)
    names = [f"{clean(each.name)} {count(each.downloads)}" for each in page.items if each.downloads]
    return [[], _said("fetched", ", ".join(names)), _said("", "times in 30 days", Tone.MUTED)] if names else []


def _title(name: str, *cells: Cell) -> list[Cell]:
    return [Cell(f" {clean(name)}  ", Tone.STRONG), *cells]


def _said(label: str, text: str, tone: Tone = Tone.PLAIN) -> list[Cell]:
    return [Cell(f" {label:<10}", Tone.MUTED), Cell(text, tone)]


def _channel(screen: PlaceScreen, channel: Channel) -> Lines:
    lines = [_title(channel.name, privacy_cell(channel.privacy))]
    if channel.description:
        lines.append([Cell(" "), Cell(clean(channel.description))])
    if channel.frozen:
        by = f" by {clean(channel.frozen_by)}" if channel.frozen_by else ""
        lines.append([Cell(f" {Sign.FROZEN} frozen {since(channel.frozen_at, screen.now())}{by}", Tone.ACCENT)])
    if channel.draft is not None:
        waits = f" {count(channel.draft.added)} to add, {count(channel.draft.removed)} to go wait"
        lines.append([Cell(waits, Tone.WARN)])
    published = age(channel.published_at, screen.now())
    lines += [[], _said("published", f"generation {channel.generation}, {published}")]
    lines += [
        _said(family_name(each.family), f"{counted(each.packages, 'package')}, {size(each.bytes)}")
        for each in channel.families
    ]
    return lines


def _inside(screen: PlaceScreen, channel: ChannelGet) -> Lines:
    lines: Lines = [[]]
    for mirror in channel.mirror_list[:MOST]:
        missing = missing_of(mirror)
        state = state_of(mirror)
        told = Cell(f"{state.text}{' · ' if missing else ''}{missing}", state.tone)
        due = ahead(mirror.next_run_at, screen.now()) if mirror.enabled else "off"
        lines.append([Cell(f" {clean(mirror.name, 16):<17}"), told, Cell(f"  {due}", Tone.MUTED)])
    if len(channel.mirror_list) > MOST:
        lines.append([Cell(f" and {counted(len(channel.mirror_list) - MOST, 'more', 'more')}", Tone.MUTED)])
    if channel.subchannel_list:
        lines.append([Cell(" below it  ", Tone.MUTED), Cell(clean(", ".join(channel.subchannel_list)))])
    return [*lines, [], [Cell(f" {clean(channel.addresses.conda, 300)}", Tone.MUTED)]]


def _mirror(screen: PlaceScreen, mirror: Mirror) -> Lines:
    missing = missing_of(mirror)
    when = ahead(mirror.next_run_at, screen.now()) if mirror.enabled else "off: by hand only"
    step = step_of(mirror, screen)
    return [
        _title(f"{mirror.channel}: {mirror.name}", state_of(mirror)),
        *([[Cell(" "), Cell(step.text, step.tone)]] if step.text and step.text != missing else []),
        [],
        _said("source", clean(mirror.source, 300)),
        _said("type", f"{type_name(mirror.type)}, {mode_name(mirror.mode)}"),
        _said("next", f"{when} ({clean(mirror.schedule)})"),
        _said("success", age(mirror.last_success_at, screen.now())),
        _said("stored", f"{count(mirror.stored)} of {count(mirror.artifacts)} files"),
        _said("size", size(mirror.bytes)),
    ]


def _package(package: Package) -> Lines:
    if package.left_out:
        return [
            _title(package.name, Cell(family_name(package.family), Tone.MUTED)),
            [],
            [Cell(f" {Sign.SKIPPED} {left_out_text(package)}", Tone.WARN)],
            *([[Cell(" "), Cell(clean(package.why, 300))]] if package.why else []),
        ]
    return [
        _title(package.name, Cell(family_name(package.family), Tone.MUTED)),
        [],
        _said("newest", clean(package.version)),
        _said("versions", count(package.versions)),
        _said("stored", f"{count(package.stored)} of {count(package.files)} files"),
        _said("size", size(package.bytes)),
        _said("platforms", clean(", ".join(package.platforms))),
        _said("fetched", f"{counted(package.downloads, 'time')} in 30 days"),
    ]


def _needs(detail: PackageDetail) -> Lines:
    return [
        [],
        _said("versions", clean(", ".join(detail.versions[:MOST]))),
        _said("needs", clean(", ".join(detail.dependencies[:MOST])) or "nothing"),
        _said("needed by", clean(", ".join(detail.dependants[:MOST])) or "nothing"),
    ]


def _run(screen: PlaceScreen, run: Run) -> Lines:
    lines = [_title(f"run {run.id}", state_cell(run.state)), [Cell(f" {kind_name(run.kind)}, by {clean(run.by)}")], []]
    for step in run.steps:
        sign = step_cell(step.state)
        lines.append([Cell(f" {sign.text} ", sign.tone), Cell(f"{step.number} {clean(step.title)}")])
    counts = run.counts
    lines += [[], [Cell(f" {count(counts.added)} added, {count(counts.removed)} removed")]]
    if counts.failed:
        lines.append([Cell(f" {counted(counts.failed, 'file')} could not be had", Tone.WARN)])
    if run.error is not None:
        lines.append([Cell(" "), Cell(clean(run.error.message), Tone.BAD)])
    return lines
