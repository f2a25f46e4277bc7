"""firthctl as a process against a real server: output, exit statuses, paging, waiting, watching, completion."""

import asyncio
import csv
import io
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.ctl import ctl, ctl_on_a_terminal
from tests.support.rpc import Server, handlers, rig, server

from firth_protocol.errors import ChannelFrozen, Conflict
from firth_protocol.methods import METHODS, ChannelDelete, ChannelList, MirrorCreate, ReportDownloads, RunWait, SeqReply
from firth_protocol.types import Credentials
from firthd.rpc.dispatch import Context

CHANNEL: dict[str, Any] = {
    "id": 1, "name": "main", "description": "for all", "privacy": "public",
    "keep_generations": {"days": 90, "months": 1200}, "frozen": False, "frozen_at": None, "frozen_by": None,
    "generation": 3, "published_at": "2026-05-01T10:00:00.123Z", "families": [], "mirrors": 2, "worst_state": None,
    "subchannels": 0, "draft": None, "created_at": "", "updated_at": "", "revision": 1,
}  # fmt: skip


def run_of(state: str, **more: Any) -> dict[str, Any]:
    return {
        "id": 12, "kind": "mirror", "state": state, "channel": "main", "mirror": 1, "mirror_name": "forge",
        "step": None, "steps": [], "counts": {}, "error": None, "waiting_for": None, "rate_bytes_s": 0.0, "eta_s": None,
        "generation": None,
    } | more  # fmt: skip


async def freeze(context: Context, params: Any) -> dict[str, Any]:
    return {"changed": True, "channel": CHANNEL | {"frozen": True}, "warnings": [], "seq": 7}


def channels(*names: str) -> Any:
    """Return a handler of channel.list over channels of these names, in pages by name."""

    async def listed(context: Context, params: ChannelList) -> dict[str, Any]:
        rest = [name for name in names if params.cursor is None or name > params.cursor]
        page = rest[: params.limit]
        cursor = page[-1] if len(rest) > len(page) else None
        return {"items": [CHANNEL | {"name": name} for name in page], "next_cursor": cursor, "as_of": "e1:1"}

    return listed


# --- calls and their output -----------------------------------------------------------------------------


async def test_the_first_required_parameter_stands_alone(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_freeze=freeze)) as up:
        done = await ctl("channel.freeze", "main", socket=up.socket)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["channel"]["frozen"] is True
    assert done.out.count("\n") == 1


async def test_the_socket_comes_from_the_environment(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_freeze=freeze)) as up:
        done = await ctl("channel.freeze", "main", environ={"FIRTH_SOCKET": str(up.socket)})
        user = tmp_path / "run"
        user.mkdir()
        (user / "firth").symlink_to(tmp_path)
        also = await ctl("channel.freeze", "main", environ={"XDG_RUNTIME_DIR": str(user)})
    assert (done.status, also.status) == (0, 0)


async def test_lists_are_read_to_the_end(tmp_path: Path) -> None:
    names = [f"c{number:04d}" for number in range(2500)]
    async with server(tmp_path, rig(channel_list=channels(*names))) as up:
        done = await ctl("channel.list", socket=up.socket)
    assert [json.loads(line)["name"] for line in done.out.splitlines()] == names


async def test_a_list_can_be_capped(tmp_path: Path) -> None:
    names = [f"c{number:04d}" for number in range(2500)]
    async with server(tmp_path, rig(channel_list=channels(*names))) as up:
        some = await ctl("channel.list", "--limit", "1200", socket=up.socket)
        page = await ctl("channel.list", "limit=2", "cursor=c0004", socket=up.socket)
    assert len(some.out.splitlines()) == 1200
    assert [json.loads(line)["name"] for line in page.out.splitlines()] == ["c0005", "c0006"]
    assert page.err == "firthctl: there is more: cursor=c0006\n"


