"""The units under a real systemd, installed as the README says, and nginx in front of them by the shipped example."""

import io
import json
import random
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.conda import ChannelFolder, PackageSpec
from tests.support.machine import TREE, Machine, lacking, machine, no_nginx, readme_block, readme_drop_in, until

pytestmark = [pytest.mark.deep, pytest.mark.e2e, pytest.mark.timeout(600)]

SOURCE = "http://127.0.0.1:9000"
WEB = "http://127.0.0.1:8470"
BOTH = "firthd.socket firthd-web.socket firthd.service"
BIG = "big-1.0-0.conda"
WRONG = '[web]\nlisten = "nowhere"\n'


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Give a machine on which the README's block was run, by root, as it stands, with a source and a channel."""
    if why := lacking():
        pytest.skip(f"NOT TESTED, the service under systemd: {why}")
    work = Path(tmp_path_factory.mktemp("machine"))
    with machine(work) as made:
        # A strict umask is what administrators have.
        made.sh(f"umask 077; cd {TREE}\n{readme_block('As a service')}", online=True, timeout=300)
        made.put(_source(work / "source"), "/srv/source")
        made.sh(f"systemd-run --unit=source python3 {TREE}/tests/support/throttled.py /srv/source 9000")
        until("the source listens", lambda: made.run("curl", "-sf", f"{SOURCE}/noarch/repodata.json").status == 0, 10)
        made.ask("channel.create", "main")
        made.ask(*mirror("main", "upstream", f"{SOURCE}/", mode="active"), "run_now=true", "--wait")
        yield made


def _source(folder: Path) -> bytes:
    """Return a channel as a tar archive: small packages, and one that is over a mebibyte."""
    channel = ChannelFolder(folder)
    noise = random.Random(1).randbytes(2_000_000).hex()
    channel.add(PackageSpec(name="alpha"), PackageSpec(name="beta"), PackageSpec(name="big", content=noise))
    slow = ChannelFolder(folder / "throttled")
    slow.add(PackageSpec(name="slow", content=noise))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(folder, ".")
    return archive.getvalue()


def mirror(channel: str, name: str, source: str, **more: str) -> tuple[str, ...]:
    fields = {"channel": channel, "name": name, "type": "conda", "source": source} | more
    return ("mirror.create", *(f"{key}={value}" for key, value in fields.items()))


@pytest.fixture(autouse=True)
def _calm(host: Machine) -> None:
    """Start each check with the service at work and no start counted."""
    host.run("systemctl", "reset-failed")
    host.sh("systemctl start firthd.socket firthd.service")


def exit_of(host: Machine) -> str:
    return host.show("firthd", "ExecMainStatus")["ExecMainStatus"]


def main_pid(host: Machine) -> int:
    return int(host.show("firthd", "MainPID")["MainPID"])


def active(host: Machine) -> bool:
    return host.show("firthd", "ActiveState")["ActiveState"] == "active"


# --- what was good -------------------------------------------------------------------------------------------


def test_the_readme_makes_a_service_that_serves_in_a_sandbox(host: Machine) -> None:
    state = host.show("firthd", "ActiveState", "StatusText")
    assert state["ActiveState"] == "active"
    assert state["StatusText"].startswith("serving on ")
    told = host.sh("systemd-analyze security firthd.service --no-pager").splitlines()[-1]
    assert float(told.split(":")[1].split()[0]) <= 1.5, told


def test_the_readme_run_again_upgrades(host: Machine) -> None:
    before = main_pid(host)
    told = host.sh(f"umask 077; cd {TREE}\n{readme_block('As a service')}", online=True, timeout=300)
    assert "(before: firthd 0.1.0" in told
    assert "service      restarted" in told
    assert "state        /var/lib/firth, kept as it was" in told
    assert active(host)
    assert main_pid(host) != before


