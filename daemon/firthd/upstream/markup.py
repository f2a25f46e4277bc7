"""The only place that takes the HTML of a source apart: in one pass, whatever stands in it.

What has no end (a tag, a quoted value, a comment, a script) ends the page, as it does in browsers; nothing is looked
at twice, so time and memory grow with the page and no faster.
"""

import re
from collections.abc import Iterator
from html import unescape

from msgspec import Struct

ATTRIBUTES_MAX = 100
"""A tag's attributes that are kept; an index uses five."""

_name = re.compile(r"[a-zA-Z][^\s/>]*")
_gap = re.compile(r"[\s/]*")
_attribute = re.compile(r"=?[^\s/>=]*")
_equals = re.compile(r"\s*=\s*")
_bare = re.compile(r"[^\s>]*")
_RAW = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in ("script", "style")}


class Start(Struct, frozen=True):
    """A tag that opens: its name and attributes' names in lower case; the first of a repeated attribute counts."""

    name: str
    attributes: dict[str, str | None]


class End(Struct, frozen=True):
    """A tag that closes, or one that does both."""

    name: str


class Comment(Struct, frozen=True):
    text: str


class Text(Struct, frozen=True):
    text: str


def pieces(page: str) -> Iterator[Start | End | Comment | Text]:
    """Yield what a page consists of, in order; declarations are left out."""
    at = begun = 0  # where to look on; where text begins that has not been yielded
    while (place := page.find("<", at)) >= 0:
        following = page[place + 1 : place + 2]
        closes = following == "/"
        name = _name.match(page, place + 1 + closes)
        if name is None and following not in ("!", "?", "/"):
            at = place + 1  # a bare `<` is text
            continue
        if begun < place:
            yield Text(unescaped(page[begun:place]))
        if name is None:
            end = "-->" if page.startswith("<!--", place) else ">"
            stop = page.find(end, place + (4 if end == "-->" else 1))
            if stop < 0:
                return
            if end == "-->":
                yield Comment(page[place + 4 : stop])
            at = begun = stop + len(end)
            continue
        attributes, stop, both = _attributes(page, name.end())
        if stop < 0:
            return
        tag = name[0].lower()
        if not closes:
            yield Start(tag, attributes)
        if closes or both:
            yield End(tag)
        at = begun = stop
        if tag in _RAW and not closes:
            closing = _RAW[tag].search(page, at)
            if closing is None:
                return
            at = begun = closing.start()
    if begun < len(page):
        yield Text(unescaped(page[begun:]))


def unescaped(text: str) -> str:
    """Return a text with its character references resolved; one with a number that is none stays as it is."""
    try:
        return unescape(text)
    except ValueError:
        return text


def _attributes(page: str, at: int) -> tuple[dict[str, str | None], int, bool]:
    """Return a tag's attributes, the place behind it (-1: it has no end), and whether it closes itself."""
    found: dict[str, str | None] = {}
    while True:
        gap = _gap.match(page, at)
        assert gap is not None
        at = gap.end()
        if at >= len(page):
            return found, -1, False
        if page[at] == ">":
            return found, at + 1, gap[0].endswith("/")
        word = _attribute.match(page, at)
        assert word is not None
        at = word.end()
        value: str | None = None
        equals = _equals.match(page, at)
        if equals is not None:
            at = equals.end()
            quote = page[at : at + 1]
            if quote in ('"', "'"):
                stop = page.find(quote, at + 1)
                if stop < 0:
                    return found, -1, False
                value, at = page[at + 1 : stop], stop + 1
            else:
                bare = _bare.match(page, at)
                assert bare is not None
                value, at = bare[0], bare.end()
        if len(found) < ATTRIBUTES_MAX:
            found.setdefault(word[0].lower(), None if value is None else unescaped(value))