async def test_csv_has_what_is_one_value_and_what_is_chosen(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_list=channels('a,"b', "c"))) as up:
        done = await ctl("channel.list", "--csv", socket=up.socket)
        empty = await ctl("channel.list", "query=x", "--csv", "cursor=z", socket=up.socket)
        chosen = await ctl(
            "channel.list", "--csv", "--columns", "name,keep_generations.days,keep_generations", socket=up.socket
        )
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert [row["name"] for row in rows] == ['a,"b', "c"]
    assert (rows[0]["frozen_by"], rows[0]["frozen"]) == ("", "false")
    assert not {"keep_generations", "families", "draft"} & set(rows[0])
    assert empty.out.splitlines() == [done.out.splitlines()[0]]
    assert list(csv.reader(io.StringIO(chosen.out))) == [
        ["name", "keep_generations.days", "keep_generations"],
        ['a,"b', "90", '{"days":90,"months":1200}'],
        ["c", "90", '{"days":90,"months":1200}'],
    ]


async def test_columns_are_chosen_in_every_form(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_list=channels("main"), channel_freeze=freeze)) as up:
        words = ("channel.list", "--columns=mirrors,name")
        shown = [(await ctl(*words, form, socket=up.socket)).out for form in ("--json", "--table", "--csv")]
        one = await ctl("channel.freeze", "main", "--columns", "changed,channel.name", "--csv", socket=up.socket)
        table = await ctl("channel.freeze", "main", "--columns", "channel.name", "--table", socket=up.socket)
        wrong = await ctl("channel.list", "--columns", "name,mirors", socket=up.socket)
    assert shown == ['{"mirrors":2,"name":"main"}\n', "MIRRORS  NAME\n      2  main\n", "mirrors,name\n2,main\n"]
    assert one.out == "changed,channel.name\ntrue,main\n"
    assert table.out == "channel.name  main\n"
    assert (wrong.status, wrong.out) == (3, "")
    assert "there is no column 'mirors'; did you mean mirrors? (there are id, name," in wrong.err


async def test_a_channel_is_a_page_that_can_be_read(tmp_path: Path) -> None:
    mirror = {"id": 1, "channel": "main", "name": "forge", "type": "conda", "state": "completed", "schedule": "daily"}
    setup = {"pixi": '[workspace]\nchannels = ["x\x1b[2J"]', "conda": "one line"}

    async def get(context: Context, params: Any) -> dict[str, Any]:
        return CHANNEL | {"mirror_list": [mirror], "addresses": {"conda": "http://x", "setup": setup}, "as_of": "e1:1"}

    async with server(tmp_path, rig(channel_get=get)) as up:
        done = await ctl_on_a_terminal("channel.get", "main", socket=up.socket, columns=72)
    lines = done.out.split("\r\n")
    at = lines.index("mirror_list")
    assert lines[at + 1].split() == ["ID", "CHANNEL", "NAME", "TYPE", "MODE", "STATE", "ARTIFACTS", "BYTES", "LAST_SU…"]
    assert "    pixi   [workspace]" in lines
    assert '           channels = ["x[2J"]' in lines
    assert max(map(len, lines)) <= 72


async def test_a_terminal_gets_a_table(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_list=channels("main", "bio/dev"))) as up:
        done = await ctl_on_a_terminal("channel.list", socket=up.socket, columns=70)
    lines = done.out.split("\r\n")
    assert lines[0].split()[:4] == ["NAME", "PRIVACY", "FROZEN", "GENERATION"]
    assert lines[1].split()[:5] == ["main", "public", "no", "3", "2026-05-01"]
    assert lines[2].startswith("bio/dev  public")
    assert max(map(len, lines)) <= 70


async def test_names_cannot_command_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\x9b31mred\u202egnp\n"

    async def listed(context: Context, params: Any) -> dict[str, Any]:
        return {"items": [CHANNEL | {"name": evil, "description": evil}], "next_cursor": None, "as_of": "e1:1"}

    async def frozen(context: Context, params: Any) -> Any:
        raise ChannelFrozen(f"{evil} is frozen", hint=evil)

    async with server(tmp_path, rig(channel_list=listed, channel_freeze=frozen)) as up:
        shown = [
            await ctl_on_a_terminal("channel.list", form, socket=up.socket) for form in ("--table", "--json", "--csv")
        ]
        shown.append(await ctl_on_a_terminal("channel.freeze", "main", socket=up.socket))
        piped = await ctl("channel.list", socket=up.socket)
    for done in shown:
        assert not set(done.out) & set("\x1b\x07\x9b\u202e"), done.out
        assert "owned" in done.out
    assert json.loads(shown[1].out)["name"] == evil
    assert json.loads(piped.out)["name"] == evil


