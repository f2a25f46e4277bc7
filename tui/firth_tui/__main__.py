"""The command `firth`: reads the command line and opens the terminal UI."""

import argparse
import os
import sys
from collections.abc import Sequence

from firth_protocol.address import find_socket


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the terminal UI; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="firth", description="Look after package channels from a terminal. Press ? inside for the keys."
    )
    parser.add_argument(
        "--socket", help="the daemon's Unix socket (else FIRTH_SOCKET, the system's, or that of your own daemon)"
    )
    parser.add_argument("--read-only", action="store_true", help="offer nothing that changes something")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII and box drawing alone")
    options = parser.parse_args(arguments)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        parser.exit(3, "firth needs a terminal; for scripts there is firthctl\n")

    from firth_tui.app import FirthApp, Options
    from firth_tui.hangup import end_with

    end_with(sys.stdin.fileno())
    app = FirthApp(
        Options(socket=find_socket(options.socket, os.environ), read_only=options.read_only, ascii=options.ascii)
    )
    app.run()
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main())
