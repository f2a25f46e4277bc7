"""A mirror's judgement says of each record that is left out what a plain list of them would, however it is packed."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec import Struct

from firthd.store.excluded import JudgementFiles
from firthd.store.judgement_file import BLOCK, OPEN_MOST, JudgementFile
from firthd.store.packed import LeftOut

VERDICTS = [(1, "licenses", "GPL3", True), (2, "packages", "not allowed", True), (3, "legacy", "an old form", False)]
RULES = {number: rule for number, rule, _, _ in VERDICTS}


class Told(Struct, frozen=True):
    """A record that is left out, and by which verdict."""

    name: str
    version: str
    build: str
    size: int | None
    part: str
    filename: str
    verdict: int
    counts: bool = True


def records(chance: random.Random, number: int) -> list[Told]:
    """Return records of more parts than are packed at once, some of which go along with others."""
    parts = [f"part-{one}" for one in range(chance.choice([1, 3, OPEN_MOST + 9]))]
    found = []
    for one in range(number):
        name, part = chance.choice(["Numpy", "numpy", "größe", f"x{one % 50}", f"y-{one // 9}"]), chance.choice(parts)
        size = None if one % 5 == 0 else one
        file = f"{name}-{one}.{chance.choice(['Whl', 'conda'])}"
        found.append(Told(name, f"{one}.1", "b", size, part, file, chance.choice([1, 2, 2, 2, 3]), one % 11 != 0))
    return found


def written(folder: Path, rows: Iterable[Told], kept: Iterable[str]) -> JudgementFiles:
    """Write a judgement of a mirror with the id 1."""
    files = JudgementFiles(folder / "judgements")
    new = folder / "new.sqlite"
    with JudgementFile(str(new)) as file:
        for row in rows:
            file.leave_out(row.part, row.filename, row, row.verdict, counts=row.counts)
        file.kept(kept)
        file.verdicts(VERDICTS)
    files.put(1, new)
    return files


def told(one: LeftOut) -> tuple[object, ...]:
    return (one.part, one.filename, one.name, one.version, one.build, one.size, one.rule)


def plain(one: Told) -> tuple[object, ...]:
    return (one.part, one.filename, one.name, one.version, one.build, one.size, RULES[one.verdict])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_out_is_told_as_a_plain_list_would(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    rows = records(chance, 3 * BLOCK + 17 if seed else 7)
    kept = {"numpy", "x3"}
    judgement = written(tmp_path, rows, kept).of(1)
    counted = [row for row in rows if row.counts]

    for rule in (None, "packages", "legacy", "dates"):
        for query in (None, "wHl", "GRÖSSE", "größe-1", "-77", "nothing of it"):
            needle = None if query is None else query.encode().lower()
            expected = {
                plain(row)
                for row in counted
                if (rule is None or RULES[row.verdict] == rule)
                and (needle is None or needle in row.filename.encode().lower())
            }
            found, after = [], 0
            while True:
                page, total = judgement.page(rule=rule, query=query, after=after, limit=700)
                assert total == len(expected), (rule, query)
                found += [told(one) for one in page]
                if not page:
                    break
                after = page[-1].id
            assert len(found) == len(expected), (rule, query)
            assert set(found) == expected

    for row in chance.sample(rows, min(len(rows), 40)):
        one = judgement.verdict(row.part, row.filename)
        assert one is not None
        assert told(one) == plain(row)
    assert judgement.verdict(rows[0].part, "no such file") is None
    assert judgement.verdict("no such part", rows[0].filename) is None

    totals = {rule: sum(RULES[row.verdict] == rule for row in counted) for rule in RULES.values()}
    assert judgement.counts() == {rule: number for rule, number in totals.items() if number}
    every = {plain(row) for row in counted}
    assert {told(one) for one in judgement.named(None, len(rows))} == every
    assert {told(one) for one in judgement.named("Numpy", len(rows))} == {
        plain(row) for row in counted if row.name in ("Numpy", "numpy")
    }
    assert len(judgement.named(None, 3)) == 3
    gone = judgement.gone(query=None, after="", limit=len(rows))
    assert {one.name: one.files for one in gone} == {
        name: sum(row.name == name for row in counted) for name in {row.name for row in counted} - kept
    }
    assert [one.name for one in gone] == sorted(one.name for one in gone)
    assert all(one.rule in {RULES[row.verdict] for row in counted if row.name == one.name} for one in gone)
    assert judgement.gone_names("NUM") == len(judgement.gone(query="num", after="", limit=9)) <= 1
    assert judgement.gone_names(None) == len(gone)


def test_nothing_is_told_where_nothing_was_judged(tmp_path: Path) -> None:
    files = JudgementFiles(tmp_path / "judgements")
    assert files.of(1).page(rule=None, query=None, after=0, limit=9) == ([], 0)
    assert files.of(1).verdict("noarch", "a") is None
    judgement = written(tmp_path, [], []).of(1)
    assert judgement.page(rule=None, query="a", after=0, limit=9) == ([], 0)
    assert (judgement.counts(), judgement.named("a", 9), judgement.gone_names(None)) == ({}, [], 0)