async def test_a_report_is_csv_that_no_spreadsheet_works_out(tmp_path: Path) -> None:
    async def report(context: Context, params: ReportDownloads) -> dict[str, Any]:
        row = {"channel": "main", "family": "conda", "package": "=cmd()", "day": None, "version": "-1", "token": ""}
        if params.format == "csv":
            text = "package,downloads\n'=cmd(),2\n" if params.cursor is None else "b,1\n"
            return {"items": [], "text": text, "next_cursor": None if params.cursor else "x", "as_of": "e1:1"}
        return {"items": [row | {"downloads": 2}], "next_cursor": None, "as_of": "e1:1"}

    async with server(tmp_path, rig(report_downloads=report)) as up:
        ours = await ctl("report.downloads", "--csv", socket=up.socket)
        theirs = await ctl("report.downloads", "format=csv", socket=up.socket)
    assert ours.out == "channel,family,package,day,version,token,downloads\nmain,conda,'=cmd(),,'-1,,2\n"
    assert theirs.out == "package,downloads\n'=cmd(),2\nb,1\n"


async def test_a_report_of_rows_is_a_list_like_others(tmp_path: Path) -> None:
    async def report(context: Context, params: Any) -> dict[str, Any]:
        first = params.cursor is None
        text = ("a,b\n1,2\n" if first else "3,4\n") if params.format == "csv" else None
        rows = [] if text else [{"name": "zlib" if first else "xz", "needs": ["x"]}]
        return {"rows": rows, "text": text, "next_cursor": "x" if first else None, "as_of": "e1:1"}

    async with server(tmp_path, rig(mirror_dependency_report=report)) as up:
        lines = await ctl("mirror.dependency_report", "1", socket=up.socket)
        text = await ctl("mirror.dependency_report", "1", "format=csv", socket=up.socket)
    assert [json.loads(line)["name"] for line in lines.out.splitlines()] == ["zlib", "xz"]
    assert text.out == "a,b\n1,2\n3,4\n"


async def test_a_single_reply_is_shown_line_by_line(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_freeze=freeze)) as up:
        done = await ctl("channel.freeze", "main", "--table", socket=up.socket)
    lines = [line.split() for line in done.out.splitlines()]
    assert ["changed", "yes"] in lines
    assert ["name", "main"] in lines
    assert ["published_at", "2026-05-01", "10:00:00"] in lines


# --- exit statuses --------------------------------------------------------------------------------------


async def test_an_error_reply_is_status_1(tmp_path: Path) -> None:
    async def frozen(context: Context, params: Any) -> Any:
        raise ChannelFrozen("channel main is frozen", hint="unfreeze it first")

    async with server(tmp_path, rig(channel_freeze=frozen)) as up:
        done = await ctl("channel.freeze", "main", socket=up.socket)
    assert (done.status, done.out) == (1, "")
    assert done.err == "firthctl: channel_frozen: channel main is frozen\n  unfreeze it first\n"


async def test_no_daemon_is_status_2(tmp_path: Path) -> None:
    done = await ctl("channel.freeze", "main", socket=tmp_path / "none")
    assert (done.status, done.out) == (2, "")
    assert f"firthd cannot be reached on {tmp_path / 'none'}: No such file or directory; start it" in done.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "Exit status"),
        (["channel.frezee", "main"], "there is no method 'channel.frezee'; did you mean channel.freeze?"),
        (["channel.freeze"], "channel.freeze needs channel; see firthctl channel.freeze --help"),
        (["channel.freeze", "main", "more"], "'more' is not understood: write field=value"),
        (["channel.freeze", "--channel", "main"], "there is no option --channel (fields are written without dashes:"),
        (["channel.freeze", "main", "--wiat"], "there is no option --wiat; did you mean --wait?"),
        (["channel.freeze", "main", "--limit", "3"], "--limit is for lists; channel.freeze is none"),
        (["channel.list", "--limit", "x"], "--limit: 'x' is no number of items"),
        (["channel.list", "--socket"], "--socket needs a value"),
        (["call"], "write firthctl call METHOD"),
        (["call", "x", "{"], "the parameters are no JSON"),
        (["call", "x", "[]"], "the parameters are a JSON object"),
        (["completion", "ksh"], "write firthctl completion bash|zsh|fish"),
        (["watch", "--csv"], "events have no fixed columns"),
        (["discover", "x"], "discover takes no words"),
    ],
)  # fmt: skip
async def test_nonsense_is_status_3(words: list[str], text: str, tmp_path: Path) -> None:
    done = await ctl(*words, socket=tmp_path / "none") if words[-1:] != ["--socket"] else await ctl(*words)
    assert (done.status, done.out) == (3, "")
    assert text in done.err


