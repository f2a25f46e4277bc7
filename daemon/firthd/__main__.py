"""The entry of firthd: arguments, settings, log, event loop and signals; everything else is service's."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop

from firth_protocol import API
from firth_protocol.errors import FirthError, InUse, Invalid, NoSpace, Unavailable
from firthd import __version__, config, logs, sandbox, systemd
from firthd.clock import SystemClock
from firthd.doors import turn_away
from firthd.worker import few_arenas

# sysexits.h. What starting again cannot mend is 78: the service manager does not try. What passes by itself, such as
# another daemon on the state folder or a disk too full for a migration, is 75: it tries, a few times.
_EX_TEMPFAIL = 75
_EX_CONFIG = 78
_LINGER_S = 3.0
_NOT_SERVED = "nothing can be served here at the moment; the log of the server says why"

log = logging.getLogger("firthd")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop. Exit status: 0 stopped, 1 failed, 2 usage.

    75: it may pass (the state folder or an address is in use, the disk is full); 78: somebody must act first (wrong
    settings, a state that a newer daemon wrote).
    """
    args = _parser().parse_args(argv)
    flags = config.Flags(config=args.config, state=args.state, socket=args.socket, listen=args.listen)
    if args.command == "check-config":
        return _check_config(flags)
    few_arenas()
    journal = logs.set_up(os.environ)
    try:
        sockets = systemd.take_sockets(os.environ, os.getpid())
    except OSError as error:
        log.error("the service manager passed something that is no socket: %s", error)
        return 1
    try:
        settings = config.load(flags, os.environ, os.geteuid()).settings
    except Invalid as error:
        failed: _Failed | None = _Failed(_EX_CONFIG, error)
        if journal:
            log.error("%s", _sentence(error))
        else:
            _complain(error)
    else:
        failed = _run(settings, sockets)
    if failed is None:
        return 0
    _turn_away(sockets, failed)
    return failed.status


class _Failed(NamedTuple):
    """Why the daemon ends: the exit status, and what those are told who wait for it."""

    status: int
    error: FirthError


def _run(settings: config.Settings, sockets: systemd.Inherited) -> _Failed | None:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, sockets))
    except Invalid as error:
        return _told(_EX_CONFIG, error)
    except (InUse, NoSpace, Unavailable) as error:
        return _told(_EX_TEMPFAIL, error)
    except FirthError as error:
        return _told(1, error)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        hint = _sandbox_hint(error) or "give the folder to the daemon's user, or name another one"
        return _told(_EX_CONFIG, Unavailable(f"cannot go on: {error}", hint=hint))
    except OSError as error:
        return _told(1, Unavailable(f"cannot go on: {error}", hint=_sandbox_hint(error) or ""))
    except Exception:
        log.critical("ended by an unforeseen error", exc_info=True)
        return _Failed(1, Unavailable("the daemon ended by an unforeseen error", hint="its log has more"))
    return None


def _told(status: int, error: FirthError) -> _Failed:
    log.error("%s", _sentence(error))
    return _Failed(status, error)


def _sandbox_hint(error: OSError) -> str | None:
    name = error.filename
    return sandbox.hint(Path(os.fsdecode(name)), write=True) if isinstance(name, str | bytes) else None


def _turn_away(sockets: systemd.Inherited, failed: _Failed) -> None:
    """Answer those who wait on the service manager's sockets, which it would start the daemon for again and again.

    Where starting again cannot help, that is kept up for a while: a start for each client would be too much.
    """
    if not sockets.rpc and not sockets.web:
        return
    from firthd.rpc.server import refusal
    from firthd.web.problems import whole

    doors = [(listener, refusal(failed.error)) for listener in sockets.rpc]
    doors += [(listener, whole(_NOT_SERVED)) for listener in sockets.web]
    turn_away(doors, SystemClock(), _LINGER_S if failed.status == _EX_CONFIG else 0)


def _check_config(flags: config.Flags) -> int:
    try:
        loaded = config.load(flags, os.environ, os.geteuid())
    except Invalid as error:
        _complain(error)
        return _EX_CONFIG
    sys.stdout.write(_report(loaded))
    return 0


def _complain(error: Invalid) -> None:
    sys.stderr.write(f"firthd: {error.message}\n" + (f"  {error.hint}\n" if error.hint else ""))


def _sentence(error: FirthError) -> str:
    return "; ".join(part for part in (error.message, error.hint) if part)


async def _serve(settings: config.Settings, sockets: systemd.Inherited) -> None:
    # The engine is imported here so that --version, --help and check-config answer at once.
    from firthd.service import serve

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, sockets, stop)


def _report(loaded: config.Loaded) -> str:
    rows = config.describe(loaded)
    name_width = max(len(name) for name, _, _ in rows)
    value_width = min(40, max(len(value) for _, value, _ in rows))
    head = f"# file: {loaded.file}" if loaded.file else "# no firth.toml; defaults apply"
    lines = [f"{name:<{name_width}}  {value:<{value_width}}  {origin}" for name, value, origin in rows]
    return "\n".join([head, *lines]) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="firthd",
        description="Keeps package channels: mirrors conda, Python and R sources, and serves them.",
        epilog="Each option is also a variable: FIRTH_CONFIG, FIRTH_STATE, FIRTH_SOCKET, FIRTH_LISTEN.",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "check-config"),
        default="serve",
        help="serve (default), or print the settings in force and where each comes from",
    )
    parser.add_argument("--config", metavar="FILE", help="the firth.toml to read")
    parser.add_argument("--state", metavar="DIR", help="folder for database, packages and indexes")
    parser.add_argument("--socket", metavar="PATH", help="Unix socket for firth, firthctl and curl")
    parser.add_argument("--listen", metavar="HOST:PORT", help="address for package clients; port 0 takes a free one")
    parser.add_argument("--version", action="version", version=f"firthd {__version__} (api {API})")
    return parser


if __name__ == "__main__":
    sys.exit(main())
