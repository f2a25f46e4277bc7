"""The only place that knows who may do what: roles from peer credentials, and what a web token opens."""

import grp
import hashlib
import hmac
import os
import pwd
import secrets
import socket
import string
import struct
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from firth_protocol.errors import Forbidden
from firth_protocol.methods import Method, ScopeBy
from firth_protocol.types import Privacy, Role
from firthd.clock import Clock
from firthd.config import AccessSettings, Grant
from firthd.store.tokens import TokenRow

FIRTH_GROUP = "firth"
"""The group whose members are managers unless firth.toml says otherwise; it also owns the socket."""

_SO_PEERGROUPS = 59  # <asm-generic/socket.h>; Python has no name for it
_MOST_GROUPS = 256  # what Python's getsockopt takes at once

TOKEN_LETTERS = string.ascii_letters + string.digits
TOKEN_LENGTH = 40
"""Random characters of a token: 238 bits. No underscore: conda cannot take one out of an address."""


def covers(patterns: Iterable[str] | None, channel: str) -> bool:
    """Tell whether one of the patterns names the channel; None names every channel.

    `team` names that channel alone, `team/*` its children alone.
    """
    if patterns is None:
        return True
    parent = channel.partition("/")[0] if "/" in channel else None
    return any(pattern == channel or (parent is not None and pattern == f"{parent}/*") for pattern in patterns)


# --- the Unix socket ------------------------------------------------------------------------------------


class Peer(Struct, frozen=True, kw_only=True):
    """What the kernel says of the process at the other end of a Unix socket (unix(7): SO_PEERCRED, SO_PEERGROUPS).

    `groups` are those that it has beside `gid`; the user database may know of others, or of none of them.
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Granted(Struct, frozen=True, kw_only=True):
    """A role, for every channel or for those that the patterns name."""

    role: Role
    channels: tuple[str, ...] | None = None


class Caller(Struct, frozen=True, kw_only=True):
    """Who calls: the strongest role with the channels it holds for, and weaker ones that reach further."""

    uid: int
    pid: int
    user: str
    role: Role
    channels: tuple[str, ...] | None = None
    also: tuple[Granted, ...] = ()

    def role_on(self, channel: str | None) -> Role:
        """Return the strongest role on a channel; None asks for the daemon as a whole."""
        roles = (
            grant.role
            for grant in self._grants()
            if grant.channels is None or (channel is not None and covers(grant.channels, channel))
        )
        return max(roles, key=lambda role: role.rank, default=Role.NONE)

    def patterns(self) -> tuple[str, ...] | None:
        """Return the patterns of the channels that the caller may know of; None for all, an empty tuple for none."""
        seen = [grant.channels for grant in self._grants() if grant.role.covers(Role.READER)]
        if None in seen:
            return None
        return tuple(dict.fromkeys(pattern for patterns in seen for pattern in patterns or ()))

    def sees(self, channel: str) -> bool:
        """Tell whether the caller may know of a channel; "" stands for the store and its runs, which admins see."""
        return self.role_on(channel or None).covers(Role.READER if channel else Role.ADMIN)

    def _grants(self) -> tuple[Granted, ...]:
        return (Granted(role=self.role, channels=self.channels), *self.also)


class Accounts(Protocol):
    """What the system knows of users and groups."""

    def user_name(self, uid: int) -> str | None: ...

    def groups(self, user: str, gid: int) -> Sequence[int]:
        """Return the ids of all groups of a user, `gid` among them."""

    def group_id(self, name: str) -> int | None: ...

    def user_id(self, name: str) -> int | None: ...


class SystemAccounts:
    """The user database of the machine (files, LDAP or whatever it is made of: it may take its time)."""

    def user_name(self, uid: int) -> str | None:
        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            return None

    def groups(self, user: str, gid: int) -> Sequence[int]:
        return os.getgrouplist(user, gid)

    def group_id(self, name: str) -> int | None:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    def user_id(self, name: str) -> int | None:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            return None


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end of a connected Unix socket; raise OSError for any other socket."""
    layout = "iII"
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(layout))
    pid, uid, gid = struct.unpack(layout, raw)
    return Peer(pid=pid, uid=uid, gid=gid, groups=tuple(group for group in _groups_of(connection) if group != gid))


