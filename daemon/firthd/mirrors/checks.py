"""Decides, purely, whether the fields of a mirror make sense, and says what is wrong with one that does not."""

from pathlib import Path
from urllib.parse import urlsplit

from firth_protocol.errors import Invalid
from firth_protocol.types import Filters
from firthd.families.base import FamilyRules


def check_name(name: str) -> None:
    """Raise Invalid unless a mirror's name is printable."""
    if not name.isprintable() or name != name.strip():
        raise Invalid("a mirror's name is 1 to 100 printable characters, no blank at its ends", path="$.name")


def check_filters(rules: FamilyRules, filters: Filters) -> list[str]:
    """Return warnings; raise Invalid for a filter of another type than the mirror's, which it names."""
    for field in filters.__struct_fields__:
        if getattr(filters, field) is not None and field not in rules.filters:
            raise Invalid(
                f"a mirror of type {rules.family} has no filter `{field}`",
                hint=f"it has {', '.join(sorted(rules.filters))}",
                path=f"$.filters.{field}",
            )
    return rules.check_filters(filters)


def check_proxy(proxy: str | None) -> None:
    """Raise Invalid for what is no proxy's address."""
    if proxy is None:
        return
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its text repeats the address, password and all
        usable = False
    if not usable:
        raise Invalid("a proxy is http://host:port", path="$.proxy")


def check_ca_file(ca_file: str | None) -> None:
    """Raise Invalid for a path that is not absolute."""
    if ca_file is not None and ("\0" in ca_file or not Path(ca_file).is_absolute()):
        raise Invalid("ca_file is an absolute path on the daemon's machine", path="$.ca_file")


def host_of(url: str) -> str:
    """Return scheme and host of an address, to which its secrets belong; nothing when it cannot be taken apart.

    The scheme counts: what was given for https is not sent over http.
    """
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()
    except ValueError:
        return ""
