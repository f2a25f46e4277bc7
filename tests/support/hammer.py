"""Clients for a machine of its own, in a file that runs anywhere: they ask again and again, each time anew.

usage: python3 hammer.py SECONDS PLACE HOST PATH, where PLACE is `tls`, a port, or the path of a Unix socket. What is
written at the end is JSON: how many answers there were of each status, and of each kind of failure.
"""

import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter

CLIENTS = 4
PATIENCE_S = 60.0
CERTIFICATE = "/etc/ssl/certs/packages.example.org.pem"


def connect(place: str, host: str) -> socket.socket:
    if place.startswith("/"):
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(PATIENCE_S)
        made.connect(place)
        return made
    plain = socket.create_connection(("127.0.0.1", 443 if place == "tls" else int(place)), PATIENCE_S)
    if place != "tls":
        return plain
    return ssl.create_default_context(cafile=CERTIFICATE).wrap_socket(plain, server_hostname=host)


def ask(place: str, host: str, path: str) -> str:
    connection = http.client.HTTPConnection(host)
    try:
        connection.sock = connect(place, host)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()
    return str(answer.status)


def hammer(seconds: float, place: str, host: str, path: str) -> "Counter[str]":
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds

    def client() -> None:
        while time.monotonic() < end:
            counts[ask(place, host, path)] += 1

    clients = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return counts


if __name__ == "__main__":
    print(json.dumps(hammer(float(sys.argv[1]), *sys.argv[2:5])))
