"""What the shipped units and the example for nginx say, as far as their text tells; tests/deep runs them for real."""

import configparser
import re
from pathlib import Path

import pytest

from firthd.config import WebSettings

ROOT = Path(__file__).parents[1]
SYSTEMD = ROOT / "systemd"
NGINX = (SYSTEMD / "nginx-example.conf").read_text()
SERVERS = re.findall(r"^server \{\n(.*?)^\}", NGINX, re.MULTILINE | re.DOTALL)


def unit(name: str) -> configparser.ConfigParser:
    found = configparser.ConfigParser(interpolation=None, strict=False)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(SYSTEMD / name)
    return found


def test_the_installer_lays_every_unit_and_takes_it_away() -> None:
    section = (ROOT / "README.md").read_text().split("\n## As a service\n")[1].split("\n## ")[0]
    laid, taken = (SYSTEMD / "install.sh").read_text().split("uninstall_all() {")
    for file in [*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.socket"), *SYSTEMD.glob("firth.*")]:
        assert file.name in laid
        assert file.name in taken or file.name.startswith("firth.")
    for file in SYSTEMD.glob("*.socket"):
        assert file.name in re.findall(r"`systemctl stop ([^`]*)`", section)[0].split()


def test_the_web_socket_listens_where_the_daemon_would_and_where_nginx_asks() -> None:
    socket = unit("firthd-web.socket")["Socket"]
    assert socket["ListenStream"] == WebSettings().listen
    assert socket["Service"] == "firthd.service"
    assert socket["FileDescriptorName"] == "web"
    assert f"server {WebSettings().listen};" in NGINX
    assert "firthd-web.socket" in unit("firthd.service")["Unit"]["After"].split()


def test_no_limit_of_starts_takes_the_sockets_down() -> None:
    service = unit("firthd.service")
    assert service["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["Service"]["RestartPreventExitStatus"] == "78"


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/t/SECRET/repo/main/noarch/x.conda", "/t/***/repo/main/noarch/x.conda"),
        ("/t/SECRET", "/t/***"),
        ("/t/SECRET/repo/main/t/x", "/t/***/repo/main/t/x"),
        ("/repo/main/t/x", "/repo/main/t/x"),
        ("/repo/t/x", "/repo/t/x"),
    ],
)
def test_nginx_hides_the_token_and_nothing_else(path: str, logged: str) -> None:
    pattern, shown = re.findall(r"^    ~(\S+) (\S+);$", NGINX, re.MULTILINE)[0]
    found = re.search(pattern.replace("(?<", "(?P<"), path)  # nginx takes Perl's way of naming groups
    assert logged == (shown.replace("$firth_rest", found["firth_rest"]) if found else path)


@pytest.mark.parametrize("server", SERVERS, ids=["port 80", "port 443"])
def test_no_log_of_nginx_repeats_a_request(server: str) -> None:
    assert len(SERVERS) == 2
    assert re.findall(r"^    access_log \S+ (\S+);", server, re.MULTILINE) == ["firth"]
    assert re.findall(r"^ *error_log \S+ (\S+);", server, re.MULTILINE) == ["emerg"]
    logged = NGINX.split("log_format firth")[1].split(";")[0]
    assert not re.search(r"\$(request|request_uri|uri|args|query_string|http_referer)\b", logged)
    # Where a location has no line of its own, what was asked for is not in the log at all.
    public = re.findall(r"^    location (.*?)^    \}", server, re.MULTILINE | re.DOTALL)
    assert [bool("set $firth_path $uri;" in part) != ("internal;" in part) for part in public] == [True] * len(public)
    assert {"80", "443"} >= set(re.findall(r"listen \[::\]:(\d+)", server))
    assert len(re.findall(r"listen \[::\]:\d+", server)) == 1


def test_nginx_keeps_the_headers_of_a_file_that_it_sends_itself() -> None:
    internal = NGINX.split("location /_firth/")[1]
    assert "add_header ETag $upstream_http_etag;" in internal
    assert "add_header X-Content-Type-Options $upstream_http_x_content_type_options;" in internal
    assert "return 403;" in NGINX.split("location ^~ /metrics")[1].split("}")[0]
