"""A source for a machine of its own, in a file that runs anywhere: a folder over HTTP, some of it slowly.

usage: python3 throttled.py FOLDER PORT. A file whose name begins with `slow` is sent at 20 kB/s, so that whoever is
stopped while he reads it is in the middle. Below /locked/ the same folder is there for ann and her password alone.
"""

import base64
import sys
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

CHUNK = 2_000
ANN = "Basic " + base64.b64encode(b"ann:secret-of-ann").decode()


class Handler(SimpleHTTPRequestHandler):
    """Sends files."""

    protocol_version = "HTTP/1.1"

    def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:  # type: ignore[override]
        if not Path(self.path).name.startswith("slow"):
            super().copyfile(source, outputfile)
            return
        while chunk := source.read(CHUNK):
            outputfile.write(chunk)
            time.sleep(0.1)

    def do_GET(self) -> None:
        self._admit(super().do_GET)

    def do_HEAD(self) -> None:
        self._admit(super().do_HEAD)

    def _admit(self, answer: Callable[[], None]) -> None:
        if self.path.startswith("/locked/"):
            self.path = self.path.removeprefix("/locked")
            if self.headers.get("Authorization") != ANN:
                self.send_error(401)
                return
        answer()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64  # the usual 5 cost clients a second each


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[2])), partial(Handler, directory=sys.argv[1])).serve_forever()
