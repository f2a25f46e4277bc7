"""Settings: what wins over what, what is refused and with which sentence, and what check-config says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from firth_protocol.errors import Invalid
from firth_protocol.types import Role
from firthd.config import Flags, Grant, default_places, describe, load, parse_listen

USER = 1000


def write(folder: Path, text: str) -> str:
    file = folder / "firth.toml"
    file.write_text(text)
    return str(file)


def refusal(folder: Path, text: str) -> Invalid:
    file = write(folder, text)
    with pytest.raises(Invalid) as caught:
        load(Flags(config=file), {"HOME": str(folder)}, USER)
    assert caught.value.message.startswith(f"{file}: ")
    return caught.value


def test_without_a_file_defaults_are_in_force(tmp_path: Path) -> None:
    loaded = load(Flags(), {"HOME": str(tmp_path)}, USER)
    assert loaded.file is None
    assert loaded.settings.web.listen == "127.0.0.1:8470"
    assert loaded.settings.access.default_role is Role.NONE
    assert loaded.settings.runs.max_active == 2
    assert loaded.origins["web.listen"] == "default"
    assert loaded.origins["state"] == "default of the user"


def test_a_user_gets_the_xdg_folders(tmp_path: Path) -> None:
    environ = {
        "HOME": "/home/ann",
        "XDG_STATE_HOME": "/x/state",
        "XDG_RUNTIME_DIR": "/run/user/1000",
        "XDG_CONFIG_HOME": "/x/c",
    }
    places = default_places(environ, USER)
    assert (places.state, places.socket) == (Path("/x/state/firth"), Path("/run/user/1000/firth/firth.sock"))
    assert places.config == Path("/x/c/firth/firth.toml")
    bare = default_places({"HOME": "/home/ann"}, USER)
    assert bare.state == Path("/home/ann/.local/state/firth")
    assert bare.socket == bare.state / "firth.sock"


@pytest.mark.parametrize(
    ("uid", "environ"),
    [
        pytest.param(0, {"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"}, id="root"),
        pytest.param(USER, {"HOME": "/", "NOTIFY_SOCKET": "/run/systemd/notify"}, id="system manager"),
        pytest.param(
            USER,
            {
                "STATE_DIRECTORY": "/var/lib/firth:/var/lib/other",
                "RUNTIME_DIRECTORY": "/run/firth",
                "CONFIGURATION_DIRECTORY": "/etc/firth",
            },
            id="folders made by systemd",
        ),
    ],
)
def test_the_system_gets_the_system_folders(uid: int, environ: dict[str, str]) -> None:
    places = default_places(environ, uid)
    assert places.state == Path("/var/lib/firth")
    assert places.socket == Path("/run/firth/firth.sock")
    assert places.config == Path("/etc/firth/firth.toml")


def test_a_users_own_manager_does_not_make_it_the_system() -> None:
    places = default_places({"HOME": "/home/ann", "NOTIFY_SOCKET": "/run/user/1000/systemd/notify"}, USER)
    assert places.state == Path("/home/ann/.local/state/firth")


def test_flags_win_over_variables_and_those_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[web]\nlisten = "127.0.0.1:1"\npublic_url = "https://packages.example.org"\n')
    environ = {"HOME": str(tmp_path), "FIRTH_CONFIG": file}
    from_file = load(Flags(), environ, USER)
    assert (from_file.settings.web.listen, from_file.origins["web.listen"]) == ("127.0.0.1:1", file)

    environ |= {"FIRTH_LISTEN": "127.0.0.1:2", "FIRTH_STATE": "/srv/env", "FIRTH_SOCKET": "/srv/env.sock"}
    from_environ = load(Flags(), environ, USER)
    assert from_environ.settings.web.listen == "127.0.0.1:2"
    assert from_environ.settings.web.public_url == "https://packages.example.org"
    assert from_environ.origins["web.listen"] == "FIRTH_LISTEN"
    assert (from_environ.settings.socket, from_environ.origins["socket"]) == (Path("/srv/env.sock"), "FIRTH_SOCKET")

    from_flags = load(Flags(listen="[::1]:3", state="/srv/flag"), environ, USER)
    assert (from_flags.settings.web.listen, from_flags.origins["web.listen"]) == ("[::1]:3", "--listen")
    assert (from_flags.settings.state, from_flags.origins["state"]) == (Path("/srv/flag"), "--state")


def test_the_whole_file_is_read(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
[web]
trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]
accel_redirect = "/_firth/"
[access]
default_role = "reader"
users = [{ user = "ann", role = "admin" }, { uid = 1001, role = "operator" }]
groups = [{ group = "bio", role = "manager", channels = ["bio", "bio/*"] }]
[store]
floor_percent = 10
export_dirs = ["/srv/export"]
[runs]
resume_interrupted = false
[upstream]
timeout_s = 2.5
[python]
index_ttl_s = 60
""",
    )
    settings = load(Flags(config=file), {"HOME": "/"}, USER).settings
    assert settings.access.users == [Grant(user="ann", role=Role.ADMIN), Grant(uid=1001, role=Role.OPERATOR)]
    assert settings.access.groups == [Grant(group="bio", role=Role.MANAGER, channels=["bio", "bio/*"])]
    assert settings.store.floor_percent == 10
    assert settings.upstream.timeout_s == 2.5
    assert settings.upstream.page_ttl_s == 60  # by the name that it had
    assert not settings.runs.resume_interrupted


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("[web]\nlisen = 1\n", "unknown setting web.lisen, did you mean listen?", id="typing error"),
        pytest.param("[wed]\n", "unknown section or setting 'wed', did you mean web?", id="section"),
        pytest.param('listen = "x:1"\n', "'listen', did you mean web.listen?", id="outside its section"),
        pytest.param("[web]\nzzzzzz = 1\n", "unknown setting web.zzzzzz", id="nothing alike"),
        pytest.param("[runs]\nmax_active = 0\n", "runs.max_active: Expected `int` >= 1", id="too small"),
        pytest.param('[runs]\nmax_active = "2"\n', "runs.max_active: Expected `int`, got `str`", id="wrong type"),
        pytest.param('[web]\nlisten = "8470"\n', "web.listen: '8470' is no HOST:PORT", id="no host"),
        pytest.param('[web]\nlisten = "::1:8470"\n', "is no HOST:PORT", id="bare IPv6"),
        pytest.param('[web]\nlisten = "h:70000"\n', "is no HOST:PORT", id="port out of range"),
        pytest.param('[web]\nmetrics_allow = ["10.0.0.1/8"]\n', "web.metrics_allow: 10.0.0.1/8 has host", id="bits"),
        pytest.param('[web]\npublic_url = "packages"\n', "web.public_url: no http", id="no address"),
        pytest.param('[web]\naccel_redirect = "x y"\n', "is no location of nginx", id="location"),
        pytest.param('[access]\nusers = [{role = "admin"}]\n', "exactly one user or uid", id="nobody"),
        pytest.param('[access]\nusers = [{group = "x", role = "admin"}]\n', "exactly one user or uid", id="group"),
        pytest.param('[access]\nusers = [{user = "a", role = "root"}]\n', "Invalid enum value 'root'", id="role"),
        pytest.param('[access]\ngroups = [{grup = "x", role = "admin"}]\n', "did you mean group?", id="grant key"),
        pytest.param(
            '[access]\ngroups = [{group = "x", role = "admin", channels = ["Main"]}]\n',
            "'Main' is no channel",
            id="name",
        ),
        pytest.param("web = 1\n", "web is a section: write [web]", id="no table"),
        pytest.param('[notify]\ncommand = ["tell"]\n', "'tell' is not an absolute path", id="command"),
        pytest.param('[notify]\ncommand = ["/x", "a\\u0000b"]\n', "cannot hold a NUL character", id="argument"),
        pytest.param('[notify]\nurl = "ftp://h/"\n', "notify.url: no http or https address", id="hook"),
        pytest.param('[notify]\nurl = "http://[x"\n', "notify.url: no http or https address", id="broken hook"),
        pytest.param('[notify]\nurl = "http://h/"\ncommand = ["/x"]\n', "there is notify.command, too", id="both"),
        pytest.param('[notify]\ntemplate = "{text}"\n', "it is for notify.url", id="template alone"),
        pytest.param('[notify]\nurl = "http://h/"\ntemplate = "x"\n', "where the text goes", id="no place"),
        pytest.param("[notify]\nurl = 'http://h/'\ntemplate = '{\"a\": {text}}'\n", "begins like JSON", id="JSON"),
        pytest.param("[web\n", "line 1", id="no TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in refusal(tmp_path, text).message


def test_a_password_in_the_public_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    error = refusal(tmp_path, '[web]\npublic_url = "https://ann:s3cret@packages.example.org"\n')
    assert "s3cret" not in error.message + error.hint


def test_the_key_of_a_hook_is_shown_to_nobody(tmp_path: Path) -> None:
    text = """[notify]
url = "https://ann:s3cret@chat.example.org/hooks/s3cret?key=s3cret"
template = '{"token": "s3cret", "text": "{text}"}'
"""
    loaded = load(Flags(config=write(tmp_path, text)), {"HOME": str(tmp_path)}, USER)
    shown = {name: value for name, value, _ in describe(loaded)}
    assert (shown["notify.url"], shown["notify.template"]) == ('"https://chat.example.org/***"', '"***"')
    for wrong in (text.replace("{text}", ""), text.replace("https", "gopher"), text + 'command = ["/x"]\n'):
        error = refusal(tmp_path, wrong)
        assert "s3cret" not in error.message + error.hint


def test_a_socket_path_that_the_kernel_cannot_take_is_refused() -> None:
    with pytest.raises(Invalid, match="too long for a Unix socket"):
        load(Flags(socket="/srv/" + "x" * 103), {"HOME": "/"}, USER)
    assert load(Flags(socket="/srv/" + "x" * 102), {"HOME": "/"}, USER).settings.socket.parent == Path("/srv")


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no such file"):
        load(Flags(config=str(tmp_path / "absent.toml")), {"HOME": "/"}, USER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[python]\nindex_ttl_s = 60\n", 60),
        ("[python]\nindex_ttl_s = 60\n[upstream]\npage_ttl_s = 7\n", 7),
        ("[python]\n", 600),
    ],
)
def test_a_setting_is_known_by_the_name_that_it_had(tmp_path: Path, text: str, expected: int) -> None:
    loaded = load(Flags(config=write(tmp_path, text)), {"HOME": "/"}, USER)
    assert loaded.settings.upstream.page_ttl_s == expected
    assert ("upstream.page_ttl_s", str(expected)) in {row[:2] for row in describe(loaded)}


