"""Where package clients are listened for, and what those are told who come in vain; over real sockets."""

import logging
import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from firth_protocol.errors import InUse
from firthd.clock import SystemClock
from firthd.doors import listen_at, turn_away, web_listeners

ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n"
OTHER = b"not today"


@pytest.fixture
def door() -> Iterator[socket.socket]:
    with listen_at("127.0.0.1:0") as listener:
        yield listener


def client_of(door: socket.socket, asks: bytes = b"GET / HTTP/1.1\r\n\r\n") -> socket.socket:
    client = socket.create_connection(door.getsockname()[:2], timeout=10)
    client.sendall(asks)
    return client


def read(client: socket.socket) -> bytes:
    with client:
        return b"".join(iter(lambda: client.recv(4096), b""))


def test_the_manager_s_sockets_come_before_the_settings(door: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    host, port = door.getsockname()
    assert web_listeners([door], "127.0.0.1:8470") == [door]  # nobody has asked for that
    assert web_listeners([door], f"{host}:{port}") == [door]
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert web_listeners([door], "[::1]:9000") == [door]
    assert "web.listen = '[::1]:9000' has no effect" in caplog.text
    assert f"{host}:{port}" in caplog.text
    assert "firthd-web.socket" in caplog.text


def test_without_them_the_settings_say_where(door: socket.socket) -> None:
    (made,) = web_listeners([], "127.0.0.1:0")
    with made:
        assert made.getsockname()[0] == "127.0.0.1"
    with pytest.raises(InUse):
        web_listeners([], "{}:{}".format(*door.getsockname()))


def test_all_who_wait_are_answered_each_as_the_door_says(door: socket.socket) -> None:
    with listen_at("127.0.0.1:0") as second:
        waiting = [client_of(door) for _ in range(20)]
        other = client_of(second)
        turn_away([(door, ANSWER), (second, OTHER)], SystemClock())
        assert [read(client) for client in waiting] == [ANSWER] * 20
        assert read(other) == OTHER
    turn_away([(door, ANSWER), (second, OTHER)], SystemClock(), 60)  # nobody waits, and one door is closed: at once


def test_where_somebody_waited_those_who_come_next_are_answered_too(door: socket.socket) -> None:
    first = client_of(door)
    answering = Thread(target=turn_away, args=([(door, ANSWER)], SystemClock(), 0.2))
    answering.start()
    assert read(first) == ANSWER
    assert read(client_of(door)) == ANSWER
    answering.join(10)
    assert not answering.is_alive()


def test_one_who_says_nothing_keeps_nobody_waiting(door: socket.socket) -> None:
    mute, second = client_of(door, b""), client_of(door)
    answering = Thread(target=turn_away, args=([(door, ANSWER)], SystemClock()))
    answering.start()
    assert read(second) == ANSWER
    mute.close()
    answering.join(10)
    assert not answering.is_alive()
