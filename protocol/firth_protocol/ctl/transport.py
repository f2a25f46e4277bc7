"""The only place where firthctl touches the socket: HTTP/1.1 over a Unix socket with the standard library."""

import http.client
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from firth_protocol.address import SILENCE_S, unreachable_text
from firth_protocol.ctl.exits import Unreachable
from firth_protocol.errors import from_wire

CONNECT_TIMEOUT_S = 5.0
CALL_TIMEOUT_S = 60.0


class _Connection(http.client.HTTPConnection):
    """An HTTP connection whose address is a path."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("firth", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect(str(self._path))
            connection.settimeout(self._timeout_s)
        except BaseException:
            connection.close()
            raise
        self.sock = connection


class Daemon:
    """The daemon behind a socket. Every method raises Unreachable, and the tree's errors for an error reply."""

    def __init__(self, socket_path: Path, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.socket_path = socket_path
        self._timeout_s = timeout_s

    def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """Call a method; return its result as plain JSON values."""
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        patience = params.get("timeout", 0)
        extra = patience if isinstance(patience, int | float) else 0
        connection = _Connection(self.socket_path, self._timeout_s + extra)
        try:
            connection.request("POST", "/rpc", msgspec.json.encode(request), {"Content-Type": "application/json"})
            response = connection.getresponse()
            reply = self._json(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(unreachable_text(self.socket_path, error)) from error
        finally:
            connection.close()
        if "error" in reply:
            raise from_wire(reply["error"])
        return reply.get("result")

    def events(self, topics: list[str], after: str | None) -> Iterator[dict[str, Any]]:
        """Yield events until the daemon ends the stream; the last one may be of type `lost`."""
        query = {"topics": ",".join(topics)} if topics else {}
        if after is not None:
            query["after"] = after
        connection = _Connection(self.socket_path, SILENCE_S)
        try:
            connection.request("GET", f"/events?{urlencode(query)}")
            response = connection.getresponse()
            if response.status != 200:
                raise from_wire(self._json(response.status, response.read()).get("error", {}))
            for line in response:
                if line.strip():
                    yield msgspec.json.decode(line)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise Unreachable(unreachable_text(self.socket_path, error)) from error
        finally:
            connection.close()

    def _json(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            reply = msgspec.json.decode(body)
        except msgspec.DecodeError:
            reply = None
        if not isinstance(reply, dict):
            raise Unreachable(f"what answers on {self.socket_path} is no firthd (HTTP {status})")
        return reply
