"""The only place that says what a line of the daemon's log looks like: one event, one line, no secret."""

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import TextIO

from firthd.clock import rfc3339

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

# The last net under the rule that secrets are masked where they are known: what looks like one never gets out.
_SECRETS = (
    (re.compile(r"(://)[^\s/@'\"]+@"), r"\1***@"),
    (re.compile(r"(/t/)(?!\{token\}|<)[^\s/'\"]+"), r"\1***"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?\w+\s+)[^\s'\"]+"), r"\1***"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class LineFormatter(logging.Formatter):
    """Renders a record with its traceback as one line; with `journal`, headed by a priority such as `<6>`."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(name)s: %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = one_line(super().format(record))
        if self._journal:
            return f"<{_priority(record.levelno)}>{text}"  # the journal keeps the time itself
        return f"{rfc3339(int(record.created * 1000))} {record.levelname:<7} {text}"


def one_line(text: str) -> str:
    """Return the text with line ends shown as ` | `, other control characters escaped, and secrets masked."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    lines = " | ".join(line for line in text.splitlines() if line.strip())
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", lines)


def set_up(environ: Mapping[str, str], stream: TextIO = sys.stderr) -> bool:
    """Send every record of level INFO and above to `stream`, warnings of Python too; return whether a journal reads."""
    handler = logging.StreamHandler(stream)
    journal = _is_journal(environ, stream)
    handler.setFormatter(LineFormatter(journal=journal))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a line that a full disk does not take is lost; nothing else is
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return journal


def _priority(level: int) -> int:
    return next((priority for floor, priority in sorted(_PRIORITIES.items(), reverse=True) if level >= floor), 7)


def _is_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Tell whether `stream` is the journal's: JOURNAL_STREAM holds its device and inode (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
