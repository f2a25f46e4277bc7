"""Objects that are joined of pieces: what their lists say, and what is found where a piece is not what it should be."""

import hashlib
from pathlib import Path

import pytest

from firthd.store.joined import Joint, JointAt, joints_of, listed, pressed, shown

MARK = b"m" * 16


def laid(folder: Path, *contents: bytes) -> list[JointAt]:
    """Lay pieces one behind the other into a pack."""
    pack, found, offset = folder / "pack", [], 3
    packed = [pressed(content) for content in contents]
    pack.write_bytes(b"...".join([b"", *packed]))
    for content, piece in zip(contents, packed, strict=True):
        found.append(JointAt(pack, offset, len(piece), Joint(MARK, hashlib.sha256(piece).digest(), len(content))))
        offset += len(piece) + 3
    return found


def test_pieces_show_what_they_were_made_of(tmp_path: Path) -> None:
    contents = (b"one", b"", b"three" * 1000)
    assert list(shown(laid(tmp_path, *contents))) == list(contents)


def test_a_list_is_read_back_and_nothing_else_is_taken_for_one() -> None:
    joints = [Joint(MARK, b"s" * 32, 5), Joint(b"n" * 16, b"t" * 32, 0)]
    assert joints_of(listed(joints)) == joints
    bad = (b"", b'{"meta":{}}', listed([Joint(b"", b"s" * 32, 1)]), listed([Joint(MARK, b"s" * 32, 1 << 40)]))
    for content in bad:
        with pytest.raises(ValueError, match="not a list of pieces"):
            joints_of(content)


def test_a_damaged_piece_is_found_before_it_is_shown(tmp_path: Path) -> None:
    first, second = laid(tmp_path, b"one" * 100, b"two" * 100)
    content = bytearray(first.file.read_bytes())
    content[second.offset + 2] ^= 1
    first.file.write_bytes(content)
    assert list(shown([first])) == [b"one" * 100]
    with pytest.raises(OSError, match="does not hold"):
        list(shown([first, second]))
    first.file.write_bytes(pressed(b"other"))
    lying = JointAt(first.file, 0, len(pressed(b"other")), Joint(MARK, hashlib.sha256(pressed(b"other")).digest(), 4))
    with pytest.raises(OSError, match="piece"):
        list(shown([lying]))
