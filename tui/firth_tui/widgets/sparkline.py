"""The only place that draws a row of values as little bars."""

from collections.abc import Sequence

from firth_tui.format import SPARKS, Cell, Sign, Tone, state_cell


def spark(values: Sequence[float], width: int) -> str:
    """Return the newest `width` values as bars of eight heights, the largest value being the highest.

    Zero is the lowest bar, so that a pause can be seen; missing values at the left are blanks.
    """
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    bars = [SPARKS[min(7, int(value / top * 7.999))] if top > 0 else SPARKS[0] for value in shown]
    return "".join(bars).rjust(width)


def outcomes(states: Sequence[str]) -> list[Cell]:
    """Return the outcomes of runs, oldest first, as one glyph each; the glyph tells, the colour repeats it."""
    cells: list[Cell] = []
    for state in states:
        cell = state_cell(state)
        cells.append(Cell(cell.text[:1], cell.tone))
    return cells or [Cell(Sign.SKIPPED, Tone.MUTED)]