async def test_output_that_cannot_be_written_is_status_1(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_freeze=freeze)) as up:
        process = await asyncio.create_subprocess_shell(
            f"exec {sys.executable} -m firth_protocol.ctl --socket {up.socket} channel.freeze main >/dev/full",
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    assert (process.returncode, err) == (
        1,
        b"firthctl: the output cannot be written: No space left on device\n",
    )


async def test_words_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    for word in ("\udcff", f"@{tmp_path / 'bytes'}"):
        done = await ctl("channel.get", word, socket=tmp_path / "none")
        assert done.status == 3
        assert "UTF-8 text" in done.err


# --- raw calls, secrets ---------------------------------------------------------------------------------


async def test_call_sends_what_it_is_given(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_freeze=freeze)) as up:
        done = await ctl("call", "channel.freeze", '{"channel":"main"}', socket=up.socket)
        piped = await ctl("call", "channel.freeze", "-", socket=up.socket, stdin='{"channel":"main"}\n')
        unknown = await ctl("call", "no.such", socket=up.socket)
        strict = await ctl("call", "channel.freeze", '{"chanel":"main"}', socket=up.socket)
    assert (done.status, piped.status, unknown.status, strict.status) == (0, 0, 1, 1)
    assert done.out == piped.out
    assert unknown.err.startswith("firthctl: method_not_found: the daemon knows no method 'no.such'")
    assert "`$.chanel`: the daemon knows no such field (api 1" in strict.err


async def test_secrets_come_from_a_file_or_from_stdin(tmp_path: Path) -> None:
    seen: list[MirrorCreate] = []

    async def create(context: Context, params: MirrorCreate) -> SeqReply:
        seen.append(params)
        return SeqReply(seq=1)

    (tmp_path / "secret").write_text("from-file\n")
    words = ["mirror.create", "main", "name=forge", "type=conda", "source=file:///x"]
    async with server(tmp_path, rig(mirror_create=create)) as up:
        runs = [
            await ctl(*words, f"credentials.token=@{tmp_path / 'secret'}", socket=up.socket),
            await ctl(*words, "credentials.token=-", socket=up.socket, stdin="from-stdin\n"),
            await ctl(*words, "credentials.token=@-", socket=up.socket, stdin="from-stdin\n"),
            await ctl(*words, "credentials.token=in-argv", socket=up.socket),
            await ctl(*words, "credentials=@@forge", socket=up.socket),
        ]
    given = [params.credentials for params in seen]
    assert given == [
        *(Credentials(token=text) for text in ("from-file", "from-stdin", "from-stdin", "in-argv")),
        "@forge",
    ]
    assert [done.err for done in (*runs[:3], runs[4])] == ["", "", "", ""]
    assert "credentials.token can be read by other users while this runs" in runs[3].err
    assert "in-argv" not in runs[3].err


async def test_warnings_go_to_stderr(tmp_path: Path) -> None:
    async def warned(context: Context, params: ChannelDelete) -> dict[str, Any]:
        return {"seq": 1, "warnings": ["that was the last one"]}

    async with server(tmp_path, rig(channel_delete=warned)) as up:
        done = await ctl("channel.delete", "main", "confirm=main", socket=up.socket)
    assert done.err == "firthctl: warning: that was the last one\n"


# --- waiting --------------------------------------------------------------------------------------------


