"""The only place that knows what the service's sandbox hides from the daemon, and how an administrator shows it.

The mounts of the process tell (proc_pid_mountinfo(5), systemd.exec(5)), so that nobody is told of a sandbox who runs
the daemon without one.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

_MOUNTS = Path("/proc/self/mountinfo")
_HOMES = ("/home", "/root", "/run/user")
_INACCESSIBLE = "systemd/inaccessible/"
_PRIVATE = "systemd-private-"
_WHERE = "in a drop-in of firthd.service"


class Mount(Struct, frozen=True):
    """One mount: `root` is the folder of the file system that is seen at `point`."""

    root: str
    point: str
    options: frozenset[str]
    kind: str
    of_disk: frozenset[str]
    """Options of the file system itself, wherever it is mounted."""


def read_mounts(text: str) -> list[Mount]:
    """Return the mounts in the order in which they were made; lines that are none are left out."""
    found = []
    for line in text.splitlines():
        here, _, disk = line.partition(" - ")
        fields, rest = here.split(" "), disk.split(" ")
        if len(fields) >= 6 and len(rest) >= 3:
            root, point = map(_plain, fields[3:5])
            found.append(Mount(root, point, frozenset(fields[5].split(",")), rest[0], frozenset(rest[2].split(","))))
    return found


def hides(path: Path, mounts: list[Mount], *, write: bool = False) -> str | None:
    """Return what shows a path that the sandbox hides (`write`: for writing), as a hint; None where it does not."""
    bind = f"{'BindPaths' if write else 'BindReadOnlyPaths'}={path}"
    mount = mount_of(path, mounts)
    if mount is None or not _of_a_service(mounts):
        return None
    if _INACCESSIBLE in mount.root or (mount.kind == "tmpfs" and mount.point in _HOMES):
        return f"the service's sandbox hides {mount.point}: ProtectHome=tmpfs and {bind} {_WHERE} show it"
    if private_folder(path, mounts):
        return f"the service has a {mount.point} of its own (PrivateTmp): take another folder, or {bind} {_WHERE}"
    return None


def forbids(path: Path, mounts: list[Mount]) -> str | None:
    """Return what lets the daemon write to a path that the sandbox keeps it from; None where it does not."""
    mount = mount_of(path, mounts)
    if mount is None or not _of_a_service(mounts):
        return None
    if "ro" in mount.options and "rw" in mount.of_disk and _INACCESSIBLE not in mount.root:
        return f"the service's sandbox keeps it read-only: ReadWritePaths={path} {_WHERE} lets firthd write there"
    return None


def private_folder(path: Path, mounts: list[Mount]) -> str | None:
    """Return the folder that the service has for itself and that holds `path`: nobody else sees what lies there."""
    mount = mount_of(path, mounts)
    return mount.point if mount is not None and _PRIVATE in mount.root else None


def hint(path: Path, *, write: bool = False) -> str | None:
    """Return what to do when this process cannot read (or write) a path because of its sandbox. Blocks a little."""
    mounts = here()
    places = [path]
    with suppress(OSError, ValueError):
        places.append(Path(os.path.realpath(path)))  # a link may lead to what is hidden
    for place in places:
        if told := hides(place, mounts, write=write) or (forbids(place, mounts) if write else None):
            return told
    return None


def here() -> list[Mount]:
    """Return this process's mounts; none where they cannot be read. /proc answers from memory."""
    try:
        return read_mounts(_MOUNTS.read_text("utf-8", "surrogateescape"))
    except OSError:
        return []


def _of_a_service(mounts: list[Mount]) -> bool:
    """Tell whether the service manager made some of these mounts: an administrator has read-only ones of his own."""
    return any(_PRIVATE in mount.root or _INACCESSIBLE in mount.root for mount in mounts)


def mount_of(path: Path, mounts: list[Mount]) -> Mount | None:
    """Return the mount that a path lies on: the deepest one above it, of those at one place the last."""
    found: Mount | None = None
    for mount in mounts:
        if path.is_relative_to(mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def _plain(text: str) -> str:
    """Return a path without the escapes of mountinfo: space, tab, line end and backslash are octal there."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