def _groups_of(connection: socket.socket) -> tuple[int, ...]:
    """Return the supplementary groups of the other process; none where the kernel cannot say, or they are too many."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_GROUPS * 4)
    except OSError:
        return ()
    return struct.unpack(f"{len(raw) // 4}I", raw)


class Access:
    """Maps peers to callers, and says what a caller may do."""

    def __init__(self, settings: AccessSettings, own_uid: int, accounts: Accounts | None = None) -> None:
        self._settings = settings
        self._admins = frozenset((0, own_uid))
        self._accounts: Accounts = accounts if accounts is not None else SystemAccounts()

    def caller(self, peer: Peer) -> Caller:
        """Return the peer with its roles. Asks the system's user database: call it in a thread."""
        user = self._accounts.user_name(peer.uid)
        name = user if user is not None else f"uid {peer.uid}"
        granted = self._granted(peer, user)
        if not granted:
            granted = [Granted(role=self._settings.default_role)]
        strongest, *weaker = _ordered(granted)
        return Caller(
            uid=peer.uid,
            pid=peer.pid,
            user=name,
            role=strongest.role,
            channels=strongest.channels,
            also=tuple(grant for grant in weaker if grant.role is not Role.NONE),
        )

    def require(self, caller: Caller, method: Method, channel: str | None) -> None:
        """Raise Forbidden unless the caller may call the method on that channel (None: on no single one)."""
        if channel is not None:
            has = caller.role_on(channel)
        elif _is_for_any_grant(method):
            has = caller.role
        else:
            has = caller.role_on(None)
        if not has.covers(method.role):
            raise _forbidden(caller, method, channel, has)

    def require_anywhere(self, caller: Caller, method: Method) -> None:
        """Raise Forbidden when there is no channel on which the caller may call the method."""
        if not caller.role.covers(method.role):
            raise _forbidden(caller, method, None, caller.role)

    def visible(self, caller: Caller, channel: str) -> bool:
        """Tell whether the caller may know of a channel."""
        return caller.sees(channel)

    def _granted(self, peer: Peer, user: str | None) -> list[Granted]:
        if peer.uid in self._admins:
            return [Granted(role=Role.ADMIN)]
        granted = [_granted(grant) for grant in self._settings.users if self._is_user(grant, peer, user)]
        # A service's SupplementaryGroups= stand in no database, and a new member's session does not have the group yet.
        groups = frozenset((peer.gid, *peer.groups, *(() if user is None else self._accounts.groups(user, peer.gid))))
        named = [(self._gid(grant), grant) for grant in self._settings.groups]
        granted += [_granted(grant) for gid, grant in named if gid in groups]
        firth = self._accounts.group_id(FIRTH_GROUP)
        if firth is not None and firth in groups and all(gid != firth for gid, _ in named):
            granted.append(Granted(role=Role.MANAGER))
        return granted

    def _is_user(self, grant: Grant, peer: Peer, user: str | None) -> bool:
        if grant.uid is not None:
            return grant.uid == peer.uid
        if grant.user is None:
            return False
        # Two names may share a uid; the grant is the uid's then.
        return grant.user == user or self._accounts.user_id(grant.user) == peer.uid

    def _gid(self, grant: Grant) -> int | None:
        if grant.gid is not None:
            return grant.gid
        return self._accounts.group_id(grant.group) if grant.group is not None else None


def _granted(grant: Grant) -> Granted:
    return Granted(role=grant.role, channels=None if grant.channels is None else tuple(grant.channels))


def _ordered(granted: Iterable[Granted]) -> list[Granted]:
    """Return one grant for each role, the strongest first; one for all channels takes in those for some."""
    merged: dict[Role, Granted] = {}
    for grant in granted:
        other = merged.get(grant.role)
        if other is None or grant.channels is None:
            merged[grant.role] = grant
        elif other.channels is not None:
            both = tuple(dict.fromkeys((*other.channels, *grant.channels)))
            merged[grant.role] = Granted(role=grant.role, channels=both)
    return sorted(merged.values(), key=lambda grant: -grant.role.rank)


def _is_for_any_grant(method: Method) -> bool:
    """Tell whether a role limited to channels is enough: lists are cut to them, and looking changes nothing."""
    if method.scope is ScopeBy.LIST:
        return True
    return method.scope is ScopeBy.NONE and not method.changes and Role.OPERATOR.covers(method.role)


def _forbidden(caller: Caller, method: Method, channel: str | None, has: Role) -> Forbidden:
    if channel is not None:
        where = f" on channel {channel}"
    elif caller.role.covers(method.role):
        where = " for all channels"
    else:
        where = ""
    present = f"the role {has}" if has is not Role.NONE else "no role"
    return Forbidden(
        f"{method.name} needs the role {method.role}{where}; {caller.user} has {present}{' there' if where else ''}",
        hint="an administrator gives roles to users and groups under [access] in firth.toml",
        method=method.name,
        channel=channel,
        needed=method.role,
        role=has,
    )


# --- the web --------------------------------------------------------------------------------------------


def new_token() -> str:
    """Return the secret of a new token: letters and digits, so that every client can carry it in an address."""
    return "".join(secrets.choice(TOKEN_LETTERS) for _ in range(TOKEN_LENGTH))


def token_hash(secret: str) -> bytes:
    """Return what is kept of a token's secret: sha256 of its UTF-8 bytes, 32 bytes."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class WebTokens:
    """The tokens in force, in memory, so that a request costs one hash and one look-up.

    `read` gives the rows in force; `touch` writes when tokens were last used, id to milliseconds.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Iterable[TokenRow]]],
        touch: Callable[[Mapping[int, int]], Awaitable[object]],
        clock: Clock,
    ) -> None:
        self._read = read
        self._touch = touch
        self._clock = clock
        self._by_hash: Mapping[bytes, TokenRow] = {}
        self._used: dict[int, int] = {}

    async def load(self) -> None:
        """Read the tokens again; called at start and after each change to them."""
        rows = await self._read()
        self._by_hash = {row.hash: row for row in rows}

    def check(self, secret: str) -> TokenRow | None:
        """Return the token with this secret, or None when it is unknown, revoked or past its time.

        Looking up a hash tells nothing about the secret by the time it takes.
        """
        found = token_hash(secret)
        row = self._by_hash.get(found)
        if row is None or not hmac.compare_digest(row.hash, found) or row.revoked_at is not None:
            return None
        if row.expires_at is not None and row.expires_at <= self._clock.now_ms():
            return None
        return row

    def opens(self, token: TokenRow | None, channel: str, privacy: Privacy) -> bool:
        """Tell whether a request with this token (None: without a valid one) may read a channel."""
        match privacy:
            case Privacy.PUBLIC:
                return True
            case Privacy.AUTHENTICATED:
                return token is not None
            case Privacy.PRIVATE:
                return token is not None and covers(token.channels, channel)

    def used(self, token_id: int, now_ms: int) -> None:
        """Note that a token was used; `flush` writes it down."""
        self._used[token_id] = max(now_ms, self._used.get(token_id, 0))

    async def flush(self) -> None:
        """Write when tokens were last used; what cannot be written is kept for the next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._touch(used)
        except BaseException:
            for token_id, now_ms in used.items():
                self.used(token_id, now_ms)
            raise
