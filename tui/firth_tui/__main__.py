"""The command `firth`: reads the command line and opens the terminal UI."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

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
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII alone")
    parser.add_argument(
        "--keys", action="store_true", help="list the actions and their keys, as keys.toml may move them"
    )
    options = parser.parse_args(arguments)
    from firth_tui.keys import WrongKeys, keys_file, read_keys

    file = keys_file(os.environ, Path.home())
    try:
        keys = read_keys(file)
    except WrongKeys as error:
        parser.exit(2, f"firth: {error}\n")
    if options.keys:
        from firth_tui.action_table import listed

        sys.stdout.write("\n".join([f"# {file}: one line for each key to move", *listed(keys), ""]))
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        parser.exit(3, "firth needs a terminal; for scripts there is firthctl\n")

    from firth_tui.app import FirthApp, Options
    from firth_tui.hangup import end_with

    end_with(sys.stdin.fileno())
    app = FirthApp(
        Options(
            socket=find_socket(options.socket, os.environ),
            read_only=options.read_only,
            ascii=options.ascii,
            keys=keys,
        )
    )
    app.run()
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main())
