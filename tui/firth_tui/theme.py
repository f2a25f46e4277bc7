"""The only place that knows colours, and what a poorer terminal gets instead of them and of the glyphs."""

from collections.abc import Mapping

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter
from textual.scrollbar import ScrollBarRender
from textual.theme import Theme

from firth_tui.format import SPARKS, Sign

DARK, LIGHT, SIXTEEN = "firth-dark", "firth-light", "firth-16"

_DARK = Theme(
    name=DARK,
    primary="#4fb3bf",
    secondary="#7d9bd1",
    accent="#8fb8ff",
    warning="#e8b04b",
    error="#f2777a",
    success="#7ccf8a",
    foreground="#d8dee6",
    background="#10161d",
    surface="#161e27",
    panel="#1f2a36",
    dark=True,
    variables={
        "firth-muted": "#8b98a8",
        "firth-busy": "#6cc7e0",
        "firth-cursor": "#27506b",
        "firth-cursor-text": "#ffffff",
        "firth-cursor-away": "#222d39",
        "firth-line": "#3a4a5b",
        "firth-bar": "#1b2733",
        "firth-banner": "#7a2e2e",
        "firth-banner-text": "#ffffff",
        "firth-veil": "#10161d 60%",
    },
)

_LIGHT = Theme(
    name=LIGHT,
    primary="#0b6b78",
    secondary="#3d5a98",
    accent="#1f4fa3",
    warning="#8a5a00",
    error="#b3261e",
    success="#1e7a34",
    foreground="#1c232b",
    background="#fbfcfd",
    surface="#f1f4f7",
    panel="#e4e9ee",
    dark=False,
    variables={
        "firth-muted": "#5b6875",
        "firth-busy": "#0b6b9c",
        "firth-cursor": "#b9dcea",
        "firth-cursor-text": "#10161d",
        "firth-cursor-away": "#dde5ec",
        "firth-line": "#aab6c2",
        "firth-bar": "#e8eef3",
        "firth-banner": "#b3261e",
        "firth-banner-text": "#ffffff",
        "firth-veil": "#fbfcfd 60%",
    },
)

# The terminal's own sixteen colours, whatever they are: for terminals that do not announce more.
_SIXTEEN = Theme(
    name=SIXTEEN,
    ansi=True,
    primary="ansi_cyan",
    secondary="ansi_blue",
    accent="ansi_blue",
    warning="ansi_yellow",
    error="ansi_red",
    success="ansi_green",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    dark=True,
    variables={
        "firth-muted": "ansi_default",
        "firth-busy": "ansi_cyan",
        "firth-cursor": "ansi_blue",
        "firth-cursor-text": "ansi_bright_white",
        "firth-cursor-away": "ansi_default",
        "firth-line": "ansi_default",
        "firth-bar": "ansi_default",
        "firth-banner": "ansi_red",
        "firth-banner-text": "ansi_bright_white",
        "firth-veil": "ansi_default",  # the terminal's own colours cannot be mixed
        "ansi-background": "ansi_black",
        "ansi-foreground": "ansi_white",
        "border-blurred": "ansi_default",
        "input-cursor-background": "ansi_white",
        "input-cursor-foreground": "ansi_black",
        "input-selection-background": "ansi_bright_blue",
        "input-selection-foreground": "ansi_black",
        "screen-selection-background": "ansi_bright_blue",
        "screen-selection-foreground": "ansi_black",
        "block-cursor-foreground": "ansi_black",
        "block-cursor-background": "ansi_white",
    },
)

THEMES = (_DARK, _LIGHT, _SIXTEEN)


def fitting(environment: Mapping[str, str]) -> str:
    """Return the name of the theme for a terminal: its own 16 colours where it does not announce more."""
    return DARK if environment.get("COLORTERM") in {"truecolor", "24bit"} else SIXTEEN


_PLAIN: dict[str, str] = {
    Sign.OK: "+",
    Sign.BAD: "x",
    Sign.BUSY: "*",
    Sign.WAIT: "o",
    Sign.STOPPED: "#",
    Sign.SKIPPED: "-",
    Sign.FROZEN: "*",
    Sign.PICK: ">",
    Sign.MARK: "+",
    Sign.PICKED_MARK: "&",
    Sign.CRUMB: ">",
    Sign.UP: "^",
    Sign.DOWN: "v",
    Sign.FULL: "#",
    Sign.EMPTY: ".",
    Sign.ON: "x",
    "…": "~",
    "·": "-",
    "×": "x",
    "↑": "^",
    "↓": "v",
    "→": ">",
    "≥": ">",
    "≤": "<",
    "“": '"',
    "”": '"',
    "’": "'",
    "🔎": "/ ",
    "▔": "-",
    "▎": "|",
    "▌": "|",
    "▐": "|",
    **dict(zip(SPARKS[:-1], "_.-=+*%", strict=True)),
}


def _plain(character: str) -> str:
    if character.isascii():
        return character
    if "─" <= character <= "╿":
        return "-" if character in "─━═╌╍┄┅┈┉╴╶╸╺" else "|" if character in "│┃║╎╏┆┇┊┋╵╷╹╻" else "+"
    return _PLAIN.get(character) or "?" * max(0, Segment(character).cell_length)


class AsciiOnly(LineFilter):
    """Shows ASCII alone, cell for cell, so that nothing moves."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            segment
            if segment.text.isascii()
            else Segment("".join(map(_plain, segment.text)), segment.style, segment.control)
            for segment in segments
        ]


class SolidScrollBar(ScrollBarRender):
    """A scroll bar of whole cells; the eighth-blocks of the default one look torn in many fonts."""

    VERTICAL_BARS = [" "] * 8
    HORIZONTAL_BARS = [" "] * 8
