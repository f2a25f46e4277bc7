"""The only place that makes the demo's source of R packages: a CRAN root in a folder, made without R."""

from pathlib import Path

from tests.support.cran import Cran

TO_INSTALL = "greeting"
"""A package that needs another one of the sample."""


def build_sample_cran(folder: Path) -> list[str]:
    """Write a small CRAN root; return the paths of its packages."""
    files: dict[str, bytes] = {}
    cran = Cran(files)
    cran.put("words", "1.0")
    cran.put("words", "1.1")
    cran.put(TO_INSTALL, "0.2.1", Imports="words (>= 1.1)", Depends="R (>= 3.5.0)")
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return sorted(path for path in files if path.endswith(".tar.gz"))