def running(*states: dict[str, Any]) -> dict[str, Any]:
    """Return handlers for mirror.run, and for run.wait that answers with these states one after the other."""
    left = list(states)

    async def start(context: Context, params: Any) -> dict[str, Any]:
        return {"run": run_of("pending"), "already": False, "warnings": [], "seq": 1}

    async def wait(context: Context, params: RunWait) -> dict[str, Any]:
        assert params.run == 12
        return left.pop(0)

    return {"mirror_run": start, "run_wait": wait}


STEP = {"number": 6, "name": "download", "title": "Download packages", "description": "3 / 9 files"}
DOWNLOADING = run_of("running", step="download", steps=[STEP], rate_bytes_s=41_000_000.0, eta_s=75)


@pytest.mark.parametrize(
    ("end", "status", "text"),
    [
        (run_of("completed", counts={"added": 4, "removed": 0}, generation=5), 0, "completed: 4 added, generation 5"),
        (run_of("incomplete", counts={"added": 4, "failed": 2}), 4, "incomplete: 4 added, 2 failed"),
        (run_of("stopped"), 1, "stopped"),
        (
            run_of("failed", error={"kind": "upstream", "message": "no answer", "hint": "look there"}),
            1,
            "failed; no answer (look there)",
        ),
    ],
)
async def test_wait_ends_with_the_runs_outcome(tmp_path: Path, end: dict[str, Any], status: int, text: str) -> None:
    parts = rig(**running(run_of("pending", waiting_for="run 11"), DOWNLOADING, DOWNLOADING, end))
    async with server(tmp_path, parts) as up:
        done = await ctl("mirror.run", "main:forge", "--wait", socket=up.socket)
    assert done.status == status
    assert done.err.splitlines() == [
        "run 12  main:forge  waits for run 11",
        "run 12  main:forge  6/8 3 / 9 files  41.0 MB/s  1:15 left",
        f"run 12  main:forge  {text}",
    ]
    assert json.loads(done.out)["run"]["state"] == end["state"]


@pytest.mark.parametrize(
    ("state", "status"),
    [("completed", 0), ("failed", 1), ("stopped", 1), ("incomplete", 4), ("running", 5), ("pending", 5)],
)
async def test_run_wait_ends_with_the_runs_outcome(tmp_path: Path, state: str, status: int) -> None:
    async def wait(context: Context, params: RunWait) -> dict[str, Any]:
        return run_of(state)

    async with server(tmp_path, rig(run_wait=wait)) as up:
        done = await ctl("run.wait", "12", "timeout=0.1", socket=up.socket)
        raw = await ctl("call", "run.wait", '{"run": 12}', socket=up.socket)
    assert (done.status, raw.status) == (status, status)
    assert json.loads(done.out)["state"] == state


async def test_run_wait_can_be_told_to_wait_to_the_end(tmp_path: Path) -> None:
    async with server(tmp_path, rig(**running(DOWNLOADING, DOWNLOADING, run_of("incomplete")))) as up:
        done = await ctl("run.wait", "12", "--wait", socket=up.socket)
    assert (done.status, json.loads(done.out)["state"]) == (4, "incomplete")


async def test_on_a_terminal_the_line_is_rewritten(tmp_path: Path) -> None:
    parts = rig(**running(DOWNLOADING, DOWNLOADING, run_of("completed")))
    async with server(tmp_path, parts) as up:
        done = await ctl_on_a_terminal("mirror.run", "main:forge", "--wait", socket=up.socket, columns=40)
    assert done.out.startswith("\rrun 12  main:forge  6/8 3 / 9 files  4…\x1b[K\rrun 12")
    assert "\r\x1b[Krun 12  main:forge  completed\r\n" in done.out


async def test_the_runs_of_several_mirrors_are_waited_for(tmp_path: Path) -> None:
    async def update(context: Context, params: Any) -> dict[str, Any]:
        return {"channel": CHANNEL, "runs": [run_of("pending", id=1), run_of("pending", id=2)], "seq": 1}

    async def wait(context: Context, params: RunWait) -> dict[str, Any]:
        return run_of("completed" if params.run == 1 else "incomplete", id=params.run)

    async with server(tmp_path, rig(channel_update=update, run_wait=wait)) as up:
        done = await ctl("channel.update", "main", "revision=1", "--wait", socket=up.socket)
    assert done.status == 4
    assert [run["state"] for run in json.loads(done.out)["runs"]] == ["completed", "incomplete"]


