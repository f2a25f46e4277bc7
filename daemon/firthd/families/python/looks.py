"""The only place that says what the beginnings of a project list and of pages show, for who asks what stands there."""

import re
from collections.abc import Iterable
from math import log10

from firthd.families.base import Answer
from firthd.families.python.names import NOARCH, normalised, platforms_of, taken_apart, valid_name

SAMPLED = 4
"""Pages that are looked at to tell for which Pythons and platforms there are wheels."""
PAGE_BYTES = 128 * 1024
"""Of a page, what is searched for wheels in the event loop."""
_blanks = b"\xef\xbb\xbf \t\r\n"
_name = re.compile(rb'"name"\s*:\s*"([A-Za-z0-9._-]{1,200})"').findall
_href = re.compile(rb"""<a\s[^<>]{0,200}?href\s*=\s*["']?([A-Za-z0-9._/-]{1,400})["'\s>]""", re.IGNORECASE).findall
_wheel = re.compile(rb"[A-Za-z0-9_.+!-]{5,200}\.whl").findall
_python = re.compile(r"(?:cp|pp|py)3(\d{1,2})").fullmatch


def names_in(start: bytes) -> list[str]:
    """Return the projects that the beginning of a list has, each once."""
    if start.lstrip(_blanks)[:1] == b"{":
        names: Iterable[str] = (name.decode() for name in _name(start))
    else:  # as many as this are not taken apart in the event loop: of odd pages a few may be missed
        names = (href.decode().strip("/").rpartition("/")[2] for href in _href(start))
    return list(dict.fromkeys(normalised(name) for name in names if valid_name(name)))


def sampled(start: bytes) -> list[str]:
    """Return some projects of a list, from all of what came of it: those that come first are seldom like the others."""
    names = names_in(start)
    step = max(1, len(names) // SAMPLED)
    return names[step // 2 :: step][:SAMPLED]


def projects_of(listed: Answer) -> tuple[int | None, str | None]:
    """Return how many projects a list has, and what is to be told of that where only its beginning has come."""
    names = len(names_in(listed.start))
    if listed.whole:
        return names, None
    if listed.size is None or not names:
        return None, "how many projects there are is known when its list has been read"
    about = names * listed.size / len(listed.start)
    about = int(round(about, 1 - int(log10(about))))
    return about, f"there are about {about:,} projects, by the beginning of their list"


def wheels_of(pages: Iterable[Answer]) -> tuple[list[str], list[str]]:
    """Return the platforms and the Python versions of the wheels that the beginnings of some pages name."""
    platforms: set[str] = set()
    pythons: set[int] = set()
    for page in pages:
        for name in set(_wheel(page.start[:PAGE_BYTES])):
            told = taken_apart(name.decode(), page.part)
            platforms.update(platform for tag in told.platforms for platform in platforms_of(tag))
            pythons.update(int(found[1]) for tag in told.pythons if (found := _python(tag)) is not None)
    return sorted(platforms - {NOARCH}), [f"3.{minor}" for minor in sorted(pythons, reverse=True)]
