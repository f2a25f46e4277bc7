"""The entry of firthd: arguments, settings, log, event loop and signals; everything else is service's."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

import uvloop

from firth_protocol import API
from firth_protocol.errors import FirthError, InUse, Invalid, NoSpace, Unavailable
from firthd import __version__, config, logs, systemd

# sysexits.h. What starting again cannot mend is 78: the service manager does not try. What passes by itself, such as
# another daemon on the state folder or a disk too full for a migration, is 75: it tries, a few times.
_EX_TEMPFAIL = 75
_EX_CONFIG = 78

log = logging.getLogger("firthd")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop. Exit status: 0 stopped, 1 failed, 2 usage.

    75: it may pass (the state folder or an address is in use, the disk is full); 78: somebody must act first (wrong
    settings, a state that a newer daemon wrote).
    """
    args = _parser().parse_args(argv)
    flags = config.Flags(config=args.config, state=args.state, socket=args.socket, listen=args.listen)
    try:
        loaded = config.load(flags, os.environ, os.geteuid())
    except Invalid as error:
        sys.stderr.write(f"firthd: {error.message}\n" + (f"  {error.hint}\n" if error.hint else ""))
        return _EX_CONFIG
    if args.command == "check-config":
        sys.stdout.write(_report(loaded))
        return 0
    logs.set_up(os.environ)
    return _run(loaded.settings)


def _run(settings: config.Settings) -> int:
    try:
        sockets = systemd.take_sockets(os.environ, os.getpid())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, sockets))
    except Invalid as error:
        log.error("%s", _sentence(error))
        return _EX_CONFIG
    except (InUse, NoSpace, Unavailable) as error:
        log.error("%s", _sentence(error))
        return _EX_TEMPFAIL
    except FirthError as error:
        log.error("%s", _sentence(error))
        return 1
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        log.error("cannot go on: %s; give the folder to the daemon's user, or name another one", error)
        return _EX_CONFIG
    except OSError as error:
        log.error("cannot go on: %s", error)
        return 1
    except Exception:
        log.critical("ended by an unforeseen error", exc_info=True)
        return 1
    return 0


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
