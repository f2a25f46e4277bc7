"""The only place that knows the addresses of a channel as conda clients ask for them (CEP 16, CEP 36)."""

import re
from functools import partial
from urllib.parse import quote

from firthd.families.addresses import ArtifactAt, Life, Located, NoticesAt, ObjectAt, SetUp
from firthd.families.conda.names import EXTENSIONS, KNOWN_SUBDIRS, valid_filename, valid_subdir
from firthd.families.conda.notices import NOTICES, notices_json
from firthd.families.conda.paths import CHANNELDATA, REPODATA, REPODATA_ZST, RUN_EXPORTS, SHARD_INDEX, SHARDS
from firthd.families.conda.shards import shard_index

SERVED_EXTENSIONS = (*EXTENSIONS, ".whl")
_shard = re.compile(r"[0-9a-f]{64}\.msgpack\.zst").fullmatch
_MEDIA_TYPES = {
    REPODATA: "application/json",
    REPODATA_ZST: "application/zstd",
    SHARD_INDEX: "application/octet-stream",
    RUN_EXPORTS: "application/json",
    f"{RUN_EXPORTS}.zst": "application/zstd",
}


def locate(path: str, accept: str = "") -> Located | None:
    """Return what a URL path below a channel names, None for what no conda client asks for in vain.

    `path` is decoded and has no leading slash. Whether the thing exists is not looked at. `current_repodata.json` and
    `repodata.json.bz2` are never there: clients ask for the other forms then.
    """
    if path == NOTICES:
        return NoticesAt(media_type="application/json", make=notices_json)
    if path == CHANNELDATA:
        return ObjectAt(path=path, media_type="application/json")
    subdir, slash, rest = path.partition("/")
    if not slash or not valid_subdir(subdir):
        return None
    if rest in _MEDIA_TYPES:
        absent = partial(empty_shard_index, subdir) if rest == SHARD_INDEX and subdir in KNOWN_SUBDIRS else None
        return ObjectAt(path=path, media_type=_MEDIA_TYPES[rest], absent=absent)
    if rest.startswith(SHARDS):
        # In a state of the first release a shard lies under no subdir.
        if not _shard(rest.removeprefix(SHARDS)):
            return None
        return ObjectAt(path=path, media_type="application/octet-stream", life=Life.FOREVER, also=rest)
    if not valid_filename(rest, SERVED_EXTENSIONS):
        return None
    media_type = "application/x-bzip2" if rest.endswith(".bz2") else "application/octet-stream"
    return ArtifactAt(part=subdir, filename=rest, media_type=media_type)


def empty_shard_index(subdir: str) -> bytes:
    """Return the shard index of a subdir that the channel does not have (yet).

    rattler remembers a missing shard index for ever, so a known subdir has one from the first day on; its other
    indexes are absent, which every client takes as empty.
    """
    return shard_index(subdir, {}, {})


def file_address(subdir: str, filename: str) -> str:
    """Return where a package's file is below the channel."""
    return f"{subdir}/{quote(filename, safe='!+~=')}"


def set_up(address: str) -> tuple[SetUp, ...]:
    """Return what people type to use the channel at an address, client by client."""
    return (
        SetUp("conda", f"conda config --add channels {address}"),
        SetUp("mamba", f"mamba install -c {address} --override-channels PACKAGE"),
        SetUp("micromamba", f"micromamba create -n env -c {address} --override-channels PACKAGE"),
        SetUp("pixi", f'[workspace]\nchannels = ["{address}"]'),
    )


def install(address: str, package: str) -> tuple[SetUp, ...]:
    """Return what people type to install a package from the channel at an address, client by client."""
    return (
        SetUp("conda", f"conda install -c {address} --override-channels {package}"),
        SetUp("mamba", f"mamba install -c {address} --override-channels {package}"),
        SetUp("micromamba", f"micromamba create -n env -c {address} --override-channels {package}"),
        SetUp("pixi", f"pixi global install -c {address} {package}"),
    )
