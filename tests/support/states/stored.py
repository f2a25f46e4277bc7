"""Lays out a state that an earlier release has written; README.md says what is in it."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import zstandard

STATES = Path(__file__).parent


def unpack(folder: Path, which: str, release: str = "0.1.0") -> dict[str, Any]:
    """Lay out the state `which` as `folder/state`; return what its daemon served. Blocks."""
    packed = (STATES / f"{release}.tar.zst").read_bytes()
    raw = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        members = [member for member in archive.getmembers() if member.name.startswith(f"{which}/")]
        for member in members:
            member.name = member.name.removeprefix(f"{which}/")
        archive.extractall(folder, members, filter="data")
    served: dict[str, Any] = json.loads((folder / "served.json").read_text("utf-8"))
    return served
