"""What the service's sandbox hides, read from mounts as the kernel shows them to a service of systemd 252."""

from pathlib import Path

import pytest

from firthd.sandbox import forbids, hides, hint, private_folder, read_mounts

MOUNTS = read_mounts(
    """\
310 280 0:60 / / ro,relatime shared:1 master:2 - overlay overlay rw,lowerdir=/,upperdir=/u
311 310 0:62 /systemd/inaccessible/dir /home ro,nosuid,nodev,noexec - tmpfs none rw,mode=755
312 310 0:62 /systemd/inaccessible/dir /root ro,nosuid,nodev,noexec - tmpfs none rw,mode=755
313 310 0:63 /systemd-private-77-firthd.service-x/tmp /tmp rw,relatime - tmpfs none rw
314 310 0:60 /var/tmp/systemd-private-77-firthd.service-y/tmp /var/tmp rw,relatime - overlay overlay rw
315 310 0:60 /var/lib/firth /var/lib/firth rw,relatime - overlay overlay rw
316 310 8:1 / /srv/with\\040space ro,relatime - ext4 /dev/sda1 rw
317 310 8:2 / /media/dvd ro,relatime - iso9660 /dev/sr0 ro
a line that is none
"""
)
SHOWN = [
    *MOUNTS,
    *read_mounts(
        "320 311 0:70 / /home ro,nosuid - tmpfs tmpfs ro,mode=755\n"
        "321 320 8:3 /ann/x /home/ann/x ro - ext4 /dev/sdb rw\n"
    ),
]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/home/ann/source", "hides /home: ProtectHome=tmpfs and BindReadOnlyPaths=/home/ann/source"),
        ("/root", "hides /root: ProtectHome=tmpfs"),
        ("/tmp/source", "a /tmp of its own (PrivateTmp): take another folder, or BindReadOnlyPaths=/tmp/source"),
        ("/var/tmp/source", "a /var/tmp of its own"),
        ("/srv/source", None),
        ("/homes/ann", None),
        ("/var/lib/firth/x", None),
    ],
)
def test_what_is_hidden_is_told_with_what_shows_it(path: str, said: str | None) -> None:
    told = hides(Path(path), MOUNTS)
    assert told is None if said is None else told is not None and said in told


def test_for_writing_a_folder_is_shown_as_a_whole() -> None:
    told = hides(Path("/home/ann/state"), MOUNTS, write=True)
    assert told is not None
    assert "ProtectHome=tmpfs and BindPaths=/home/ann/state" in told


def test_what_a_drop_in_shows_is_not_hidden() -> None:
    assert hides(Path("/home/ann/x/y"), SHOWN) is None
    told = hides(Path("/home/bob"), SHOWN)
    assert told is not None
    assert "BindReadOnlyPaths=/home/bob" in told


@pytest.mark.parametrize(
    ("path", "sandbox"),
    [("/srv/other", True), ("/srv/with space/x", True), ("/var/lib/firth/out", False), ("/media/dvd/x", False)],
)
def test_only_what_the_sandbox_makes_read_only_is_laid_to_it(path: str, sandbox: bool) -> None:
    told = forbids(Path(path), MOUNTS)
    assert (told is not None and f"ReadWritePaths={path} in a drop-in" in told) == sandbox


def test_a_mount_that_is_read_only_is_no_sandbox_by_itself() -> None:
    mounts = [mount for mount in MOUNTS if "systemd" not in mount.root]
    assert forbids(Path("/srv/other"), mounts) is None
    mounts += read_mounts("330 310 0:70 / /home rw - tmpfs tmpfs rw\n")
    assert hides(Path("/home/ann/source"), mounts) is None


def test_a_folder_of_the_service_alone_is_known() -> None:
    assert private_folder(Path("/tmp/out/x"), MOUNTS) == "/tmp"
    assert private_folder(Path("/srv/out"), MOUNTS) is None


def test_where_there_is_no_sandbox_nobody_is_told_of_one(tmp_path: Path) -> None:
    assert hint(tmp_path, write=True) is None
    assert hides(Path("/home/ann"), []) is None
