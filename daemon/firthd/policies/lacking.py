"""Keeps, purely, which requirements nothing meets: each once, the first with who has them, the others as a count.

A large index may need two million things that it does not have. Their texts would take half a gigabyte; of those that
are not listed only a number stays, and two of these are one in ten million times the same.
"""

from array import array
from collections.abc import Iterator

from firthd.policies.shelf import Candidate

HEAPS = 16
"""Numbers lie in heaps by their lowest bits, so that counting those of one takes little memory."""
COUNTED_AT = 65_536


class Lacking:
    """What is lacking on some platforms, which are numbers here; at most `most` are listed, of all together."""

    def __init__(self, platforms: int, most: int) -> None:
        self._left = most
        self._listed: list[dict[str, Candidate]] = [{} for _ in range(platforms)]
        self._heaps = [array("q") for _ in range(platforms * HEAPS)]
        self._counted_at = [COUNTED_AT] * len(self._heaps)

    def add(self, platform: int, text: str, one: Candidate) -> None:
        """Take note that a record has a requirement that nothing meets on a platform."""
        listed = self._listed[platform]
        if text in listed:
            return
        if self._left:
            self._left -= 1
            listed[text] = one
            return
        number = hash(text)
        place = platform * HEAPS + number % HEAPS
        heap = self._heaps[place]
        heap.append(number)
        if len(heap) == self._counted_at[place]:  # where few are asked for again and again
            self._heaps[place] = heap = array("q", set(heap))
            self._counted_at[place] = max(COUNTED_AT, 2 * len(heap))

    def __iter__(self) -> Iterator[tuple[str, Candidate]]:
        for listed in self._listed:
            yield from listed.items()

    @property
    def unlisted(self) -> int:
        """How many more there are than are listed."""
        return sum(len(set(heap)) for heap in self._heaps)