def test_the_service_is_taken_away_and_comes_back_with_its_state(host: Machine) -> None:
    before = host.ask("channel.get", "main", "--columns", "generation,published_at,mirrors")
    gone = host.sh(f"cd {TREE} && ./run uninstall")
    assert "removed      programs, units, man pages and completion" in gone
    assert "left         /var/lib/firth\n" in gone
    assert host.sh("ls -d /opt/firth /etc/systemd/system/firthd* /usr/local/bin/firth* 2>/dev/null || true") == ""
    assert host.run("systemctl", "cat", "firthd.service").status != 0
    assert host.run("pgrep", "-u", "firth").status == 1, "a process of the service is left"
    assert host.sh(f"cd {TREE} && ./run uninstall") != "", "twice is no error"
    told = host.sh(f"umask 077; cd {TREE} && ./run install", online=True, timeout=300)
    assert "installed    firthd 0.1.0" in told
    assert "service      started, and enabled for every boot" in told
    assert "state        /var/lib/firth, kept as it was" in told
    assert host.ask("channel.get", "main", "--columns", "generation,published_at,mirrors") == before
    assert active(host)
    host.sh("systemctl is-enabled firthd.socket firthd.service")


def test_an_upgrade_that_is_killed_is_done_by_the_next_one(host: Machine) -> None:
    before = host.ask("channel.get", "main", "--columns", "generation,published_at,mirrors")
    cut = f"cd {TREE} && setsid -w timeout -s KILL 10 ./run install"
    host.run("bash", "-c", cut, online=True, timeout=120)
    told = host.sh(f"cd {TREE} && ./run install", online=True, timeout=300)
    assert "service      restarted" in told
    assert host.ask("channel.get", "main", "--columns", "generation,published_at,mirrors") == before


def test_what_is_installed_beside_the_programs_can_be_read_by_all(host: Machine) -> None:
    assert host.run("firthctl", "--version", user="bob").status == 0
    assert host.sh("stat -c %a /usr/local/share/man/man1/firthctl.1 /usr/local/share/zsh/site-functions/_firthctl") == (
        "644\n644\n"
    )
    host.sh("bash -n /usr/local/share/bash-completion/completions/firthctl")
    compiled = host.sh("find /opt/firth/lib/python3*/site-packages/firthd -name '*.pyc' | wc -l")
    assert int(compiled) > 50, "the service's sandbox cannot write bytecode"


def test_the_roles_are_those_of_the_socket(host: Machine) -> None:
    assert host.ask("daemon.status")["role"] == "admin"
    ann = host.ctl("daemon.status", user="ann")
    assert json.loads(ann.out)["role"] == "manager", ann
    bob = host.ctl("daemon.status", user="bob")
    assert bob.status == 2
    assert "Permission denied" in bob.err


def test_what_the_service_serves_is_the_source_s(host: Machine) -> None:
    host.sh(f"cmp <(curl -sf {WEB}/repo/main/noarch/{BIG}) /srv/source/noarch/{BIG}")


def test_a_stop_in_the_middle_of_a_run_is_short_and_the_run_comes_again(host: Machine) -> None:
    with slow_run(host, "stopped") as run:
        begun = time.monotonic()
        host.sh("systemctl stop firthd.service")
        assert time.monotonic() - begun < 2
        assert host.show("firthd", "Result")["Result"] == "success"
        host.sh("systemctl start firthd.service")
        again = newest_run(host, "stopped")
        assert again["cause"] == f"after run {run} was interrupted"


def test_a_killed_and_a_hung_daemon_come_back(host: Machine) -> None:
    restarts = int(host.show("firthd", "NRestarts")["NRestarts"])
    host.sh(f"kill -9 {main_pid(host)}")
    until("it is back", lambda: active(host) and host.show("firthd", "NRestarts")["NRestarts"] == str(restarts + 1), 15)
    assert host.ask("daemon.check")["ok"]
    with host.drop_in("firthd.service", "[Service]\nWatchdogSec=1\nRestartSec=0\n"):
        host.sh("systemctl restart firthd.service")
        pid = main_pid(host)
        host.sh(f"kill -STOP {pid}")
        until("it is back", lambda: active(host) and main_pid(host) not in {0, pid}, 20)
    host.sh("systemctl restart firthd.service")


# --- starts and stops ----------------------------------------------------------------------------------------


