"""The only place that decides which names of a conda source are fit for a path, an address and a screen.

Everything here judges hostile input; the record is trusted for what a package is called, the file name never is.
"""

import re

from firth_protocol.platforms import PLATFORMS
from firth_protocol.types import MirrorType

EXTENSIONS = CONDA, TAR_BZ2 = (".conda", ".tar.bz2")
MAX_FILENAME = 211
MAX_NAME = 128
MAX_SUBDIR = 32

NOARCH = "noarch"
KNOWN_SUBDIRS = PLATFORMS[MirrorType.CONDA]
"""Every subdir that conda or rattler knows, the common ones first."""

_SUBDIR = re.compile(r"[a-z0-9]+-[a-z0-9]+")
# Stricter than what a file system takes: no `%` that a proxy would decode, no `:` `?` `#` `&`, nothing a terminal,
# SQL or HTML acts on. CEP 26 allows less still, but real channels have `__anaconda_core_depends` and upper case.
_FILENAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+!=~-]*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_WORD = re.compile(r"[A-Za-z0-9_.+!=~-]{0,128}")
# What most are: named after their record, of characters that name, version and build may all have.
_USUAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*-[A-Za-z0-9_.+]{1,128}-[A-Za-z0-9_.+]{0,128}")


def valid_subdir(subdir: str) -> bool:
    """Tell whether this can be a subdir: `noarch` or two words of lower case and digits, at most 32 (CEP 26)."""
    return subdir == NOARCH or (len(subdir) <= MAX_SUBDIR and _SUBDIR.fullmatch(subdir) is not None)


def valid_filename(filename: str, extensions: tuple[str, ...] = EXTENSIONS) -> bool:
    """Tell whether this can be the name of a package file: safe as one segment of a path, with a known extension."""
    return filename_problem(filename, extensions) is None


def filename_problem(filename: str, extensions: tuple[str, ...] = EXTENSIONS) -> str | None:
    """Return what is wrong with a file name, None when nothing is. The reason does not repeat the name."""
    if len(filename) > MAX_FILENAME:
        return f"the file name has {len(filename)} characters; at most {MAX_FILENAME} are taken"
    if _FILENAME.fullmatch(filename) is None:
        return "the file name holds characters that no package file name has"
    if ".." in filename:
        return "the file name holds two dots in a row"
    extension = next((ending for ending in extensions if filename.endswith(ending)), None)
    if extension is None:
        return f"the file name does not end in {' or '.join(extensions)}"
    return None if len(filename) > len(extension) else "the file name is only an extension"


def dashes_problem(filename: str) -> str | None:
    """Return what is wrong with the dashes of a file name, None when nothing is.

    Clients split it at the last two (CEP 26); rattler refuses the whole index for a single name where it cannot.
    """
    stem = next((filename.removesuffix(ending) for ending in EXTENSIONS if filename.endswith(ending)), None)
    if stem is not None and stem.count("-") < 2:
        return "the file name has fewer than two dashes, for which clients refuse the whole index"
    return None


def safe_usual(filename: str, name: str, version: str, build: str) -> bool:
    """Tell whether a file has one of the known extensions, and is named after a record whose words are all fit.

    False: it must be looked at closely.
    """
    stem = f"{name}-{version}-{build}"
    return (
        (filename == stem + CONDA or filename == stem + TAR_BZ2)
        and len(stem) <= MAX_NAME
        and _USUAL.fullmatch(stem) is not None
        and ".." not in filename
        and stem.count("-") == name.count("-") + 2  # so the pattern's words are these words
    )


def safe_filename(filename: str, name: str, version: str, build: str, extensions: tuple[str, ...] = EXTENSIONS) -> str:
    """Return the file name when it and the record's own name, version and build can be stored, served and shown.

    The file name need not agree with the record. Raises ValueError with a reason fit for people.
    """
    if filename.endswith(extensions[0]) and safe_usual(filename, name, version, build):
        return filename
    problem = filename_problem(filename, extensions) or dashes_problem(filename)
    if problem is None and (len(name) > MAX_NAME or _NAME.fullmatch(name) is None):
        problem = "the record's name is not one that a package can have"
    if problem is None and not (version and _WORD.fullmatch(version)):
        problem = "the record's version is empty, too long, or holds characters that no version has"
    if problem is None and _WORD.fullmatch(build) is None:
        problem = "the record's build is too long, or holds characters that no build has"
    if problem is not None:
        raise ValueError(problem)
    return filename
