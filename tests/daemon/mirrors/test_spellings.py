"""A file name with `+`, `!` or `~` that a source knows by its percent-encoded spelling only, or the plain one only."""

from pathlib import Path

import pytest

from firth_protocol.types import RunState
from firthd.mirrors.transfer import spellings
from tests.support.upstream import Fault, Seen
from tests.support.world import plain, world

FILE = "odd-1!2.0+cu~1-h1.conda"
ENCODED = "odd-1%212.0%2Bcu%7E1-h1.conda"


@pytest.mark.parametrize("mode", ["passive", "active"])
@pytest.mark.parametrize("missing", [404, 403])
@pytest.mark.parametrize("wants", [FILE, ENCODED])
async def test_the_other_spelling_is_asked_for_once_and_remembered(
    tmp_path: Path, mode: str, missing: int, wants: str
) -> None:
    async with world(tmp_path) as w:
        package, second = w.source.add(
            plain("odd", version="1!2.0+cu~1", build="h1"), plain("odd", version="1!2.1+cu~1", build="h1")
        )

        def answer(seen: Seen) -> bytes | Fault | None:
            found = {package.filename: package.body, second.filename: second.body}[seen.path.rpartition("/")[2]]
            return found if ("%2B" in seen.raw_path) == ("%2B" in wants) else Fault(status=missing)

        w.upstream.route("noarch/odd-*.conda", answer)
        await w.mirror(mode)
        assert (await w.run()).state is RunState.COMPLETED
        assert (await w.get(f"/repo/main/noarch/{FILE}")).body == package.body
        asked = [seen.raw_path.rpartition("/")[2] for seen in w.upstream.asked(f"noarch/{FILE}")]
        assert asked in ([wants], [FILE, wants])
        if mode == "passive":
            assert (await w.get(f"/repo/main/noarch/{second.filename}")).body == second.body
            assert len(w.upstream.asked(f"noarch/{second.filename}")) == 1  # the mirror remembers


async def test_a_file_that_is_not_there_is_asked_for_twice_and_told_as_absent(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        (package,) = w.source.add(plain("odd", version="1.0+a"))
        w.upstream.fail(f"noarch/{package.filename}", Fault(status=404), times=None)
        await w.mirror("passive")
        await w.run()
        reply = await w.get(f"/repo/main/noarch/{package.filename}")
        assert (reply.status, b"does not have it" in reply.body) == (502, True)
        assert len(w.upstream.asked(f"noarch/{package.filename}")) == 2


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("noarch/a-1-0.conda", None),
        ("a+b/a-1-0.conda", None),
        ("noarch/a-1+b-0.conda", "noarch/a-1%2Bb-0.conda"),
        ("https://c.example.org/x/a~1!2-0.conda?k=a+b", "https://c.example.org/x/a%7E1%212-0.conda?k=a+b"),
    ],
)
def test_only_the_file_name_is_spelled_otherwise(address: str, other: str | None) -> None:
    both = [address] if other is None else [address, other]
    assert spellings(address, encoded=False) == both
    assert spellings(address, encoded=True) == both[::-1]