def test_the_call_that_starts_the_daemon_is_answered(host: Machine) -> None:
    host.sh("systemctl stop firthd.service")
    assert host.show("firthd.socket", "ActiveState")["ActiveState"] == "active"
    assert host.ask("daemon.status")["pid"] == main_pid(host)


def test_stopping_all_units_stops_it_for_good(host: Machine) -> None:
    stop = re.search(r"`(systemctl stop [^`]*)`", (Path(__file__).parents[2] / "README.md").read_text())
    assert stop is not None, "the README says how the service is stopped"
    with web_socket(host):
        host.sh(stop[1])
        assert host.ctl("daemon.status").status == 2
        assert host.run("curl", "-s", f"{WEB}/healthz").status == 7
        assert not active(host)


@contextmanager
def web_socket(host: Machine) -> Iterator[None]:
    """Let systemd hold the web address for a while."""
    host.sh("systemctl stop firthd.service && systemctl start firthd-web.socket firthd.socket firthd.service")
    try:
        yield
    finally:
        host.sh(f"systemctl stop {BOTH}; systemctl reset-failed; systemctl start firthd.socket firthd.service")


def hammer(host: Machine, place: str, path: str, seconds: int = 5) -> Callable[[], dict[str, int]]:
    """Ask again and again; the result counts how the answers were (see tests/support/hammer.py for `place`)."""
    words = ("python3", f"{TREE}/tests/support/hammer.py", f"{seconds}", place, "packages.example.org", path)
    clients = host.start(*words, stdout=subprocess.PIPE)

    def ended() -> dict[str, int]:
        counts: dict[str, int] = json.loads(clients.communicate(timeout=120)[0])
        return counts

    return ended


def test_the_package_client_that_starts_the_daemon_is_answered(host: Machine) -> None:
    with web_socket(host):
        host.sh("systemctl stop firthd.service")
        host.sh(f"cmp <(curl -sf {WEB}/repo/main/noarch/{BIG}) /srv/source/noarch/{BIG}")
        assert active(host)


def test_a_restart_with_the_web_socket_loses_no_request(host: Machine) -> None:
    with web_socket(host):
        ended = hammer(host, "8470", "/repo/main/noarch/repodata.json")
        for _ in range(3):
            time.sleep(0.3)
            host.sh("systemctl restart firthd.service")
        answers = ended()
    print(f"answers with three restarts: {answers}")
    assert set(answers) == {"200"}, answers
    assert answers["200"] > 20


def test_an_address_in_the_settings_that_the_web_socket_overrules_is_told(host: Machine) -> None:
    cursor = host.cursor()
    with host.settings('[web]\nlisten = "127.0.0.1:9999"\n'), web_socket(host):
        lines = host.journal(cursor)
        told = [line["MESSAGE"] for line in lines if "web.listen" in line["MESSAGE"]]
    assert len(told) == 1
    assert "firthd-web.socket" in told[0]


# --- wrong settings ------------------------------------------------------------------------------------------


def test_wrong_settings_are_one_line_of_priority_3(host: Machine) -> None:
    host.sh("systemctl stop firthd.service")
    with host.settings(WRONG):
        cursor = host.cursor()
        assert host.run("systemctl", "start", "firthd.service").status == 1
        lines = [line for line in host.journal(cursor) if line.get("_COMM") == "firthd"]
        assert exit_of(host) == "78"
        assert host.show("firthd", "NRestarts")["NRestarts"] == "0"
    assert [line["PRIORITY"] for line in lines] == ["3"], lines
    assert "web.listen" in lines[0]["MESSAGE"]
    assert "HOST:PORT" in lines[0]["MESSAGE"]


