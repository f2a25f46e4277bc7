"""Roles from peer credentials, grants for some channels, and what tokens open."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firth_protocol.errors import Forbidden
from firth_protocol.methods import METHODS
from firth_protocol.types import Privacy, Role
from firthd.access import (
    Access,
    Caller,
    Granted,
    Peer,
    SystemAccounts,
    WebTokens,
    covers,
    new_token,
    peer_of,
    token_hash,
)
from firthd.config import AccessSettings, Grant
from firthd.store.tokens import TokenRow
from tests.support.clock import FakeClock

KIM, LEE, OWN = 1001, 1002, 990
STAFF, BIO, FIRTH = 50, 60, 70


class Accounts:
    """A user database: kim is in staff and bio, lee in staff and firth, fred has no name."""

    users: Mapping[int, str] = {0: "root", OWN: "firthd", KIM: "kim", LEE: "lee"}
    members: Mapping[str, tuple[int, ...]] = {"kim": (STAFF, BIO), "lee": (STAFF, FIRTH)}
    names: Mapping[str, int] = {"staff": STAFF, "bio": BIO, "firth": FIRTH}

    def user_name(self, uid: int) -> str | None:
        return self.users.get(uid)

    def groups(self, user: str, gid: int) -> Sequence[int]:
        return (gid, *self.members.get(user, ()))

    def group_id(self, name: str) -> int | None:
        return self.names.get(name)

    def user_id(self, name: str) -> int | None:
        return next((uid for uid, known in self.users.items() if known == name), None)


def access(*, users: list[Grant] | None = None, groups: list[Grant] | None = None, default: Role = Role.NONE) -> Access:
    return Access(AccessSettings(users=users or [], groups=groups or [], default_role=default), OWN, Accounts())


def peer(uid: int, gid: int = 100) -> Peer:
    return Peer(pid=7, uid=uid, gid=gid)


# --- who is what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", [0, OWN])
def test_root_and_the_daemons_own_user_are_admin_whatever_is_configured(uid: int) -> None:
    rules = access(users=[Grant(uid=uid, role=Role.READER)], default=Role.READER)
    assert (rules.caller(peer(uid)).role, rules.caller(peer(uid)).channels) == (Role.ADMIN, None)


def test_members_of_the_group_firth_are_managers() -> None:
    found = access().caller(peer(LEE))
    assert found == Caller(uid=LEE, pid=7, user="lee", role=Role.MANAGER)


@pytest.mark.parametrize("grant", [Grant(group="firth", role=Role.READER), Grant(gid=FIRTH, role=Role.READER)])
def test_the_group_firth_can_be_given_another_role(grant: Grant) -> None:
    assert access(groups=[grant]).caller(peer(LEE)).role is Role.READER


def test_the_primary_group_counts_for_a_user_without_a_name() -> None:
    found = access().caller(peer(4711, gid=FIRTH))
    assert (found.user, found.role) == ("uid 4711", Role.MANAGER)


@pytest.mark.parametrize("uid", [KIM, 4711])
def test_a_group_of_the_process_itself_counts_whatever_the_user_database_says(uid: int) -> None:
    service = Peer(pid=7, uid=uid, gid=uid, groups=(FIRTH,))
    assert access().caller(service).role is Role.MANAGER
    assert access(groups=[Grant(gid=FIRTH, role=Role.READER)]).caller(service).role is Role.READER


def test_others_get_the_default_role() -> None:
    assert access().caller(peer(KIM)).role is Role.NONE
    assert access(default=Role.READER).caller(peer(KIM)).role is Role.READER


@pytest.mark.parametrize(
    "users", [[Grant(user="kim", role=Role.OPERATOR)], [Grant(uid=KIM, role=Role.OPERATOR)]], ids=["by name", "by uid"]
)
def test_a_user_gets_the_role_configured(users: list[Grant]) -> None:
    rules = access(users=users)
    assert rules.caller(peer(KIM)).role is Role.OPERATOR
    assert rules.caller(peer(4711)).role is Role.NONE


def test_a_group_that_the_system_does_not_know_matches_nobody() -> None:
    assert access(groups=[Grant(group="ghosts", role=Role.ADMIN)]).caller(peer(KIM)).role is Role.NONE


def test_the_strongest_grant_wins_and_weaker_ones_reach_further() -> None:
    rules = access(
        users=[Grant(user="kim", role=Role.READER)],
        groups=[
            Grant(group="bio", role=Role.MANAGER, channels=["bio", "bio/*"]),
            Grant(group="staff", role=Role.MANAGER, channels=["lab"]),
        ],
    )
    kim = rules.caller(peer(KIM))
    assert kim.role is Role.MANAGER
    assert kim.channels == ("bio", "bio/*", "lab")
    assert kim.also == (Granted(role=Role.READER),)
    roles = {name: kim.role_on(name) for name in ("bio", "bio/dev", "lab", "lab/x", "main", None)}
    assert roles == {
        "bio": Role.MANAGER,
        "bio/dev": Role.MANAGER,
        "lab": Role.MANAGER,
        "lab/x": Role.READER,
        "main": Role.READER,
        None: Role.READER,
    }


def test_a_grant_for_all_channels_takes_in_one_for_some() -> None:
    grants = [
        Grant(group="bio", role=Role.MANAGER, channels=["bio"]),
        Grant(group="staff", role=Role.MANAGER),
    ]
    kim = access(groups=grants).caller(peer(KIM))
    assert (kim.role, kim.channels, kim.also) == (Role.MANAGER, None, ())


@pytest.mark.parametrize(
    ("pattern", "names", "not_named"),
    [
        ("team", ["team"], ["team/a", "teams", "tea"]),
        ("team/*", ["team/a", "team/b-c"], ["team", "teams/a", "*"]),
        ("team/a", ["team/a"], ["team", "team/ab"]),
    ],
)
def test_patterns(pattern: str, names: list[str], not_named: list[str]) -> None:
    assert [name for name in names + not_named if covers([pattern], name)] == names


@given(st.lists(st.sampled_from(["a", "a/*", "b", "b/*", "a/x"])), st.sampled_from(["a", "a/x", "b", "b/x", "c"]))
def test_more_patterns_never_cover_less(patterns: list[str], channel: str) -> None:
    assert covers(None, channel)
    assert not covers((), channel)
    assert covers(patterns, channel) == any(covers([pattern], channel) for pattern in patterns)


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peer_of(ours) == Peer(pid=os.getpid(), uid=os.getuid(), gid=os.getgid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a process other groups")
@pytest.mark.parametrize("count", [2, 300])
def test_the_kernel_says_which_groups_the_other_process_has(tmp_path: Path, count: int) -> None:
    theirs = range(5000, 5000 + count)
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        command = [sys.executable, "-S", "-c", program, str(tmp_path / "s")]
        with subprocess.Popen(command, extra_groups=theirs) as child, listener.accept()[0] as connection:
            found = peer_of(connection)
            connection.sendall(b".")
    assert (found.pid, found.uid) == (child.pid, os.getuid())
    assert found.groups == (tuple(theirs) if count == 2 else ())  # too many to be told: the user database has to do


def test_the_system_knows_its_users() -> None:
    accounts = SystemAccounts()
    name = accounts.user_name(os.getuid())
    assert name is not None
    assert accounts.user_id(name) == os.getuid()
    assert 4711 in accounts.groups(name, 4711)
    assert accounts.user_name(2**31 - 7) is None
    assert accounts.user_id("no-such-user-here") is None
    assert accounts.group_id("no-such-group-here") is None


# --- who may what ---------------------------------------------------------------------------------------


LIMITED = Caller(uid=KIM, pid=7, user="kim", role=Role.MANAGER, channels=("bio", "bio/*"))


@pytest.mark.parametrize(
    ("method", "channel", "allowed"),
    [
        ("channel.freeze", "bio", True),
        ("channel.freeze", "bio/dev", True),
        ("channel.freeze", "main", False),
        ("channel.create", "bio/new", True),
        ("channel.create", "new", False),
        ("channel.list", None, True),  # cut to what the caller may see
        ("daemon.status", None, True),
        ("rpc.discover", None, True),
        ("mirror.check", None, True),
        ("daemon.check", None, False),
        ("token.create", None, False),
        ("audit.list", None, False),
    ],
)
def test_a_role_for_some_channels(method: str, channel: str | None, allowed: bool) -> None:
    rules = access()
    if allowed:
        rules.require(LIMITED, METHODS[method], channel)
    else:
        with pytest.raises(Forbidden):
            rules.require(LIMITED, METHODS[method], channel)


def test_an_admin_of_some_channels_has_no_tokens_and_no_audit_log() -> None:
    limited = Caller(uid=KIM, pid=7, user="kim", role=Role.ADMIN, channels=("bio",))
    for method in ("token.list", "token.create", "audit.list", "daemon.check"):
        with pytest.raises(Forbidden, match="needs the role admin for all channels; kim has no role there"):
            access().require(limited, METHODS[method], None)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("method", list(METHODS))
def test_each_method_wants_its_role(role: Role, method: str) -> None:
    row = METHODS[method]
    someone = Caller(uid=KIM, pid=7, user="kim", role=role)
    if role.rank >= row.role.rank:
        access().require(someone, row, "main")
        access().require_anywhere(someone, row)
        return
    with pytest.raises(Forbidden):
        access().require(someone, row, "main")
    with pytest.raises(Forbidden):
        access().require_anywhere(someone, row)


def test_the_refusal_says_what_is_needed_and_what_there_is() -> None:
    with pytest.raises(Forbidden) as caught:
        access().require(LIMITED, METHODS["channel.freeze"], "main")
    error = caught.value
    assert error.message == "channel.freeze needs the role operator on channel main; kim has no role there"
    assert error.hint == "an administrator gives roles to users and groups under [access] in firth.toml"
    assert error.data == {"method": "channel.freeze", "channel": "main", "needed": "operator", "role": "none"}
    nobody = Caller(uid=KIM, pid=7, user="kim", role=Role.NONE)
    with pytest.raises(Forbidden, match=re.escape("channel.list needs the role reader; kim has no role")):
        access().require_anywhere(nobody, METHODS["channel.list"])


def test_the_patterns_of_what_a_caller_sees() -> None:
    def patterns(role: Role, channels: tuple[str, ...] | None, *also: Granted) -> tuple[str, ...] | None:
        return Caller(uid=1, pid=1, user="x", role=role, channels=channels, also=also).patterns()

    assert patterns(Role.READER, None) is None
    assert patterns(Role.NONE, None) == ()
    assert patterns(Role.MANAGER, ("a", "b"), Granted(role=Role.READER, channels=("b", "c"))) == ("a", "b", "c")
    assert patterns(Role.MANAGER, ("a",), Granted(role=Role.READER)) is None


def test_what_a_caller_sees() -> None:
    assert access().visible(LIMITED, "bio/dev")
    assert not access().visible(LIMITED, "main")
    assert not access().visible(Caller(uid=1, pid=1, user="x", role=Role.NONE), "main")


# --- web tokens -----------------------------------------------------------------------------------------


class Tokens:
    """The rows of tokens, and when each was last used."""

    def __init__(self, *rows: TokenRow) -> None:
        self.rows = list(rows)
        self.touched: list[dict[int, int]] = []
        self.broken = False

    async def read(self) -> list[TokenRow]:
        return self.rows

    async def touch(self, used: Mapping[int, int]) -> None:
        if self.broken:
            raise OSError("disk full")
        self.touched.append(dict(used))


def row(token_id: int, secret: str, **given: object) -> TokenRow:
    fields = {"channels": (), "expires_at": None, "revoked_at": None, "name": f"t{token_id}"} | given
    return TokenRow(id=token_id, hash=token_hash(secret), **fields)  # type: ignore[arg-type]


async def loaded(*rows: TokenRow) -> tuple[WebTokens, Tokens, FakeClock]:
    clock, store = FakeClock(), Tokens(*rows)
    tokens = WebTokens(store.read, store.touch, clock)
    await tokens.load()
    return tokens, store, clock


async def test_a_token_is_known_by_its_secret() -> None:
    tokens, store, _ = await loaded(row(1, "one"), row(2, "two"))
    assert tokens.check("two") == store.rows[1]
    assert tokens.check("three") is None
    assert tokens.check("") is None
    assert tokens.check("\udcff") is None


async def test_an_expired_or_revoked_token_is_none() -> None:
    start = FakeClock().now_ms()
    tokens, store, clock = await loaded(row(1, "one", expires_at=start + 1000), row(2, "two", revoked_at=start))
    assert tokens.check("one") is not None
    assert tokens.check("two") is None
    await clock.advance(1)
    assert tokens.check("one") is None
    store.rows.clear()
    await tokens.load()
    assert tokens.check("two") is None


async def test_what_tokens_open() -> None:
    tokens, _, _ = await loaded()
    plain, team, children = row(1, "a"), row(2, "b", channels=("team",)), row(3, "c", channels=("team/*",))
    opened = {
        (privacy, name): [
            token.id if token else None for token in (None, plain, team, children) if tokens.opens(token, name, privacy)
        ]
        for privacy in Privacy
        for name in ("team", "team/a")
    }
    assert opened == {
        (Privacy.PUBLIC, "team"): [None, 1, 2, 3],
        (Privacy.PUBLIC, "team/a"): [None, 1, 2, 3],
        (Privacy.AUTHENTICATED, "team"): [1, 2, 3],
        (Privacy.AUTHENTICATED, "team/a"): [1, 2, 3],
        (Privacy.PRIVATE, "team"): [2],
        (Privacy.PRIVATE, "team/a"): [3],
    }


async def test_uses_are_collected_and_written_once() -> None:
    tokens, store, _ = await loaded()
    tokens.used(1, 10)
    tokens.used(1, 30)
    tokens.used(1, 20)
    tokens.used(2, 5)
    await tokens.flush()
    await tokens.flush()
    assert store.touched == [{1: 30, 2: 5}]


async def test_uses_that_cannot_be_written_are_kept() -> None:
    tokens, store, _ = await loaded()
    tokens.used(1, 10)
    store.broken = True
    with pytest.raises(OSError, match="disk full"):
        await tokens.flush()
    tokens.used(1, 7)
    store.broken = False
    await tokens.flush()
    assert store.touched == [{1: 10}]


def test_a_new_token_fits_into_every_address() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[A-Za-z0-9-]{40}", token) for token in made)
