"""A whole installation as a document: written, made elsewhere, applied again, tried, and cut off half-way."""

import json
from pathlib import Path
from typing import Any

import pytest

from firth_protocol.errors import Conflict, Invalid
from firth_protocol.types import RunState
from tests.support.ctl import ctl
from tests.support.world import World, world

SECRET = "s3cr3t-0123456789"


def document(w: World) -> str:
    return f"""
[policies.few]
description = "what we use"
[policies.few.rules.packages]
allow = ["alpha"]
[channels.main]
policy = "few"
[channels."main/dev"]
notices = [{{ message = "moved", expires_at = 2030-01-31T00:00:00Z }}]
[channels."main/dev".mirrors.own]
type = "conda"
source = "{w.upstream.url}/"
schedule = "weekly"
credentials = "given"
max_rate = 5000
filters = {{ subdirs = ["noarch"] }}
"""


async def lines(w: World) -> list[tuple[str, str]]:
    return [(one.method, one.outcome) for one in (await w.call("audit.list")).items][::-1]


async def test_a_document_is_tried_applied_and_written_again(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.call("policy.create", name="other", rules={})
        await w.mirror("passive")
        await w.run()
        secrets = {"main/dev:own": {"token": SECRET}}
        before = await lines(w)
        first = (await w.call("config.export")).document

        tried = await w.call("config.apply", document=document(w), secrets=secrets, dry_run=True)
        assert [(one.action, one.kind, one.name) for one in tried.changes] == [
            ("created", "policy", "few"),
            ("changed", "channel", "main"),
            ("created", "channel", "main/dev"),
            ("created", "mirror", "main/dev:own"),
        ]
        assert [(one.field, one.before, one.after) for one in tried.changes[1].fields] == [("policy", "", "few")]
        assert tried.left_alone == ["policy other", "mirror main:m"]
        ((policy, effect),) = [(one.policy, one.effects[0]) for one in tried.previews]
        assert (policy, effect.mirror_name, effect.kept, effect.records) == ("few", "m", 3, 5)
        assert (await lines(w), (await w.call("config.export")).document) == (before, first)

        done = await w.call("config.apply", document=document(w), secrets=secrets)
        assert done.changes == tried.changes
        assert [(await w.daemon.ended(run.id)).state for run in done.runs] == [RunState.COMPLETED]
        assert await w.names(subdirs=("noarch",)) == {"alpha-1.0-0.tar.bz2", "alpha-1.9-0.conda", "alpha-1.10-0.conda"}
        assert (await lines(w))[len(before) :] == [
            ("config.apply", "ok"),
            ("policy.create", "ok"),
            ("channel.update", "ok"),
            ("channel.create", "ok"),
            ("mirror.create", "ok"),
        ]
        mirror = await w.call("mirror.get", mirror="main/dev:own")
        assert (mirror.schedule, mirror.max_rate, mirror.credentials) == ("0 0 * * 0", 5000, "***")
        (notice,) = (await w.call("channel.get", channel="main/dev")).notices
        assert notice.expires_at == "2030-01-31T00:00:00.000Z"

        second = (await w.call("config.export")).document
        for again, given in ((second, {}), (document(w), {}), (document(w), secrets)):
            reply = await w.call("config.apply", document=again, secrets=given)
            assert (reply.changes, reply.runs) == ([], [])
        assert len(await lines(w)) == len(before) + 5
        assert SECRET not in second + json.dumps([str(one) for one in (await w.call("audit.list")).items])

        # what the first document said of what it named comes true again, by what it spells out
        await w.call("config.apply", document=first)
        assert (await w.call("channel.get", channel="main")).policy is None
        assert (await w.call("channel.get", channel="main/dev")).policy is None
        alone = (await w.call("config.export", channel="main/dev")).document
        assert ("other" in alone, "[channels.main]" in alone, '[channels."main/dev"]' in alone) == (False, False, True)


async def test_an_export_makes_the_same_elsewhere(tmp_path: Path) -> None:
    async with world(tmp_path / "one") as w:
        await w.call("config.apply", document=document(w), secrets={"main/dev:own": {"token": SECRET}})
        await w.mirror("active", "second", also_from=["file:///srv/copy"], on_upstream_removal="keep")
        exported = (await w.call("config.export")).document
    async with world(tmp_path / "two") as w:
        with pytest.raises(Invalid) as refused:
            await w.call("config.apply", document=exported)
        assert refused.value.data["path"] == '$.channels."main/dev".mirrors.own.credentials'
        await w.call("config.apply", document=exported, secrets={"main/dev:own": {"token": SECRET}})
        assert (await w.call("config.export")).document == exported


NEW = '[channels.new.mirrors.m]\ntype = "conda"\nsource = "file:///srv"\n'
WRONG = {
    '[policies.bad.rules.packages]\nallow = ["alpha >=1 <2"]': "$.policies.bad.rules.packages.allow[0]",
    "[channels.BAD]": "$.channels.BAD.name",
    '[channels.new.mirrors.m]\ntype = "conda"\nsource = "nonsense"': "$.channels.new.mirrors.m.source",
    f'{NEW}schedule = "often"': "$.channels.new.mirrors.m.schedule",
    f'{NEW}filters = {{r_versions = ["4.3"]}}': "$.channels.new.mirrors.m.filters.r_versions",
    f"{NEW}max_rate = 3": "$.channels.new.mirrors.m.max_rate",
    f'{NEW}proxy = "http://me:pw@127.0.0.1:3128"': "$.channels.new.mirrors.m.proxy",
    f'{NEW}credentials = "@nobody"': "$.channels.new.mirrors.m.credentials",
    '[[channels.main.notices]]\nmessage = "m"\nexpires_at = "soon"': "$.channels.main.notices[0].expires_at",
}


async def test_all_is_checked_before_anything_changes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        before = (await w.call("config.export")).document
        for wrong, path in WRONG.items():
            with pytest.raises(Invalid) as refused:
                await w.call("config.apply", document=f"[policies.fine]\nrules = {{}}\n{wrong}")
            assert refused.value.data["path"] == path, wrong
        assert (await w.call("config.export")).document == before
        assert not [one for one in await lines(w) if one[1] == "ok" and one[0] != "channel.create"]


async def test_what_was_done_is_told_when_the_rest_cannot_be(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        text = f"""
[policies.fine]
rules = {{}}
[channels.new.mirrors.a]
type = "conda"
source = "{w.upstream.url}"
[channels.new.mirrors.b]
type = "conda"
source = "{w.upstream.url}/nowhere"
"""
        with pytest.raises(Exception, match=r"3 of 4 steps were taken: ") as failed:
            await w.call("config.apply", document=text, check=True)
        error: Any = failed.value
        assert error.data["done"] == ["policy fine created", "channel new created", "mirror new:a created"]
        assert error.data["left"] == ["mirror new:b"]
        assert error.data["path"].startswith("$.channels.new.mirrors.b")
        outcomes = dict(await lines(w))
        assert (outcomes["policy.create"], outcomes["config.apply"]) == ("ok", error.kind)
        reply = await w.call("config.apply", document=text)
        assert [one.name for one in reply.changes] == ["new:b"]


async def test_firthctl_writes_and_reads_the_document(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        socket = w.daemon.socket
        exported = await ctl("config.export", socket=socket)
        assert exported.out == (await w.call("config.export")).document
        assert "document" in json.loads((await ctl("config.export", "--json", socket=socket)).out)
        file = tmp_path / "firth.toml"
        file.write_text(exported.out + document(w).replace("[channels.main]", "").replace('policy = "few"', ""))
        given = {"SECRETS": json.dumps({"main/dev:own": {"token": SECRET}})}
        applied = await ctl("config.apply", f"@{file}", "secrets=@env:SECRETS", "--json", socket=socket, environ=given)
        assert (applied.status, "can be read" in applied.err) == (0, False)
        assert [one["name"] for one in json.loads(applied.out)["changes"]] == ["few", "main/dev", "main/dev:own"]
        missed = await ctl("config.apply", str(file), socket=socket)
        assert (missed.status, "config.apply @FILE" in missed.err) == (1, True)
        warned = await ctl("config.apply", f"@{file}", f"secrets={given['SECRETS']}", socket=socket)
        assert "can be read by other users" in warned.err


async def test_the_audit_line_of_a_document_is_short(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.call("config.apply", document="[policies.a]\nrules = {}\n# https://me:pw@host.example.org")
        params = next(one.params for one in (await w.call("audit.list")).items if one.method == "config.apply")
        assert params["document"]["bytes"] == 56
        with pytest.raises(Conflict):
            await w.call("policy.create", name="a", rules={})