def test_a_section_that_is_gone_holds_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="unknown section or setting 'python'"):
        load(Flags(config=write(tmp_path, "[python]\nindex_ttl_s = 1\nother = 2\n")), {"HOME": "/"}, USER)


def test_every_setting_is_described_with_its_origin(tmp_path: Path) -> None:
    loaded = load(Flags(listen="127.0.0.1:0"), {"HOME": str(tmp_path)}, USER)
    rows = {name: (value, origin) for name, value, origin in describe(loaded)}
    assert rows["web.listen"] == ('"127.0.0.1:0"', "--listen")
    assert rows["web.public_url"] == ("unset", "default")
    assert rows["runs.resume_interrupted"] == ("true", "default")
    assert set(rows) == set(loaded.origins)


@pytest.mark.parametrize(
    ("text", "address"),
    [("h:1", ("h", 1)), ("[::1]:0", ("::1", 0)), (":8470", ("", 8470)), ("::1:1", None), ("h:", None)],
)
def test_addresses_are_split(text: str, address: tuple[str, int] | None) -> None:
    if address is None:
        with pytest.raises(Invalid):
            parse_listen(text)
    else:
        assert parse_listen(text) == address


def firthd(*args: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "firthd", *args]
    environ = {"HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=9, check=False)


def test_check_config_prints_settings_and_origins(tmp_path: Path) -> None:
    done = firthd("check-config", "--listen", "127.0.0.1:0", home=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["web.listen", '"127.0.0.1:0"', "--listen"] in lines


def test_wrong_settings_end_the_program_with_a_sentence(tmp_path: Path) -> None:
    done = firthd("--config", write(tmp_path, "[web]\nlisen = 1\n"), home=tmp_path)
    assert done.returncode == 78
    assert "did you mean listen?" in done.stderr
    assert "Traceback" not in done.stderr
