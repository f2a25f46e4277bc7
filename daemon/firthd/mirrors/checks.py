"""Decides, purely, whether the fields of a mirror make sense, and says what is wrong with one that does not."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from msgspec import UNSET, UnsetType, json

from firth_protocol.errors import Invalid
from firth_protocol.methods import MirrorCreate, MirrorUpdate
from firth_protocol.types import Filters, MirrorMode
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


def check_near(addresses: Sequence[str]) -> list[str]:
    """Return folders and addresses as they are stored; raise Invalid for what is none, or holds a secret.

    They are shown to whoever sees the mirror, so a copy that wants credentials can be none of them.
    """
    made = []
    for number, address in enumerate(addresses):
        try:
            parts = urlsplit(address)
            folder = parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/")
            usable = folder or (parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0)
            bare = not (parts.username or parts.password or parts.query or parts.fragment or "{" in address)
        except ValueError:
            usable = bare = False
        if not usable or not bare or not address.isprintable():
            raise Invalid(
                "also_from names folders (file:///absolute/path) and http or https addresses without user and query",
                path=f"$.also_from[{number}]",
            )
        made.append(address.rstrip("/") if parts.path.strip("/") else address)
    if len(set(made)) != len(made):
        raise Invalid("also_from names the same place twice", path="$.also_from")
    return made


def absent_folders(addresses: Sequence[str] | None | UnsetType) -> list[str]:
    """Return a warning for each folder that is not there now: a medium may be mounted later. Blocks."""
    return [
        f"{address} is not there now, or may not be read"
        for address in (addresses or [])
        if address.startswith("file:") and not os.access(unquote(urlsplit(address).path), os.R_OK | os.X_OK)
    ]


def transfer_columns(params: MirrorCreate | MirrorUpdate, mode: MirrorMode) -> dict[str, Any]:
    """Return the columns that say where files are taken first, how fast, and when they go, as far as they are given.

    Raises Invalid for what makes no sense in a mirror of this mode.
    """
    changes: dict[str, Any] = {}
    if params.also_from is not UNSET:
        changes["also_from"] = json.encode(check_near(params.also_from or [])).decode()
    if params.drop_unused_days is not UNSET:
        if params.drop_unused_days is not None and mode is not MirrorMode.PASSIVE:
            raise Invalid(
                "an active mirror keeps every file that it lists",
                hint="only passive mirrors drop what nobody asks for",
                path="$.drop_unused_days",
            )
        changes["drop_unused_days"] = params.drop_unused_days
    for field in ("max_rate", "max_rate_hours"):
        if (value := getattr(params, field)) is not UNSET:
            changes[field] = value
    return changes


def host_of(url: str) -> str:
    """Return scheme and host of an address, to which its secrets belong; nothing when it cannot be taken apart.

    The scheme counts: what was given for https is not sent over http.
    """
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()
    except ValueError:
        return ""
