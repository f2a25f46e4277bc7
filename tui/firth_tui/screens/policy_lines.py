"""Policies as lines of a sheet: what one says, where it is in force, what it keeps and drops, what is missing."""

from firth_protocol.types import MirrorDetails, MissingDependency, Policy, PolicyEffect, PolicyInForce
from firth_tui.format import Cell, Sign, Tone, age, clean, count, counted, family_name, moment, size

LABEL_CELLS = 14
MOST_NAMES = 8
MOST_MISSING = 20
MOST_USES = 200
WORDS = (
    ("policy", "rules that say which packages may enter a channel; a mirror's replaces that of its channel"),
    (
        "kept out",
        "listed by the source, but a rule of the policy speaks against it; clients get a refusal that says so",
    ),
    ("missing", "what an allowed package needs and nothing that is kept meets, with the chain that leads there"),
    ("effect", "what a policy keeps and drops of what a source lists, and which names clients would see come and go"),
)


def line(label: str, *cells: Cell) -> list[Cell]:
    """Return one line: what it is about, then what there is to say."""
    return [Cell(f" {label:<{LABEL_CELLS}}", Tone.MUTED), *cells]


def in_force_lines(in_force: PolicyInForce | None, policy: Policy | None) -> list[list[Cell]]:
    """Return which policy judges a mirror and why, then what it says; `policy`: the same with its rules, if known."""
    if in_force is None:
        return [line("policy", Cell("none: neither the mirror nor its channel has one"))]
    whose = "its own" if in_force.of == "mirror" else "that of its channel; the mirror has none of its own"
    lines = [line("policy", Cell(clean(in_force.name), Tone.STRONG), Cell(f"  {whose}", Tone.MUTED))]
    if not in_force.judges:
        return [*lines, line("", Cell("it leaves packages of this family alone", Tone.WARN))]
    if policy is not None and policy.name == in_force.name:
        lines += [line("", Cell(clean(sentence))) for sentence in policy.summary]
    return lines


def judged_lines(details: MirrorDetails) -> list[list[Cell]]:
    """Return what a policy found missing, and which of its packages cannot be installed."""
    lines = [line("unsolvable", Cell(clean(each), Tone.WARN)) for each in details.unsolvable[:MOST_MISSING]]
    return [*lines, *missing_lines(details.missing, details.missing_total)]


def missing_lines(missing: list[MissingDependency], total: int, most: int = MOST_MISSING) -> list[list[Cell]]:
    """Return requirements that nothing meets, each with the chain that needs it."""
    total = max(total, len(missing))
    if not total:
        return []
    lines = [line("missing", Cell(f"{Sign.WARN} {counted(total, 'dependency', 'dependencies')}", Tone.WARN))]
    lines += [line("", Cell(_missing(each))) for each in missing[:most]]
    left = total - min(most, len(missing))
    return [*lines, line("", Cell(f"and {counted(left, 'more', 'more')}", Tone.MUTED))] if left else lines


def _missing(each: MissingDependency) -> str:
    chain = " › ".join(clean(name) for name in each.chain)
    why = f": {clean(each.why)}" if each.why else ""
    return f"{clean(each.requirement)} in {clean(each.platform)}" + (f", for {chain}" if chain else "") + why


def effect_lines(effect: PolicyEffect) -> list[list[Cell]]:
    """Return what a policy would do to a mirror, the most telling first."""
    kept = f"{count(effect.kept)} of {counted(effect.records, 'file')} kept, {size(effect.bytes)}"
    lines = [line(f"On {clean(effect.mirror_name, 10)}", Cell(kept, Tone.STRONG))]
    if effect.filtered:
        rules = ", ".join(f"{clean(each.reason)} {count(each.count)}" for each in effect.filtered)
        lines.append(line("kept out by", Cell(rules)))
    for sign, names, total in (
        ("+", effect.names_added, effect.names_added_total),
        ("−", effect.names_removed, effect.names_removed_total),
    ):
        if total:
            lines.append(line(f"names {sign}{count(total)}", Cell(_names(names, total))))
    lines += missing_lines(effect.missing, effect.missing_total, 2)
    if effect.unsolvable:
        lines.append(line("unsolvable", Cell(_names(effect.unsolvable, len(effect.unsolvable)), Tone.WARN)))
    if effect.unmapped_licenses:
        told = _names(effect.unmapped_licenses, len(effect.unmapped_licenses))
        lines.append(line("unknown", Cell(f"licences: {told}", Tone.WARN)))
    return [*lines, *(line("note", Cell(clean(note), Tone.MUTED)) for note in effect.notes)]


def _names(names: list[str], total: int) -> str:
    shown = ", ".join(clean(name, 60) for name in names[:MOST_NAMES])
    left = total - min(MOST_NAMES, len(names))
    return f"{shown} and {count(left)} more" if left > 0 else shown


def policy_lines(policy: Policy, now: float) -> list[list[Cell]]:
    """Return all that a policy says of itself."""
    families = ", ".join(family_name(each) for each in policy.families)
    changed = f"{age(policy.updated_at, now)} ({moment(policy.updated_at)})"
    lines = [line("description", Cell(clean(policy.description)))] if policy.description else []
    lines += [line("judges", Cell(f"packages of {families}")), line("changed", Cell(changed)), []]
    lines += [
        line("" if number else "in words", Cell(clean(sentence, 2000)))
        for number, sentence in enumerate(policy.summary)
    ]
    lines.append([])
    if not policy.used_by:
        lines.append(line("in force", Cell("nowhere: the form of a channel or a mirror picks it", Tone.MUTED)))
    for number, used in enumerate(policy.used_by[:MOST_USES]):
        told = f"channel {clean(used.channel)}: its mirrors that have none of their own"
        if used.mirror_name is not None:
            told = f"mirror {clean(used.channel)}: {clean(used.mirror_name)}"
        lines.append(line("" if number else "in force", Cell(told)))
    left = len(policy.used_by) - MOST_USES
    return [*lines, line("", Cell(f"and {counted(left, 'more', 'more')}", Tone.MUTED))] if left > 0 else lines
