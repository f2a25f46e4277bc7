"""The only place that takes the commands out of the documents, to be checked and run as they stand."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCED = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def section(document: str, heading: str) -> str:
    """Return a document's section, from its heading to the next one of the same depth."""
    text = (ROOT / document).read_text()
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{document} has no section {heading}"
    return found.group(1)


def blocks(text: str, language: str = "") -> list[str]:
    """Return the fenced blocks of a language, in their order."""
    return [found["text"] for found in _FENCED.finditer(text) if found["language"] == language]


def commands(block: str) -> list[str]:
    """Return the commands of a block, those over several lines in one; comment lines are left out."""
    joined = block.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