@pytest.mark.parametrize("wrong", ["the settings", "the state"])
def test_what_keeps_it_from_starting_takes_no_socket_away_from_those_who_wait(host: Machine, wrong: str) -> None:
    with web_socket(host):
        if wrong == "the settings":
            host.write("/etc/firth/firth.toml", WRONG)
        else:
            host.sh("systemctl stop firthd.service; mv /var/lib/firth/runs /root/runs; touch /var/lib/firth/runs")
        ended = hammer(host, "8470", "/healthz")
        calls = hammer(host, "/run/firth/firth.sock", "/")
        host.run("systemctl", "restart", "firthd.service")
        answers, replies = ended(), calls()
        states = [host.show(unit, "ActiveState")["ActiveState"] for unit in ("firthd.socket", "firthd-web.socket")]
        if wrong == "the settings":
            host.sh("rm /etc/firth/firth.toml")
        else:
            host.sh("rm -f /var/lib/firth/runs; mv /root/runs /var/lib/firth/runs")
        assert states == ["active", "active"]
        assert set(answers) <= {"503", "200"}, answers
        assert set(replies) <= {"503", "200"}, replies
        until("a call starts it again", lambda: host.ctl("daemon.status").status == 0, 15)


# --- who may, what the sandbox shows ---------------------------------------------------------------------------


def test_a_process_with_the_group_for_itself_has_the_role(host: Machine) -> None:
    run = "systemd-run -q --pipe --wait -p User=bob -p SupplementaryGroups=firth firthctl daemon.status"
    assert json.loads(host.sh(run))["role"] == "manager"


def test_who_may_not_use_the_socket_is_not_told_to_start_it(host: Machine) -> None:
    told = host.ctl("daemon.status", user="bob").err
    assert "start it" not in told
    assert "group firth" in told
    host.sh(f"systemctl stop {BOTH}")
    assert "start it" in host.ctl("daemon.status").err


@pytest.mark.parametrize("folder", ["/home/ann/source", "/root/source", "/tmp/source", "/var/tmp/source"])
def test_a_source_that_the_sandbox_hides_is_told_with_what_shows_it(host: Machine, folder: str) -> None:
    host.sh(f"cp -a /srv/source {folder}; chmod -R a+rX {folder}")
    said = host.ctl("mirror.check", "type=conda", f"source=file://{folder}").err
    assert "is the medium mounted" not in said
    shown = re.findall(r"(?:ProtectHome|BindReadOnlyPaths)=[\w/]+", said)
    assert shown, said
    with host.drop_in("firthd.service", "\n".join(["[Service]", *shown])):
        host.sh("systemctl restart firthd.service")
        done = host.ctl("mirror.check", "type=conda", f"source=file://{folder}")
    host.sh(f"systemctl restart firthd.service; rm -r {folder}")
    assert done.status == 0, (shown, done)


def test_a_folder_that_the_sandbox_keeps_from_being_written_is_told_as_such(host: Machine) -> None:
    host.sh("install -d -o firth /srv/exports")
    with host.settings('[store]\nexport_dirs = ["/srv/exports", "/tmp"]\n'):
        host.sh("systemctl restart firthd.service")
        outside = host.ctl("daemon.backup", "path=/srv/exports/one", "--wait").err
        own = host.ctl("daemon.backup", "path=/tmp/one", "--wait").err
    host.sh("systemctl restart firthd.service")
    assert "ReadWritePaths=" in outside, outside
    assert "PrivateTmp" in own, own


def test_a_source_below_home_works_with_the_drop_in_of_the_readme(host: Machine) -> None:
    host.sh("cp -a /srv/source /home/ann/source; chmod 755 /home/ann; chmod -R a+rX /home/ann/source")
    with host.drop_in("firthd.service", readme_drop_in("/home/ann/source")):
        host.sh("systemctl restart firthd.service")
        done = host.ctl("mirror.check", "type=conda", "source=file:///home/ann/source")
    host.sh("systemctl restart firthd.service")
    assert done.status == 0, done


def test_a_state_on_another_disk_works_with_the_drop_in_of_the_readme(host: Machine) -> None:
    host.sh("mkdir -p /srv/firth; mount -t tmpfs none /srv/firth; chown firth:firth /srv/firth; chmod 750 /srv/firth")
    try:
        with host.drop_in("firthd.service", readme_drop_in("FIRTH_STATE")):
            host.sh("systemctl restart firthd.service")
            host.ask("channel.create", "elsewhere")
            host.sh("test -f /srv/firth/firth.sqlite; curl -sf http://127.0.0.1:8470/repo/elsewhere/")
    finally:
        host.sh("systemctl restart firthd.service; umount /srv/firth")
    assert "elsewhere" not in host.sh("firthctl channel.list")


