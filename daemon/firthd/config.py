"""The only place that knows which settings there are, what they may be, and where each comes from."""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from firth_protocol import names
from firth_protocol.errors import Invalid
from firth_protocol.types import Role

Positive = Annotated[int, Meta(ge=1)]
HoursOfDay = Annotated[str, Meta(pattern=r"^([01]?[0-9]|2[0-3])-([01]?[0-9]|2[0-4])$")]
Days = Annotated[int, Meta(ge=1, le=36_500)]

TEXT_PLACE = "{text}"
"""Where notify.template wants the sentences."""

_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less its closing NUL
_SYSTEM_MANAGER = "/run/systemd/notify"  # a user's own manager listens elsewhere


class WebSettings(Struct, frozen=True, kw_only=True):
    """The package server on TCP."""

    listen: str = "127.0.0.1:8470"  # HOST:PORT; port 0 takes a free one
    public_url: str | None = None  # what clients are told, when a proxy stands in front
    trusted_proxies: list[str] = []  # networks whose X-Forwarded-* headers are believed
    accel_redirect: str | None = None  # internal location of nginx that holds the state folder
    metrics_allow: list[str] = msgspec.field(
        default_factory=lambda: ["127.0.0.0/8", "::1/128"]
    )  # who may read /metrics


class Grant(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A role for one user (by name or uid) or one group (by name or gid), optionally for named channels only."""

    user: str | None = None
    uid: Annotated[int, Meta(ge=0)] | None = None
    group: str | None = None
    gid: Annotated[int, Meta(ge=0)] | None = None
    role: Role
    channels: list[str] | None = None  # names; `parent/*` stands for the children of parent


class AccessSettings(Struct, frozen=True, kw_only=True):
    """Who may do what on the Unix socket."""

    users: list[Grant] = []
    groups: list[Grant] = []
    default_role: Role = Role.NONE


class StoreSettings(Struct, frozen=True, kw_only=True):
    """The store below the state folder."""

    floor_percent: Annotated[float, Meta(ge=0, le=90)] = 5  # of the disk, never touched by downloads
    grace_days: Annotated[int, Meta(ge=0, le=3650)] = 7  # how long the file of a retired artifact stays fetchable
    export_dirs: list[str] = []  # folders that may take files written for a caller, beside out/
    runs_days: Days = 365  # how long ended runs stay listed, and lines of generations that are no longer kept
    logs_days: Days = 90  # how long the logs of ended runs stay
    audit_days: Days = 3650  # how long lines of the audit log stay

    @property
    def grace_ms(self) -> int:
        """Return the grace period in milliseconds."""
        return self.grace_days * 86_400_000


class RunSettings(Struct, frozen=True, kw_only=True):
    """How runs share the machine."""

    max_active: Positive = 2
    index_workers: Positive | None = None  # unset: as many as cores, at most 2
    resume_interrupted: bool = True


class UpstreamSettings(Struct, frozen=True, kw_only=True):
    """How sources are asked."""

    connections_per_host: Annotated[int, Meta(ge=1, le=256)] = 16
    timeout_s: Annotated[float, Meta(gt=0, le=3600)] = 60
    index_deadline_s: Annotated[int, Meta(ge=60, le=86_400)] = 7200  # in which a source's index must have come
    max_index_bytes: Annotated[int, Meta(ge=1 << 20, le=1 << 40)] = 1 << 30  # one part of an index, decompressed
    max_rate: Annotated[int, Meta(ge=1000)] | None = None  # bytes a second from all sources together; unset: no limit
    max_rate_hours: HoursOfDay | None = None  # UTC hours in which it holds, such as "8-18"; unset: always
    page_ttl_s: Annotated[int, Meta(ge=0)] = 600  # age at which the page of a lazy part is asked for again


class NotifySettings(Struct, frozen=True, kw_only=True):
    """Who is told of runs that went wrong and of changes in health: a command or an address."""

    command: list[str] = []  # program and arguments; it reads JSON from its standard input
    url: str | None = None  # where the JSON is posted to
    template: str | None = None  # what is posted instead; {text} stands for the sentences
    every_s: Annotated[int, Meta(ge=1, le=86_400)] = 60  # shortest time between two notifications
    timeout_s: Annotated[float, Meta(gt=0, le=300)] = 10


class Settings(Struct, frozen=True, kw_only=True):
    """Everything the daemon is told from outside."""

    state: Path
    socket: Path
    web: WebSettings = WebSettings()
    access: AccessSettings = AccessSettings()
    store: StoreSettings = StoreSettings()
    runs: RunSettings = RunSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    notify: NotifySettings = NotifySettings()


class Flags(Struct, frozen=True, kw_only=True):
    """What the command line says; None where it says nothing."""

    config: str | None = None
    state: str | None = None
    socket: str | None = None
    listen: str | None = None


class Loaded(Struct, frozen=True, kw_only=True):
    """The settings in force, the file they were read from (None: there is none), and each setting's origin."""

    settings: Settings
    file: Path | None
    origins: Mapping[str, str]  # "web.listen" -> "FIRTH_LISTEN"


_RENAMED = {("python", "index_ttl_s"): ("upstream", "page_ttl_s")}
"""What files of 0.1.0 call by another name; the new name wins where a file holds both."""


class Places(Struct, frozen=True, kw_only=True):
    """Where state, socket and configuration lie unless told otherwise, and why there."""

    state: Path
    socket: Path
    config: Path
    why: str


_SECTIONS: dict[str, type[Struct]] = {
    "web": WebSettings,
    "access": AccessSettings,
    "store": StoreSettings,
    "runs": RunSettings,
    "upstream": UpstreamSettings,
    "notify": NotifySettings,
}


def default_places(environ: Mapping[str, str], uid: int) -> Places:
    """Return the system's folders for root and under the system's systemd, else the user's XDG folders.

    systemd names the folders it made in STATE_DIRECTORY, RUNTIME_DIRECTORY and CONFIGURATION_DIRECTORY
    (systemd.exec(5)); those win. Without a runtime folder of his own a user's socket lies in the state folder.
    """
    if uid == 0 or environ.get("NOTIFY_SOCKET") == _SYSTEM_MANAGER:
        state, runtime, config = Path("/var/lib/firth"), Path("/run/firth"), Path("/etc/firth")
        why = "default of the system"
    else:
        home = Path(environ.get("HOME") or "~").expanduser()
        state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "firth"
        config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "firth"
        runtime = Path(environ["XDG_RUNTIME_DIR"]) / "firth" if environ.get("XDG_RUNTIME_DIR") else state
        why = "default of the user"
    given = {name: environ.get(f"{name}_DIRECTORY", "").split(":")[0] for name in ("STATE", "RUNTIME", "CONFIGURATION")}
    return Places(
        state=Path(given["STATE"] or state),
        socket=Path(given["RUNTIME"] or runtime) / "firth.sock",
        config=Path(given["CONFIGURATION"] or config) / "firth.toml",
        why="systemd" if any(given.values()) else why,
    )


def load(flags: Flags, environ: Mapping[str, str], uid: int) -> Loaded:
    """Read firth.toml, lay environment and flags over it, and check the whole.

    Flags win over FIRTH_* variables, those over the file, the file over defaults. Raises Invalid, whose message
    names the place (`firth.toml: web.listen: …`) and whose hint suggests what may have been meant.
    """
    places = default_places(environ, uid)
    asked = {name: _asked(name, flags, environ) for name in Flags.__struct_fields__}
    file = Path(asked["config"].value) if asked["config"] else places.config
    tables = _read(file, required=asked["config"] is not None)
    raw: dict[str, Any] = {name: dict(table) for name, table in (tables or {}).items()}
    origins = {
        f"{section}.{field}": str(file) if field in raw.get(section, {}) else "default"
        for section, struct in _SECTIONS.items()
        for field in struct.__struct_fields__
    }
    if listen := asked["listen"]:
        raw.setdefault("web", {})["listen"] = listen.value
        origins["web.listen"] = listen.origin
    for name, default in (("state", places.state), ("socket", places.socket)):
        said = asked[name]
        raw[name] = _absolute(said) if said else default
        origins[name] = said.origin if said else places.why
    settings = _convert(raw, file)
    _check(settings, origins)
    return Loaded(settings=settings, file=file if tables is not None else None, origins=origins)


def parse_listen(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPv6]:PORT`; an empty host means every address. Raises Invalid."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise Invalid(f"{text!r} is no HOST:PORT", hint="write an IPv6 address in brackets: [::1]:8470")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise Invalid(f"{text!r} is no HOST:PORT", hint="for example 127.0.0.1:8470; port 0 takes a free one")
    return host, int(port)


def describe(loaded: Loaded) -> list[tuple[str, str, str]]:
    """Return (setting, value as JSON, origin) for each setting in force; secrets are hidden."""
    rows = []
    for name, value in msgspec.to_builtins(public(loaded.settings), enc_hook=str).items():
        pairs = [(f"{name}.{key}", item) for key, item in value.items()] if isinstance(value, dict) else [(name, value)]
        for key, item in pairs:
            text = "unset" if item is None else msgspec.json.encode(item).decode()
            rows.append((key, text, loaded.origins[key]))
    return rows


def public(settings: Settings) -> Settings:
    """Return settings fit to be shown: the address of a chat, and what is posted there, hold its key."""
    notify = settings.notify
    url = None if notify.url is None else f"{urlsplit(notify.url).scheme}://{urlsplit(notify.url).hostname}/***"
    hidden = msgspec.structs.replace(notify, url=url, template=None if notify.template is None else "***")
    return msgspec.structs.replace(settings, notify=hidden)


class _Said(Struct, frozen=True):
    """What a flag or a variable says, and which."""

    value: str
    origin: str


def _asked(name: str, flags: Flags, environ: Mapping[str, str]) -> _Said | None:
    """Return what the flag says, else the variable; an empty text says nothing."""
    if flag := getattr(flags, name):
        return _Said(flag, f"--{name}")
    variable = f"FIRTH_{name.upper()}"
    return _Said(environ[variable], variable) if environ.get(variable) else None


def _absolute(said: _Said) -> Path:
    if "\0" in said.value:
        raise Invalid(f"{said.origin}: a path cannot hold a NUL character")
    return Path(said.value).expanduser().absolute()


def _read(file: Path, *, required: bool) -> dict[str, dict[str, Any]] | None:
    """Return the tables of firth.toml, or None where the file does not exist and nobody asked for it."""
    try:
        with file.open("rb") as stream:
            tables = tomllib.load(stream)
    except FileNotFoundError:
        if required:
            raise Invalid(f"{file}: no such file", hint="without --config and FIRTH_CONFIG defaults apply") from None
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid(f"{file}: {error}") from error
    _rename(tables)
    problems = list(_unknown(tables))
    if problems:
        raise Invalid(f"{file}: {'; '.join(problems)}", hint="`firthd check-config` lists the settings there are")
    return tables


def _rename(tables: dict[str, Any]) -> None:
    """Put what has an old name under its new one; a section that holds nothing else goes."""
    for (section, field), (now_in, now) in _RENAMED.items():
        if section not in tables:
            continue
        old, new = tables[section], tables.setdefault(now_in, {})
        if isinstance(old, dict) and isinstance(new, dict):
            if field in old:
                value = old.pop(field)
                new.setdefault(now, value)
            if not old and section not in _SECTIONS:
                del tables[section]


def _unknown(tables: Mapping[str, Any]) -> list[str]:
    problems = []
    for section, table in tables.items():
        if section not in _SECTIONS:
            problems.append(f"unknown section or setting {section!r}{_meant(section, _every_name())}")
        elif not isinstance(table, dict):
            problems.append(f"{section} is a section: write [{section}]")
        else:
            fields = _SECTIONS[section].__struct_fields__
            problems += [f"unknown setting {section}.{key}{_meant(key, fields)}" for key in table if key not in fields]
            if section == "access":
                problems += _unknown_in_grants(table)
    return problems


def _unknown_in_grants(access: Mapping[str, Any]) -> list[str]:
    entries = [
        (kind, entry) for kind in ("users", "groups") for entry in _list(access.get(kind)) if isinstance(entry, dict)
    ]
    fields = Grant.__struct_fields__
    return [
        f"unknown key {key!r} in access.{kind}{_meant(key, fields)}"
        for kind, entry in entries
        for key in entry
        if key not in fields
    ]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _every_name() -> list[str]:
    return [*_SECTIONS, *(f"{section}.{field}" for section, s in _SECTIONS.items() for field in s.__struct_fields__)]


def _meant(name: str, known: tuple[str, ...] | list[str]) -> str:
    """Return `, did you mean …?`, comparing with whole names and, for a setting outside its section, with its tail."""
    tails = {entry.rpartition(".")[2]: entry for entry in known}
    close = difflib.get_close_matches(name, tails, n=1, cutoff=0.6)
    return f", did you mean {tails[close[0]]}?" if close else ""


def _convert(raw: Mapping[str, Any], file: Path) -> Settings:
    try:
        return msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise Invalid(f"{file}: {path.strip('.`') or 'settings'}: {problem}") from error


def _check(settings: Settings, origins: Mapping[str, str]) -> None:
    """Check what types cannot say."""
    if len(os.fsencode(settings.socket)) > _SOCKET_PATH_BYTES:
        raise Invalid(
            f"{origins['socket']}: {settings.socket} has over {_SOCKET_PATH_BYTES} bytes, too long for a Unix socket",
            hint="choose a shorter one with --socket or FIRTH_SOCKET",
        )
    _check_web(settings.web, origins)
    _check_notify(settings.notify, origins)
    for kind, grants, who in (
        ("users", settings.access.users, ("user", "uid")),
        ("groups", settings.access.groups, ("group", "gid")),
    ):
        for grant in grants:
            _check_grant(grant, who, f"{origins[f'access.{kind}']}: access.{kind}")
    for folder in settings.store.export_dirs:
        if not Path(folder).is_absolute():
            raise Invalid(f"{origins['store.export_dirs']}: store.export_dirs: {folder!r} is not an absolute path")


def _check_web(web: WebSettings, origins: Mapping[str, str]) -> None:
    try:
        parse_listen(web.listen)
    except Invalid as error:
        raise Invalid(f"{origins['web.listen']}: web.listen: {error.message}", hint=error.hint) from None
    for field in ("trusted_proxies", "metrics_allow"):
        for network in getattr(web, field):
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise Invalid(f"{origins[f'web.{field}']}: web.{field}: {error}") from error
    if web.public_url is not None:
        _check_public_url(web.public_url, f"{origins['web.public_url']}: web.public_url")
    accel = web.accel_redirect
    if accel is not None and not re.fullmatch(r"/[A-Za-z0-9._/-]*", accel):
        raise Invalid(
            f"{origins['web.accel_redirect']}: web.accel_redirect: {accel!r} is no location of nginx",
            hint="write the internal location as in nginx's configuration, for example /_firth/",
        )


def _check_notify(notify: NotifySettings, origins: Mapping[str, str]) -> None:
    """Raise Invalid for a hook that cannot work; the text repeats nothing that may be a key."""
    if notify.command and notify.url is not None:
        raise Invalid(f"{origins['notify.url']}: notify.url: there is notify.command, too", hint="keep one of the two")
    if notify.command and not Path(notify.command[0]).is_absolute():
        raise Invalid(f"{origins['notify.command']}: notify.command: {notify.command[0]!r} is not an absolute path")
    if any("\0" in word for word in notify.command):
        raise Invalid(f"{origins['notify.command']}: notify.command: an argument cannot hold a NUL character")
    if notify.url is not None and not _is_address(notify.url):
        raise Invalid(f"{origins['notify.url']}: notify.url: no http or https address")
    if notify.template is None:
        return
    place = f"{origins['notify.template']}: notify.template"
    if notify.url is None:
        raise Invalid(f"{place}: it is for notify.url", hint="notify.command gets the whole JSON")
    if TEXT_PLACE not in notify.template:
        raise Invalid(f"{place}: it does not say where the text goes", hint=f"write {TEXT_PLACE} where it is wanted")
    if is_json(notify.template) and not _is_object(notify.template):
        raise Invalid(f"{place}: it begins like JSON and is none", hint=f'for example {{"text": "{TEXT_PLACE}"}}')


def is_json(template: str) -> bool:
    """Tell whether a template is meant as an object of JSON, its place standing inside a string."""
    return template.lstrip().startswith("{") and not template.lstrip().startswith(TEXT_PLACE)


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _check_public_url(url: str, place: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise Invalid(f"{place}: no http or https address", hint="for example https://packages.example.org")
    if parts.username is not None or parts.password is not None:
        raise Invalid(f"{place}: an address that everybody is told cannot hold a user or password")


def _check_grant(grant: Grant, who: tuple[str, str], place: str) -> None:
    given = [name for name in ("user", "uid", "group", "gid") if getattr(grant, name) is not None]
    if len(given) != 1 or given[0] not in who:
        raise Invalid(f"{place}: each entry names exactly one {who[0]} or {who[1]}")
    for channel in grant.channels or []:
        if not names.is_pattern(channel):
            raise Invalid(
                f"{place}: {channel!r} is no channel", hint="write main, main/dev, or main/* for its children"
            )
