"""The facts and the progress that the daemon tells: their topics, types and cursors."""

from enum import StrEnum

from firth_protocol.errors import CursorExpired


class Topic(StrEnum):
    DAEMON = "daemon"
    CHANNEL = "channel"
    MIRROR = "mirror"
    RUN = "run"
    PACKAGE = "package"
    POLICY = "policy"
    ADVISORY = "advisory"
    STORE = "store"
    TOKEN = "token"
    PROGRESS = "progress"


class Fact(StrEnum):
    """The types of durable events, each with the ids it carries."""

    DAEMON_STARTED = "daemon.started"  # data: version
    DAEMON_STOPPING = "daemon.stopping"
    HEALTH_CHANGED = "daemon.health"  # data: subject, text or null when it is well again
    CHANNEL_CREATED = "channel.created"  # ids: channel (name)
    CHANNEL_UPDATED = "channel.updated"
    CHANNEL_DELETED = "channel.deleted"
    CHANNEL_FROZEN = "channel.frozen"
    CHANNEL_UNFROZEN = "channel.unfrozen"
    CHANNEL_PUBLISHED = "channel.published"  # data: generation, added, removed
    DRAFT_GREW = "channel.draft"  # data: change_sets, added, removed
    MIRROR_CREATED = "mirror.created"  # ids: channel, mirror
    MIRROR_UPDATED = "mirror.updated"
    MIRROR_DELETED = "mirror.deleted"
    RUN_QUEUED = "run.queued"  # ids: channel, mirror, run
    RUN_STARTED = "run.started"
    RUN_STEP = "run.step"  # data: step, number, state, description
    RUN_STOPPING = "run.stopping"
    RUN_FINISHED = "run.finished"  # data: state, error
    PACKAGE_REMOVED = "package.removed"  # ids: channel; data: spec, family, files
    PACKAGE_RESTORED = "package.restored"
    POLICY_CREATED = "policy.created"  # ids: policy (name)
    POLICY_UPDATED = "policy.updated"
    POLICY_DELETED = "policy.deleted"
    ADVISORIES_IMPORTED = "advisory.imported"  # data: added, changed, withdrawn, skipped
    ADVISORY_SET = "advisory.set"  # ids: advisory; data: status, score
    STORE_DAMAGED = "store.damaged"  # data: what (package, index), sha256, reason
    TOKEN_CREATED = "token.created"  # ids: token
    TOKEN_REVOKED = "token.revoked"

    @property
    def topic(self) -> Topic:
        return Topic(self.value.split(".")[0])


PROGRESS = "progress"
"""The type of the unnumbered events of topic `progress`: ids {run, mirror, channel}; data: the step in progress
as in `Step`, with bytes_done, bytes_total, rate_bytes_s, eta_s."""

LOST = "lost"
"""The type of the last line for a reader that fell too far behind: list again, then follow."""

READER_LIMIT = 256
"""How many events a reader may be behind before it is cut off."""


def cursor(epoch: str, seq: int) -> str:
    """Return the opaque cursor of event `seq` in this state folder's `epoch`."""
    return f"{epoch}:{seq}"


def parse_cursor(text: str, epoch: str) -> int:
    """Return the sequence number in a cursor; raise CursorExpired when it is foreign or malformed."""
    found, _, seq = text.rpartition(":")
    if found != epoch or not seq.isascii() or not seq.isdigit() or len(seq) > 18:
        raise CursorExpired("the cursor is not of this daemon's state", hint="list again and follow from its as_of")
    return int(seq)