def test_a_state_elsewhere_without_the_drop_in_says_what_is_lacking(host: Machine) -> None:
    host.sh("install -d -o firth /srv/other")
    cursor = host.cursor()
    with host.drop_in("firthd.service", "[Service]\nEnvironment=FIRTH_STATE=/srv/other\n"):
        host.run("systemctl", "restart", "firthd.service")
        lines = [line for line in host.journal(cursor) if line.get("_COMM") == "firthd" and line["PRIORITY"] == "3"]
    host.sh("systemctl restart firthd.service")
    assert any("ReadWritePaths=/srv/other" in line["MESSAGE"] for line in lines), lines


def test_a_credential_of_the_service_manager_opens_a_source(host: Machine) -> None:
    host.write("/root/forge.json", '{"user": "ann", "password": "secret-of-ann"}', mode="600")
    with host.drop_in("firthd.service", "[Service]\nLoadCredential=forge:/root/forge.json\n"):
        host.sh("systemctl restart firthd.service")
        host.ask("channel.create", "vault")
        host.ask(*mirror("vault", "forge", f"{SOURCE}/locked", credentials="@@forge"))
        run = host.ctl("mirror.run", "vault:forge", "--wait")
        host.sh("systemctl restart firthd.service")
        again = host.ctl("mirror.run", "vault:forge", "--wait")
        wrong = host.ctl(*mirror("vault", "other", f"{SOURCE}/locked", credentials="@@none"))
    assert run.status == 0, run
    assert again.status == 0, again
    assert wrong.status == 1
    assert "LoadCredential" in wrong.err
    assert host.run("grep", "-rq", "secret-of-ann", "/var/lib/firth").status == 1
    host.sh("systemctl restart firthd.service")
    assert "LoadCredential" in host.ctl("mirror.run", "vault:forge", "--wait").err
    host.sh("firthctl channel.delete vault confirm=vault --wait")


# --- runs -------------------------------------------------------------------------------------------------------


@contextmanager
def slow_run(host: Machine, channel: str) -> Iterator[int]:
    """Give the id of a run that downloads slowly."""
    host.ask("channel.create", channel)
    reply = host.ask(*mirror(channel, "slow", f"{SOURCE}/throttled/", mode="active"), "run_now=true")
    run = int(reply["run"]["id"])
    wait_downloading(host, run)
    try:
        yield run
    finally:
        host.ctl("mirror.stop", f"{channel}:slow", "--wait")
        host.ctl("channel.delete", channel, f"confirm={channel}", "--wait")


def newest_run(host: Machine, channel: str) -> dict[str, Any]:
    newest: dict[str, Any] = json.loads(host.sh(f"firthctl run.list channel={channel}").splitlines()[0])
    return newest


def wait_downloading(host: Machine, run: int) -> None:
    def at_work() -> bool:
        steps = host.ask("run.get", f"{run}")["steps"]
        return any(step["name"] == "download" and step["state"] == "running" for step in steps)

    until("it downloads", at_work, 20)


def test_a_run_that_is_given_up_does_not_say_that_it_is_queued_again(host: Machine) -> None:
    with slow_run(host, "givenup") as run:
        for _ in range(3):
            host.sh("systemctl restart firthd.service")
            newest = newest_run(host, "givenup")
            if newest["id"] == run:
                break
            run = int(newest["id"])
            wait_downloading(host, run)
        else:
            pytest.fail("it was queued again and again")
        hint = host.ask("run.get", f"{run}")["error"]["hint"]
    assert "queued again" not in hint
    assert "mirror.run" in hint


# --- nginx --------------------------------------------------------------------------------------------------------

