"""A zip that is not whole is told, whatever unpacking it raises."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from firthd.families.conda import archives as conda
from firthd.families.python import archives as python
from firthd.families.r import archives as r
from firthd.families.zips import check_zip


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("check", [r.check_archive, python.check_archive, conda.check_archive])
def test_a_zip_that_is_damaged_inside_is_told(tmp_path: Path, method: int, check: Callable[[Path, str], None]) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("member", bytes(range(256)) * 64)
        begins = archive.infolist()[0].header_offset + 30 + len("member")
    assert check_zip(path) == ["member"]
    check(path, "a.zip")
    content = bytearray(path.read_bytes())
    for place in range(begins + 12, begins + 24):
        content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="the archive"):
        check(path, "a.zip")
