"""1,426 real conda records of some fifty packages in three subdirs, as their source lists them."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import zstandard

FILE = Path(__file__).with_name("real_records.json.zst")
ENVIRONMENT = Path(__file__).with_name("real_environment.json.zst")
"""126 real records of Python, numpy, pandas, scipy and what they need on one platform; nothing lacks."""

Records = Mapping[str, Mapping[str, dict[str, Any]]]
"""subdir -> file name -> record"""


@lru_cache(maxsize=1)
def real_records() -> Records:
    """Return the records; nobody changes them."""
    found: Records = json.loads(zstandard.ZstdDecompressor().decompress(FILE.read_bytes(), max_output_size=1 << 24))
    return found


@lru_cache(maxsize=1)
def real_environment() -> Records:
    """Return records among which all that any of them needs is; nobody changes them."""
    content = zstandard.ZstdDecompressor().decompress(ENVIRONMENT.read_bytes(), max_output_size=1 << 24)
    found: Records = json.loads(content)
    return found


def write_indexes(folder: Path, records: Records) -> dict[str, Path]:
    """Write a repodata.json for each subdir; return where they are."""
    found = {}
    for subdir, listed in records.items():
        sections = {
            "packages": {name: one for name, one in listed.items() if name.endswith(".tar.bz2")},
            "packages.conda": {name: one for name, one in listed.items() if name.endswith(".conda")},
        }
        found[subdir] = folder / f"{subdir}.json"
        found[subdir].write_text(json.dumps({"info": {"subdir": subdir}, **sections}))
    return found