async def test_waiting_for_nothing_is_said(tmp_path: Path) -> None:
    async with server(tmp_path, rig(channel_freeze=freeze)) as up:
        done = await ctl("channel.freeze", "main", "--wait", socket=up.socket)
    assert (done.status, done.err) == (0, "firthctl: this started no run; there is nothing to wait for\n")


async def test_objects_stand_in_the_reply_as_they_are_after_the_run(tmp_path: Path) -> None:
    mirror = {"id": 1, "channel": "main", "name": "forge", "state": "pending", "artifacts": 0, "revision": 1}

    async def create(context: Context, params: Any) -> dict[str, Any]:
        return {"mirror": mirror, "channel": CHANNEL, "run": run_of("pending"), "warnings": [], "seq": 1}

    async def get(context: Context, params: Any) -> dict[str, Any]:
        assert params.mirror == 1  # a name may have changed meanwhile
        return mirror | {"state": "incomplete", "artifacts": 4, "as_of": "e1:9"}

    parts = rig(mirror_create=create, mirror_get=get, **_without(running(run_of("incomplete")), "mirror_run"))
    words = ("mirror.create", "main", "name=forge", "type=conda", "source=file:///x", "run_now=true", "--wait")
    async with server(tmp_path, parts) as up:
        done = await ctl(*words, socket=up.socket)
    reply = json.loads(done.out)
    assert (done.status, reply["run"]["state"]) == (4, "incomplete")
    assert reply["mirror"] == mirror | {"state": "incomplete", "artifacts": 4}
    assert reply["channel"] == CHANNEL
    assert "channel is told as it was before the run: nothing behind channel.get" in done.err


def _without(handlers: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: handler for key, handler in handlers.items() if key != name}


async def test_the_reply_is_told_when_its_run_is_not_seen_to_its_end(tmp_path: Path) -> None:
    async with server(tmp_path, rig(mirror_run=running()["mirror_run"])) as up:
        done = await ctl("mirror.run", "main:forge", "--wait", socket=up.socket)
    assert done.status == 1
    assert "not_found" in done.err
    assert json.loads(done.out)["run"]["state"] == "pending"


# --- edits ----------------------------------------------------------------------------------------------


def edited(*revisions: int) -> tuple[dict[str, Any], list[Any]]:
    """Return handlers of channel.get and channel.update; the channel has these revisions one after the other."""
    left = list(revisions)
    asked: list[Any] = []

    async def get(context: Context, params: Any) -> dict[str, Any]:
        return CHANNEL | {"revision": left[0], "as_of": "e1:1"}

    async def update(context: Context, params: Any) -> dict[str, Any]:
        asked.append(params)
        if len(left) > 1:
            left.pop(0)
        if params.revision != left[0]:
            raise Conflict("main was changed meanwhile", current=CHANNEL | {"revision": left[0]})
        return {"channel": CHANNEL, "warnings": [], "runs": [], "seq": 1}

    return {"channel_get": get, "channel_update": update}, asked


async def test_an_edit_without_revision_reads_it_first(tmp_path: Path) -> None:
    parts, asked = edited(7)
    async with server(tmp_path, rig(**parts)) as up:
        done = await ctl("channel.update", "main", "description=new", socket=up.socket)
        stale = await ctl("channel.update", "main", "description=new", "revision=3", socket=up.socket)
    assert (done.status, done.err, asked[0].revision) == (0, "", 7)
    assert (stale.status, asked[1].revision) == (1, 3)
    assert stale.err.startswith("firthctl: conflict: main was changed meanwhile")


async def test_an_edit_that_meets_another_one_is_repeated_and_says_so(tmp_path: Path) -> None:
    parts, asked = edited(7, 8)
    async with server(tmp_path, rig(**parts)) as up:
        done = await ctl("channel.update", "main", "description=new", socket=up.socket)
    assert (done.status, [params.revision for params in asked]) == (0, [7, 8])
    assert done.err == "firthctl: main was changed meanwhile; the edit is repeated on what it is now\n"


