"""What systemd/install.sh lays where, says and leaves alone, below a root of its own; tests/deep has the real thing."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STATE = "var/lib/firth/firth.sqlite"
LAID = (
    "etc/systemd/system/firthd.service",
    "etc/systemd/system/firthd.socket",
    "etc/systemd/system/firthd-web.socket",
    "etc/sysusers.d/firth.conf",
    "etc/tmpfiles.d/firth.conf",
    "usr/local/share/man/man1/firth.1",
    "usr/local/share/man/man1/firthctl.1",
    "usr/local/share/man/man8/firthd.8",
    "usr/local/share/bash-completion/completions/firthctl",
    "usr/local/share/zsh/site-functions/_firthctl",
    "usr/local/share/fish/vendor_completions.d/firthctl.fish",
)

# An interpreter that makes environments and installs the programs of which all that counts here is there.
PYTHON = """#!/bin/sh
home=$(dirname "$(dirname "$0")")
case "$*" in
*realpath*) echo /usr/bin/python3 ;;
"-m venv --clear"*) mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; touch "$4/pyvenv.cfg" ;;
"-m pip wheel"*) [ ! -e "$FAILS" ] || exit 1; touch "$6/firth-$VERSION-py3-none-any.whl" ;;
"-m pip install"*)
    mkdir -p "$home/share/firth" "$home/share/man/man1" "$home/share/man/man8"
    cp -r "$TREE/systemd" "$home/share/firth/"
    cp "$TREE"/man/*.1 "$home/share/man/man1/"
    cp "$TREE"/man/*.8 "$home/share/man/man8/"
    for name in firth firthctl firthd; do
        printf '#!/bin/sh\\necho %s %s "$@"\\n' "$name" "$VERSION" >"$home/bin/$name"
        chmod 755 "$home/bin/$name"
    done ;;
esac
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return tmp_path / "root"


def install(root: Path, what: str = "install", version: str = "0.1.0") -> subprocess.CompletedProcess[str]:
    environ = os.environ | {
        "DESTDIR": str(root), "FIRTH_PYTHON": str(root.parent / "python"), "TREE": str(ROOT), "VERSION": version,
        "FAILS": str(root.parent / "offline"),
    }  # fmt: skip
    command = ["sh", str(ROOT / "systemd/install.sh"), what]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)


def files(root: Path) -> list[str]:
    return sorted(str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() or file.is_symlink())


def test_everything_is_laid_and_taken_away_but_the_state(root: Path) -> None:
    done = install(root)
    assert done.returncode == 0, done
    for name in LAID:
        assert (root / name).stat().st_mode & 0o777 == 0o644, name
    assert (root / LAID[0]).read_text() == (ROOT / "systemd/firthd.service").read_text()
    assert [(root / "usr/local/bin" / name).readlink() for name in ("firth", "firthctl", "firthd")] == [
        Path("/opt/firth/bin") / name for name in ("firth", "firthctl", "firthd")
    ]
    assert "installed    firthd 0.1.0 --version in " in done.stdout
    assert "not started: DESTDIR is set" in done.stdout
    (root / STATE).parent.mkdir(parents=True)
    (root / STATE).write_text("state")
    (root / "etc/firth").mkdir(parents=True)
    (root / "etc/firth/firth.toml").write_text("")
    gone = install(root, "uninstall")
    assert gone.returncode == 0, gone
    assert files(root) == ["etc/firth/firth.toml", STATE]
    assert f"left         {root}/var/lib/firth\n" in gone.stdout
    assert install(root, "uninstall").returncode == 0


def test_an_upgrade_says_what_was_there_and_keeps_the_state(root: Path) -> None:
    install(root)
    (root / STATE).parent.mkdir(parents=True)
    (root / STATE).write_text("state")
    (root / LAID[0]).write_text("of an old version")
    done = install(root, version="0.2.0")
    assert "installed    firthd 0.2.0 --version in " in done.stdout
    assert "(before: firthd 0.1.0 --version)" in done.stdout
    assert f"state        {root}/var/lib/firth, kept as it was" in done.stdout
    assert (root / LAID[0]).read_text() != "of an old version"
    assert (root / STATE).read_text() == "state"


def test_an_upgrade_that_cannot_be_fetched_touches_nothing(root: Path) -> None:
    install(root)
    before = {name: (root / name).read_bytes() for name in files(root) if not (root / name).is_symlink()}
    (root.parent / "offline").touch()
    done = install(root, version="0.2.0")
    assert done.returncode == 1
    assert "what was installed before is as it was" in done.stderr
    assert {name: (root / name).read_bytes() for name in files(root) if not (root / name).is_symlink()} == before


def test_what_is_not_ours_is_left_alone(root: Path) -> None:
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/firth").write_text("another program")
    (root / "usr/local/bin/firthd").symlink_to("/srv/elsewhere/firthd")
    done = install(root)
    assert (root / "usr/local/bin/firthd").readlink() == Path("/srv/elsewhere/firthd")
    assert f"left alone   {root}/usr/local/bin/firth is somebody else's" in done.stdout
    install(root, "uninstall")
    assert (root / "usr/local/bin/firth").read_text() == "another program"
    assert (root / "usr/local/bin/firthd").is_symlink()
    (root / "opt/firth").mkdir()
    (root / "opt/firth/work").touch()
    for what in ("install", "uninstall"):
        refused = install(root, what)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "holds something else" in refused.stderr
    assert (root / "opt/firth/work").exists()


def test_only_root_installs_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    for what in ("install", "uninstall"):
        command = ["sh", str(ROOT / "run"), what]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stderr) == (1, f"install: needs root: sudo ./run {what}\n")