HTTPS = "--cacert /etc/ssl/certs/packages.example.org.pem --resolve packages.example.org:443:127.0.0.1"
SITE = "https://packages.example.org"
SECRET = "Zk3Qw9TokenOfTheTest"
PUBLIC = '[web]\npublic_url = "https://packages.example.org"\n'
BEHIND = PUBLIC + 'trusted_proxies = ["127.0.0.1", "::1"]\naccel_redirect = "/_firth/"\n'
NGINX_LOGS = "/var/log/nginx"


@pytest.fixture(scope="module")
def nginx(host: Machine) -> Iterator[Machine]:
    """Give the machine with nginx in front, set up by what the example's head says."""
    if why := no_nginx():
        pytest.skip(f"NOT TESTED, nginx in front of the service: {why}")
    example = (Path(__file__).parents[2] / "systemd/nginx-example.conf").read_text()
    lines = "\n".join(re.findall(r"^#   ((?: *)(?:setfacl|for|install|done|systemctl).*)$", example, re.MULTILINE))
    host.sh("rm -f /etc/nginx/sites-enabled/* /var/log/nginx/*.log")
    host.sh(f"cp {TREE}/systemd/nginx-example.conf /etc/nginx/conf.d/firth.conf")
    host.sh(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=packages.example.org"
        " -addext subjectAltName=DNS:packages.example.org -out /etc/ssl/certs/packages.example.org.pem"
        " -keyout /etc/ssl/private/packages.example.org.key 2>/dev/null"
    )
    host.write("/etc/firth/firth.toml", BEHIND)
    host.sh(lines)
    host.sh("systemctl restart firthd.service; nginx -t; systemctl restart nginx.service")
    yield host
    host.sh(f"systemctl stop nginx.service {BOTH}; rm /etc/firth/firth.toml; systemctl reset-failed")


def get(host: Machine, path: str, *more: str) -> str:
    """Return the head of the answer that a path has behind nginx."""
    return host.sh(f"curl -s --path-as-is -o /dev/null -D - {HTTPS} {' '.join(more)} '{SITE}{path}'").lower()


def status_of(head: str) -> int:
    return int(head.split()[1])


def logs(host: Machine) -> str:
    """Return everything that nginx has logged."""
    return host.sh(f"cat {NGINX_LOGS}/*.log")


def test_nginx_sends_what_the_source_has(nginx: Machine) -> None:
    nginx.sh(f"cmp <(curl -sf {HTTPS} {SITE}/repo/main/noarch/{BIG}) /srv/source/noarch/{BIG}")


def test_the_headers_are_whole_where_nginx_sends_the_file(nginx: Machine) -> None:
    head = get(nginx, f"/repo/main/noarch/{BIG}")
    assert head.count("accept-ranges:") == 1, head
    assert "x-content-type-options: nosniff" in head
    assert head.count("etag:") == 1
    part = get(nginx, f"/repo/main/noarch/{BIG}", "-r 100-199")
    assert status_of(part) == 206
    assert part.count("etag:") == 1
    assert "content-range: bytes 100-199/" in part


def test_a_client_of_this_machine_gets_the_file_itself(nginx: Machine) -> None:
    nginx.sh(f"cmp <(curl -sf {WEB}/repo/main/noarch/{BIG}) /srv/source/noarch/{BIG}")


def test_a_restart_behind_nginx_loses_no_request(nginx: Machine) -> None:
    ended = hammer(nginx, "tls", "/repo/main/noarch/repodata.json")
    for _ in range(3):
        time.sleep(0.3)
        nginx.sh("systemctl restart firthd.service")
    answers = ended()
    print(f"answers with three restarts: {answers}")
    assert set(answers) == {"200"}, answers
    assert answers["200"] > 20


SPELLINGS = {
    "plain": f"/t/{SECRET}/repo/main/noarch/repodata.json",
    "encoded": f"/%74/{SECRET}/repo/main/noarch/repodata.json",
    "doubled": f"//t//{SECRET}/repo/main/noarch/repodata.json",
    "alone": f"/t/{SECRET}",
    "dotted": f"/repo/../t/{SECRET}/repo/main/",
    "deeper": f"/t/{SECRET}/repo/main/t/x/y",
    "query": f"/repo/main/noarch/repodata.json?token={SECRET}",
    "secret query": f"/t/{SECRET}/repo/main/?q={SECRET}",
}