async def test_an_edit_that_always_meets_another_one_ends(tmp_path: Path) -> None:
    parts, asked = edited(*range(1, 30))
    async with server(tmp_path, rig(**parts)) as up:
        done = await ctl("channel.update", "main", "description=new", socket=up.socket)
    assert (done.status, len(asked)) == (1, 5)


# --- watching, leaving ----------------------------------------------------------------------------------


async def start(*words: str, up: Server) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "firth_protocol.ctl", "--socket", str(up.socket), *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        preexec_fn=_hears_ctrl_c,
    )  # fmt: skip


def _hears_ctrl_c() -> None:
    """A background job's children ignore the signal, whoever sends it: tests may run as such a job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def test_watch_shows_events_until_ctrl_c(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        for kind in ("run.queued", "channel.frozen", "mirror.created"):
            up.rig.facts.tell(kind, channel="main")
        process = await start("watch", "channel,mirror", "after=e1:0", up=up)
        assert process.stdout is not None
        seen = [json.loads(await process.stdout.readline())["type"] for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert seen == ["channel.frozen", "mirror.created"]
    assert (process.returncode, err) == (130, b"")


async def test_watch_as_a_table(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        up.rig.facts.tell("channel.frozen", channel="main\x1b[2J")
        process = await start("watch", "--table", "after=e1:0", up=up)
        assert process.stdout is not None
        line = await process.stdout.readline()
        await up.rpc.stop()
        _, err = await process.communicate()
    assert line == b"2026-05-01T00:00:00.000Z  channel.frozen  channel=main[2J\n"
    assert process.returncode == 2
    assert b"the daemon ended the stream" in err


async def test_an_expired_cursor_is_status_1(tmp_path: Path) -> None:
    async with server(tmp_path) as up:
        done = await ctl("watch", "after=other:1", socket=up.socket)
    assert done.status == 1
    assert done.err.startswith("firthctl: cursor_expired: ")


async def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    names = [f"c{number:05d}" for number in range(5000)]
    async with server(tmp_path, rig(channel_list=channels(*names))) as up:
        process = await start("channel.list", up=up)
        assert process.stdout is not None
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]  # as `| head -1` does
        assert process.stderr is not None
        err = await process.stderr.read()
        assert (await process.wait(), err) == (141, b"")


# --- help, start ----------------------------------------------------------------------------


async def test_the_overview_lists_every_method() -> None:
    done = await ctl("--help")
    assert done.status == 0
    for name, row in METHODS.items():
        assert name in done.out
        assert row.summary in done.out
    assert "@FILE reads a value from a file" in done.out


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_has_help(name: str) -> None:
    from firth_protocol.ctl.helptext import of_method

    text = of_method(METHODS[name])
    assert text.startswith(f"firthctl {name}")
    for field in METHODS[name].params.__struct_fields__:
        assert f"\n  {field}  " in text
    assert f"Role     {METHODS[name].role}" in text


async def test_help_of_a_method_documents_secrets() -> None:
    done = await ctl("mirror.create", "--help")
    assert done.out.startswith("firthctl mirror.create CHANNEL name=... type=... source=... [field=value ...]\n")
    assert 'schedule  text  (default "0 0 1 * *")' in done.out
    assert "credentials.token=@FILE, or credentials.token=@- from standard input" in done.out
    assert (await ctl("--version")).out == "firthctl, api 1\n"


async def test_discover_prints_what_the_daemon_says(tmp_path: Path) -> None:
    async def discover(context: Context, params: Any) -> dict[str, Any]:
        return {"openrpc": "1.3.2", "methods": []}

    async with server(tmp_path, rig(rpc_discover=discover)) as up:
        done = await ctl("discover", socket=up.socket)
    assert json.loads(done.out) == {"openrpc": "1.3.2", "methods": []}


def test_firthctl_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys; from firth_protocol.ctl import __main__ as m; m.run(['--help']); "
        "print(sorted(set(sys.modules) & {'aiohttp', 'textual', 'uvloop', 'asyncio', 'rich', 'firthd'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=9, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_every_handler_name_of_these_tests_is_in_the_table() -> None:
    with pytest.raises(AssertionError):
        handlers(channel_frezee=freeze)
