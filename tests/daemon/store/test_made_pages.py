"""Pages that were made for clients: small ones stay in memory, large ones in files, and the oldest go."""

from pathlib import Path

from firth_protocol.errors import NoSpace
from firthd.store.made_pages import MadePages


async def room(size: int) -> None:
    if size > 500:
        raise NoSpace("the disk is full")


def pages(folder: Path) -> MadePages:
    return MadePages(folder / "made", room, large_bytes=100, memory_bytes=250, disk_bytes=1_000)


async def test_a_large_page_is_made_once_and_lies_in_a_file(tmp_path: Path) -> None:
    kept = pages(tmp_path)
    assert await kept.get("large") is None
    made = await kept.keep("large", b"x" * 400)
    assert (made.body, made.size, await kept.get("large")) == (None, 400, made)
    assert await made.whole() == b"x" * 400
    small = await kept.keep("small", b"y" * 100)
    assert (small.body, small.file, await kept.get("small")) == (b"y" * 100, None, small)
    assert small.sha256 != made.sha256


async def test_those_that_nobody_asks_for_go(tmp_path: Path) -> None:
    kept = pages(tmp_path)
    for number in range(3):
        await kept.keep(f"l{number}", bytes([number]) * 400)
        await kept.get("l0")
    assert [await kept.get(f"l{number}") is not None for number in range(3)] == [True, False, True]
    assert len(list((tmp_path / "made").iterdir())) == 2
    for number in range(3):
        await kept.keep(f"s{number}", bytes([number]) * 100)
    assert [await kept.get(f"s{number}") is not None for number in range(3)] == [False, True, True]


async def test_without_room_a_large_page_is_given_all_the_same(tmp_path: Path) -> None:
    kept = pages(tmp_path)
    assert (await kept.keep("large", b"x" * 501)).body == b"x" * 501
    assert await kept.get("large") is None
    (tmp_path / "made").write_bytes(b"in the way")
    assert (await kept.keep("other", b"x" * 400)).body == b"x" * 400


async def test_one_whose_file_is_lost_is_made_again(tmp_path: Path) -> None:
    kept = pages(tmp_path)
    made = await kept.keep("large", b"x" * 400)
    assert made.file is not None
    made.file.unlink()
    assert await kept.get("large") is None
    again = await kept.keep("large", b"x" * 400)
    assert await again.whole() == b"x" * 400
