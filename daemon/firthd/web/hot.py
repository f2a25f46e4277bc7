"""The only place that keeps file contents in memory: small ones, least recently used out first, bounded in bytes."""

from collections import OrderedDict

from msgspec import Struct

MAX_OBJECT = 1024 * 1024
"""Bytes of the largest object that is kept."""
MAX_TOTAL = 64 * 1024 * 1024
"""Bytes of all objects together."""


class HotObject(Struct, frozen=True):
    """The bytes of a file, and when that file was written (milliseconds since the epoch)."""

    data: bytes
    modified_ms: int


class HotObjects:
    """Contents by their sha256. What is named by its content never goes stale, so nothing is ever invalidated."""

    def __init__(self, max_total: int = MAX_TOTAL, max_object: int = MAX_OBJECT) -> None:
        self.max_object = max_object
        self.bytes = 0
        self._max_total = max_total
        self._objects: OrderedDict[str, HotObject] = OrderedDict()

    def get(self, sha256: str) -> HotObject | None:
        found = self._objects.get(sha256)
        if found is not None:
            self._objects.move_to_end(sha256)
        return found

    def put(self, sha256: str, found: HotObject) -> None:
        """Keep an object; push out what has not been asked for longest. Too large ones are let go."""
        size = len(found.data)
        if size > self.max_object or size > self._max_total or sha256 in self._objects:
            return
        self._objects[sha256] = found
        self.bytes += size
        while self.bytes > self._max_total:
            _, oldest = self._objects.popitem(last=False)
            self.bytes -= len(oldest.data)
