"""JSON-RPC messages from the method table: right ones, nearly right ones, and what nobody should send."""

import json
import random
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec
from msgspec import inspect

from firth_protocol.methods import METHODS, Method

INTEGERS = (
    0,
    1,
    2,
    3,
    12,
    -1,
    100,
    1000,
    1001,
    2**31,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63),
    -(2**63) - 1,
)
NUMBERS = (0.0, 0.5, 1.0, -1.0, 1e-300, 1e300, 3600.0, 3600.1, 2.0**63)
TEXTS = (
    "", " ", "main", "main/dev", "main:m", "main/dev:m", ":", "a:b:c", "..", "../../etc/passwd", "/", "a/b/c", "%00",
    "\x00", "\x1b[2J", "\u202eabc", "\ud7ff", "\U0001f4e6", "ǆ", "İ", "ß", "e\u0301", "\ufeff", "' OR 1 --", "100%_\\",
    "* * * * *", "0 0 31 2 *", "@daily", "hourly", "R R R R R", "2026-01-01T00:00:00.000Z", "2026-13-99T99:99:99Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "file:///nowhere", "file://", "http://127.0.0.1:1/x", "http://[::1",
    "http://127.0.0.1:99999/", "ftp://a", "http://u:p@127.0.0.1:1/", "name", "-name", "--name", "conda", "passive",
    "keep", "eyJhIjoxfQ", "eyJwYWdlX2tleSI6IFsxLCAyXX0", "AAAA", "e1:5", "e1:99999999999999999999", "-:-", "null",
)  # fmt: skip
GARBAGE = (
    b"", b" ", b"{", b"[", b"[]", b"[[]]", b"{}", b"null", b"1", b'"x"', b"\x00", b"\xff\xfe", b"\xef\xbb\xbf{}",
    b"NaN", b"[" * 5000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 3000 + b"1" + b"}" * 3000,
    b'{"jsonrpc":"2.0","id":1,"method":"',
    b'{"jsonrpc":"2.0","id":1,"method":"channel.list"}trailing',
    b'{"jsonrpc":"2.0","id":1,"id":2,"method":"channel.list"}',
    b'{"jsonrpc":"2.0","id":1,"method":"channel.list","params":{"query":"\\ud800"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"channel.list","params":{"limit":1e400}}',
    b'{"jsonrpc":"2.0","id":1,"method":"channel.list","params":{"limit":' + b"9" * 5000 + b"}}",
    b'{"jsonrpc":"2.0","id":1,"method":"channel.list","params":' + b"[" * 900 + b"]" * 900 + b"}",
)  # fmt: skip

PATIENT = {"run.wait": {"timeout": 0.01}, "mirror.check": {}, "daemon.check": {}}
"""Methods that wait when they are asked to; what makes them come back soon."""


class Messages:
    """An endless stream of messages, the same for the same seed.

    `known` are names of things that exist, so that what is right reaches the methods themselves.
    """

    def __init__(self, seed: int, known: Sequence[str | int]) -> None:
        self._chance = random.Random(seed)
        self._known = list(known)
        self._methods = list(METHODS.values())

    def body(self) -> tuple[bytes, int]:
        """Return the next request's bytes, and how many messages it holds."""
        kind = self._chance.random()
        if kind < 0.05:
            return self._garbage(), 1
        if kind < 0.4:
            return _encoded(self._message()), 1
        count = self._chance.choice((1, 2, 10, 30, 50, 50, 50, 51))
        return _encoded([self._message() for _ in range(count)]), count

    def _garbage(self) -> bytes:
        body = bytearray(self._chance.choice(GARBAGE) or _encoded(self._message()))
        if body and self._chance.random() < 0.5:
            body[self._chance.randrange(len(body))] = self._chance.randrange(256)
        return bytes(body) if self._chance.random() < 0.8 else self._chance.randbytes(self._chance.randrange(200))

    def _message(self) -> Any:
        method = self._chance.choice(self._methods)
        if method.name == "daemon.check" and self._chance.random() < 0.95:  # it reads the whole state
            method = METHODS["daemon.status"]
        params = self._params(method)
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": self._id(), "method": method.name, "params": params}
        if self._chance.random() < 0.1:
            self._spoil(message)
        return message

    def _id(self) -> Any:
        return self._chance.randrange(1, 10**6) if self._chance.random() < 0.9 else self._wrong()

    def _params(self, method: Method) -> Any:
        if self._chance.random() < 0.02:
            return self._wrong()
        params: dict[str, Any] = {}
        for name, field in _fields(method.params).items():
            if field.required or self._chance.random() < 0.4:
                params[name] = self._value(field.type, name)
        for name in list(params):
            chance = self._chance.random()
            if chance < 0.08:
                params[name] = self._wrong()
            elif chance < 0.1:
                del params[name]
        if self._chance.random() < 0.03:
            params[self._chance.choice(TEXTS)] = self._wrong()
        return params | PATIENT.get(method.name, {})

    def _value(self, kind: inspect.Type, name: str) -> Any:
        """Return a value of a type, mostly; of the names that exist, or from the edges of what is allowed."""
        match kind:
            case inspect.Metadata():
                return self._value(kind.type, name)
            case inspect.UnionType():
                return self._value(self._chance.choice(kind.types), name)
            case inspect.BoolType():
                # Everything for real would leave nothing to talk about.
                return self._chance.random() < (0.7 if name == "dry_run" else 0.5)
            case inspect.IntType():
                return self._chance.choice((*INTEGERS, 1, 1, 1, 2, 3))
            case inspect.FloatType():
                return self._chance.choice(NUMBERS)
            case inspect.StrType():
                if name in ("channel", "mirror", "name", "confirm") and self._chance.random() < 0.7:
                    return self._chance.choice([text for text in self._known if isinstance(text, str)])
                return self._text()
            case inspect.EnumType():
                return self._chance.choice([member.value for member in _members(kind.cls)])
            case inspect.ListType() | inspect.CollectionType() | inspect.VarTupleType():
                return [self._value(kind.item_type, name) for _ in range(self._chance.choice((0, 1, 3)))]
            case inspect.DictType():
                return {self._text(): self._value(kind.value_type, name)}
            case inspect.StructType():
                return {
                    field.encode_name: self._value(field.type, field.name)
                    for field in kind.fields
                    if field.required or self._chance.random() < 0.4
                }
            case _:
                return None

    def _text(self) -> str:
        if self._chance.random() < 0.02:
            return self._chance.choice("aß\U0001f4e6%") * self._chance.choice((1_000, 20_000))
        return self._chance.choice(TEXTS)

    def _wrong(self) -> Any:
        return self._chance.choice(
            (None, True, [], {}, [[]], {"a": {"b": []}}, self._text(), *INTEGERS[-6:], self._chance.choice(NUMBERS))
        )

    def _spoil(self, message: dict[str, Any]) -> None:
        member = self._chance.choice(list(message))
        match self._chance.randrange(3):
            case 0:
                del message[member]
            case 1:
                message[member] = self._wrong()
            case _:
                message[self._chance.choice(TEXTS)] = self._wrong()


def _members(cls: type[Enum]) -> list[Enum]:
    return list(cls)


def _fields(params: type[msgspec.Struct]) -> dict[str, inspect.Field]:
    kind = inspect.type_info(params)
    assert isinstance(kind, inspect.StructType)
    return {field.encode_name: field for field in kind.fields}


def _encoded(message: Any) -> bytes:
    return json.dumps(message).encode()