@pytest.mark.parametrize("daemon", ["up", "down"])
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_no_token_stands_in_a_log(nginx: Machine, daemon: str, scheme: str) -> None:
    if daemon == "down":
        nginx.sh(f"systemctl stop {BOTH}")
    where = HTTPS if scheme == "https" else "--resolve packages.example.org:80:127.0.0.1"
    found = {}
    for spelling, path in SPELLINGS.items():
        nginx.sh(f"truncate -s 0 {NGINX_LOGS}/*.log")
        given = f"-H 'Referer: {SITE}/t/{SECRET}/' '{scheme}://packages.example.org{path}'"
        status = nginx.sh(f"curl -s --path-as-is -o /dev/null -w '%{{http_code}}' {where} {given}")
        written = logs(nginx)
        told = "not logged" if not written.strip() else "logged with the token" if SECRET in written else "logged"
        found[spelling] = (told, status)
    if daemon == "down":
        nginx.sh(
            "systemctl start firthd.socket; systemctl start firthd-web.socket || true; systemctl start firthd.service"
        )
    expected = {"308"} if scheme == "http" else {"200", "308", "404", "400"} if daemon == "up" else {"502"}
    assert {told for told, _ in found.values()} == {"logged"}, found
    assert {status for _, status in found.values()} <= expected, found


def test_a_token_counts_only_where_it_is_spelled_plainly(nginx: Machine) -> None:
    nginx.ask("channel.create", "locked", "privacy=private")
    made = nginx.ask("token.create", "name=reader", 'channels=["locked"]')
    token = made["token"]
    assert status_of(get(nginx, f"/t/{token}/repo/locked/")) == 200
    assert status_of(get(nginx, f"/%74/{token}/repo/locked/")) == 404


def test_the_log_shows_what_was_asked_for(nginx: Machine) -> None:
    nginx.sh(f"truncate -s 0 {NGINX_LOGS}/*.log")
    get(nginx, f"/repo/main/noarch/{BIG}")
    get(nginx, "/repo/main/t/x")
    written = logs(nginx)
    assert f"/repo/main/noarch/{BIG}" in written
    assert "/repo/main/t/x" in written, "only a token is hidden"
    assert "/_firth/" not in written


def test_ipv6_http_2_and_port_80(nginx: Machine) -> None:
    v6 = HTTPS.replace("443:127.0.0.1", "443:[::1]")
    two = nginx.sh(f"curl -s --http2 -o /dev/null -w '%{{http_version}} %{{http_code}}' {v6} {SITE}/healthz")
    assert two == "2 200"
    for address in ("127.0.0.1", "[::1]"):
        told = nginx.sh(
            f"curl -s -o /dev/null -w '%{{http_code}} %{{redirect_url}}' --resolve packages.example.org:80:{address}"
            " http://packages.example.org/repo/main/?q=alpha"
        )
        assert told in {f"{status} {SITE}/repo/main/?q=alpha" for status in (301, 308)}


@pytest.mark.parametrize("settings", [BEHIND, PUBLIC], ids=["trusted_proxies", "none trusted"])
def test_metrics_are_closed_behind_nginx(nginx: Machine, settings: str) -> None:
    nginx.write("/etc/firth/firth.toml", settings)
    nginx.sh("systemctl restart firthd.service")
    behind = [status_of(get(nginx, path)) for path in ("/metrics", "//metrics", "/%6detrics", "/metrics/")]
    forwarded = nginx.sh(f"curl -s -o /dev/null -w '%{{http_code}}' -H 'X-Forwarded-For: 192.0.2.7' {WEB}/metrics")
    direct = nginx.sh(f"curl -s -o /dev/null -w '%{{http_code}}' {WEB}/metrics")
    nginx.write("/etc/firth/firth.toml", BEHIND)
    nginx.sh("systemctl restart firthd.service")
    assert set(behind) <= {403, 404}, behind
    assert forwarded == "403"
    assert direct == "200"
