"""The only place that starts a machine of its own: a real systemd in namespaces, on an overlay of this machine's files.

What the README tells an administrator to do is done in there as it stands; nothing of it stays on this machine. Its
network is a loopback of its own.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BOOT = Path(__file__).with_name("boot.sh")
TREE = "/usr/src/firth"
"""Where the tree's checkout lies on the machine."""
PROGRAMS = ("unshare", "nsenter", "setpriv", "pivot_root", "ip", "pgrep", "systemctl", "useradd", "git", "curl")
NGINX = ("nginx", "setfacl", "openssl", "curl")
# No pyenv and the like: an interpreter below /root would be hidden from the service.
_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DROP_IN = "/run/systemd/system/{unit}.d/{name}.conf"


def lacking() -> str | None:
    """Return why no machine can be started here, None where it can. Changes nothing."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    if not Path("/lib/systemd/systemd").exists():
        return "needs systemd"
    if subprocess.run(
        ["/usr/bin/python3", "-c", "import ensurepip, venv"], check=False, capture_output=True
    ).returncode:
        return "needs /usr/bin/python3 with python3-venv"
    known = Path("/proc/filesystems").read_text()
    if missing := [name for name in ("overlay", "cgroup2") if name not in known]:
        return f"the kernel has no {', '.join(missing)}"
    probe = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--net", "true"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        return "namespaces are not allowed here"
    return None


def no_nginx() -> str | None:
    """Return which program is lacking for nginx in front of the daemon."""
    missing = [name for name in NGINX if shutil.which(name, path=_PATH) is None]
    return f"needs {', '.join(missing)} (Debian: nginx-light acl openssl curl)" if missing else None


class Done:
    """How a command on the machine ended."""

    def __init__(self, run: subprocess.CompletedProcess[str]) -> None:
        self.status = run.returncode
        self.out = run.stdout
        self.err = run.stderr

    def __repr__(self) -> str:
        return f"status {self.status}\n{self.out}\n{self.err}"


class Machine:
    """A machine that is up. Commands run as root unless told otherwise."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._outer = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "bash", str(BOOT), str(work)])
        self._pid = 0

    def wait_up(self) -> None:
        self._pid = until("systemd is PID 1", self._find, 20)
        until("the machine is up", lambda: self.run("systemctl", "is-system-running").out.strip() == "running", 30)

    def _find(self) -> int | None:
        if self._outer.poll() is not None:
            raise AssertionError("the machine did not start")
        pid = self._outer.pid
        for _ in range(2):
            told = subprocess.run(["pgrep", "-P", str(pid)], check=False, capture_output=True, text=True).stdout.split()
            if not told:
                return None
            pid = int(told[0])
        # two more may lie between: the shell that becomes unshare, and unshare's child
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                return pid
        return None

    def off(self) -> None:
        """Power off; after ten seconds everything is killed."""
        if self._pid and self._outer.poll() is None:
            os.kill(self._pid, signal.SIGRTMIN + 4)
            try:
                self._outer.wait(10)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
        elif self._outer.poll() is None:
            self._outer.terminate()
        self._outer.wait(30)
        for name in ("cg", "tree"):
            with contextlib.suppress(OSError):
                (self._work / name).rmdir()

    # --- commands -----------------------------------------------------------------------------------------

    def start(self, *command: str, online: bool = False, binary: bool = False, **popen: Any) -> subprocess.Popen[Any]:
        """Start a command on the machine; `online`: with this machine's network, for packages alone."""
        spaces = ["-m", "-p", "-u", "-i", "-C", "-r", "-w"] if online else ["-a", "-r", "-w"]
        environ = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        environ |= {name: os.environ[name] for name in ("PIP_CERT",) if online and name in os.environ}
        words = ["nsenter", "-t", str(self._pid), *spaces, "env", "-i", *(f"{k}={v}" for k, v in environ.items())]
        return subprocess.Popen([*words, *command], text=not binary, **popen)

    def run(
        self,
        *command: str,
        given: str | None = None,
        online: bool = False,
        timeout: float = 60,
        user: str | None = None,
    ) -> Done:
        if user is not None:
            command = ("runuser", "-u", user, "--", *command)
        process = self.start(
            *command,
            online=online,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = process.communicate(given, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Done(subprocess.CompletedProcess(command, process.returncode, out, err))

    def sh(self, script: str, *, online: bool = False, timeout: float = 60) -> str:
        """Run a script that must succeed; return what it wrote."""
        done = self.run("bash", "-eu", "-c", script, online=online, timeout=timeout)
        assert done.status == 0, f"{script}\n{done}"
        return done.out

    def write(self, path: str, text: str, mode: str = "644") -> None:
        done = self.run("sh", "-c", f'mkdir -p "$(dirname {path})" && cat >{path} && chmod {mode} {path}', given=text)
        assert done.status == 0, done

    def put(self, archive: bytes, folder: str) -> None:
        """Unpack a tar archive in a folder of the machine."""
        unpack = ("sh", "-c", f"mkdir -p {folder} && tar -x --no-same-owner -C {folder}")
        process = self.start(*unpack, stdin=subprocess.PIPE, binary=True)
        process.communicate(archive, timeout=60)
        assert process.returncode == 0

    def ctl(self, *words: str, user: str | None = None, timeout: float = 60) -> Done:
        return self.run("firthctl", *words, user=user, timeout=timeout)

    def ask(self, *words: str) -> Any:
        """Call a method as root; return its reply."""
        done = self.ctl(*words)
        assert done.status == 0, done
        return json.loads(done.out)

    # --- the service manager ----------------------------------------------------------------------------

    def show(self, unit: str, *fields: str) -> dict[str, str]:
        lines = self.sh(f"systemctl show {unit} -p {','.join(fields)}").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, since: str) -> list[dict[str, Any]]:
        """Return what the daemon's unit has logged after a cursor of `cursor`."""
        text = self.sh(f"journalctl --sync; journalctl -u firthd.service -o json --after-cursor={since!r}")
        return [json.loads(line) for line in text.splitlines()]

    def cursor(self) -> str:
        text = self.sh("journalctl --sync; journalctl -n 1 --show-cursor -q")
        return text.rpartition("-- cursor: ")[2].strip()

    @contextlib.contextmanager
    def drop_in(self, unit: str, text: str, name: str = "test") -> Iterator[None]:
        """Lay settings over those of a unit for a while."""
        path = _DROP_IN.format(unit=unit, name=name)
        self.write(path, text)
        self.sh("systemctl daemon-reload")
        try:
            yield
        finally:
            self.sh(f"rm -f {path}; systemctl daemon-reload")

    @contextlib.contextmanager
    def settings(self, text: str) -> Iterator[None]:
        """Give the daemon a firth.toml for a while; it is read at the next start."""
        self.write("/etc/firth/firth.toml", text)
        try:
            yield
        finally:
            self.sh("rm -f /etc/firth/firth.toml")


def until(what: str, look: Callable[[], Any], seconds: float) -> Any:
    """Look again and again until there is something to see; return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what}")


@contextlib.contextmanager
def machine(work: Path) -> Iterator[Machine]:
    """Give a machine that is up, with the tree's checkout at TREE and the users ann and bob."""
    made = Machine(work)
    try:
        made.wait_up()
        _copy_tree(made)
        made.sh("useradd -m ann && useradd -m bob")
        yield made
    finally:
        made.off()


def _copy_tree(made: Machine) -> None:
    """Put the files of the working tree, committed or not, onto the machine."""
    names = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(names, cwd=ROOT, check=True, capture_output=True).stdout
    pack = ["tar", "-c", "--null", "--ignore-failed-read", "-T", "-"]
    archive = subprocess.run(pack, cwd=ROOT, check=True, input=listed, capture_output=True).stdout
    made.put(archive, TREE)


def readme_block(heading: str) -> str:
    """Return the commands of the README's section, as they stand there."""
    text = (ROOT / "README.md").read_text()
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return section.split("```\n", 1)[1].split("\n```", 1)[0]


def readme_drop_in(what: str) -> str:
    """Return the drop-in that the README shows and that speaks of `what`: an indented block of its section."""
    text = (ROOT / "README.md").read_text()
    section = text.split("\n## As a service\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"(?:^ {6,}.*\n|^\n(?= {6}))+", section, re.MULTILINE)
    return textwrap.dedent(next(block for block in blocks if what in block))
