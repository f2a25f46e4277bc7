"""The only place that writes a channel's notices.json, which conda shows to its users (CEP 6)."""

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from firth_protocol.types import Notice

NOTICES = "notices.json"


def notices_json(notices: Sequence[Notice]) -> bytes:
    """Return the file; a notice keeps its id as long as it says the same, so that it is shown once in its interval."""
    told = []
    for notice in notices:
        entry = {
            "id": sha256(f"{notice.level}\n{notice.message}".encode()).hexdigest()[:16],
            "message": notice.message,
            "level": notice.level,
            "created_at": _iso(notice.created_at),
            "expired_at": _iso(notice.expires_at),
        }
        told.append({key: value for key, value in entry.items() if value is not None})
    return msgspec.json.encode({"notices": told})


def _iso(time: str | None) -> str | None:
    """Return a time with a numeric zone: Python before 3.11, which conda may run on, reads no other."""
    return None if time is None else time.replace("Z", "+00:00")
