"""The small conda channel that the demo mirrors: a few packages in several versions, both formats, one dependency."""

from pathlib import Path

from tests.support.conda import ChannelFolder, PackageSpec

TO_INSTALL = "hello"  # needs greetings


def build_sample_channel(folder: Path, tides: int = 2) -> None:
    """Write the channel's packages and indexes below the folder; of tides as many versions as told, at least two."""
    newer = (PackageSpec(name="tides", version=f"2026.{n}", content=f"tide {n}\n") for n in range(3, tides + 1))
    ChannelFolder(folder, ("noarch",)).add(
        PackageSpec(name="greetings", version="1.0", extension=".tar.bz2", content="hello\n"),
        PackageSpec(name="greetings", version="1.4", content="hello\nbonjour\n"),
        PackageSpec(name="greetings", version="2.0", content="hello\nbonjour\nsaluton\n"),
        PackageSpec(name="hello", version="0.9", extension=".tar.bz2", content="0.9\n"),
        PackageSpec(name="hello", version="1.0", depends=("greetings >=1.4",), content="1.0\n"),
        PackageSpec(name="hello", version="1.10", depends=("greetings >=1.4",), content="1.10\n"),
        PackageSpec(name="tides", version="2026.1", license="CC0-1.0", content="high 04:12\nlow 10:31\n"),
        PackageSpec(name="tides", version="2026.2", license="CC0-1.0", content="high 05:03\nlow 11:20\n"),
        *newer,
    )
