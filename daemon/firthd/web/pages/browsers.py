"""The only place that tells a person's browser from a program, by what a request says of itself. Pure."""

import re
from collections.abc import Mapping

PAGE = "text/html"

_program = re.compile(r"(pip|uv|conda|mamba|libmamba|micromamba|pixi|rattler|poetry|r|renv|pak)\b", re.IGNORECASE).match


def wants_page(headers: Mapping[str, str]) -> bool:
    """Tell whether a refusal is read by a person in a browser: HTML is named, and nothing that programs read is before.

    Old installers ask for HTML alone, and show a person the reason phrase: they are told by their names.
    """
    if _program(headers.get("User-Agent", "")):
        return False
    wanted = dict(_ranges(headers.get("Accept", "")))
    page = wanted.get(PAGE, 0.0)
    for_programs = max((quality for kind, quality in wanted.items() if kind.endswith(("json", "+html"))), default=0.0)
    return page > for_programs


def _ranges(accept: str) -> list[tuple[str, float]]:
    found = []
    for part in accept.lower().split(","):
        kind, *params = (text.strip() for text in part.split(";"))
        quality = next((text[2:].strip() for text in params if text.startswith("q=")), "1")
        try:
            found.append((kind, float(quality)))
        except ValueError:
            continue
    return found
