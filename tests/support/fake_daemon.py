"""A stand-in for the daemon on a real Unix socket: generated data of any size, and faults on command.

For tests of clients at scale (100,000 packages) and in trouble (killed, restarted, slow, of another version). It keeps
the shapes of the protocol and a little of its meaning; what a daemon does is tested against the real one.
`python -m tests.support.fake_daemon SOCKET` serves a lively world to look at.
"""

import argparse
import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from firth_protocol import types as t
from firth_protocol.errors import CursorExpired, FirthError, Forbidden, Invalid, MethodNotFound, NotFound, Upstream
from firth_protocol.events import Fact
from firth_protocol.methods import METHODS
from firthd.scheduler import CronSchedules
from tests.support.fake_policies import FakePolicies
from tests.support.fake_world import START, STEP_TITLES, rfc3339

T = TypeVar("T")
DOES = "_do_"
"""What the names of the functions begin with that answer a method."""


class FakeDaemon(FakePolicies):
    """Its world can be changed directly; `tell` sends the event that goes with a change."""

    def __init__(self, socket: Path, *, now: float = START, role: t.Role = t.Role.ADMIN) -> None:
        super().__init__(now)
        self.socket = socket
        self.role = role
        self.api = 1
        self.delay_s = 0.0
        self.offered = set(METHODS)
        self.blocks: list[dict[str, Any]] = []
        self.tokens: dict[int, t.Token] = {}
        self.upstreams: list[t.UpstreamHost] = []
        self.freed = 0
        self.notifies = True
        self.scrubs = 0
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.rolled_back: dict[str, t.ContentChange] = {}
        self._readers: set[asyncio.Queue[bytes]] = set()
        self._runner: web.AppRunner | None = None

    # --- life

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/rpc", self._rpc)
        app.router.add_get("/events", self._follow)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        self.socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        """Go away; connections break off, the socket's file stays, as after a kill."""
        for queue in self._readers:
            queue.put_nowait(b"")
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> "FakeDaemon":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- the wire

    def send(self, event: t.Event) -> None:
        line = msgspec.json.encode(event) + b"\n"
        for queue in self._readers:
            queue.put_nowait(line)

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        after = request.query.get("after", self.as_of)
        epoch, _, number = after.rpartition(":")
        if epoch != self.epoch:
            error = {"error": CursorExpired("the cursor is not of this daemon's state").wire()}
            return web.Response(status=410, body=msgspec.json.encode(error))
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        for event in self.events[int(number) :]:
            queue.put_nowait(msgspec.json.encode(event) + b"\n")
        self._readers.add(queue)
        try:
            with suppress(ConnectionResetError):
                while line := await queue.get():
                    await response.write(line)
        finally:
            self._readers.discard(queue)
        return response

    async def _rpc(self, request: web.Request) -> web.Response:
        body = msgspec.json.decode(await request.read())
        await asyncio.sleep(self.delay_s)
        answers = [self._answer(each) for each in body] if isinstance(body, list) else self._answer(body)
        return web.Response(body=msgspec.json.encode(answers))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        method, params = request["method"], request.get("params", {})
        self.calls.append((method, params))
        try:
            if method not in self.offered:
                raise MethodNotFound(f"no method {method}")
            row = METHODS[method]
            if not self.role.covers(row.role):
                raise Forbidden(f"{method} needs the role {row.role}; yours is {self.role}")
            # What the table does not have ends the connection: no test goes on with what no daemon takes or gives.
            msgspec.convert(params, row.params)
            result = msgspec.to_builtins(self.handler(method)(**params))
            msgspec.convert(result, row.result)
        except FirthError as error:
            return {"jsonrpc": "2.0", "id": request["id"], "error": error.wire()}
        return {"jsonrpc": "2.0", "id": request["id"], "result": result}

    def handler(self, method: str) -> Callable[..., Any]:
        """Return what answers a method; raises AttributeError where nothing does."""
        found: Callable[..., Any] = getattr(self, DOES + method.replace(".", "_"))
        return found

    def called(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of each call of `method` so far."""
        return [params for name, params in self.calls if name == method]

    # --- methods

    def _page(self, items: Sequence[T], cursor: str | None, limit: int) -> t.Page[T]:
        start = int(cursor or 0)
        shown = list(items[start : start + limit])
        following = str(start + limit) if start + limit < len(items) else None
        return t.Page(items=shown, next_cursor=following, total=len(items), as_of=self.as_of)

    def _do_rpc_discover(self) -> Any:
        return {"openrpc": "1.3.2", "methods": [{"name": name} for name in sorted(self.offered)]}

    def _do_daemon_status(self) -> Any:
        return t.DaemonStatus(
            program="firthd",
            version="0.1.0",
            api=self.api,
            started_at=rfc3339(self.now - 86400),
            uptime_s=86400.0,
            now=rfc3339(self.now),
            pid=4242,
            role=self.role,
            user="ada",
            addresses=["http://127.0.0.1:8470"],
            socket=str(self.socket),
            store=t.StoreStatus(bytes=62_900_000_000, blobs=40_112, free=812_000_000_000, floor=50_000_000_000),
            counts=t.Counts(
                channels=len(self.channels),
                mirrors=len(self.mirrors),
                runs_active=sum(not run.state.ended for run in self.runs.values()),
                runs_pending=0,
                artifacts=700_000,
            ),
            next_runs=[
                t.NextRun(
                    mirror=each.id, channel=each.channel, name=each.name, at=each.next_run_at or rfc3339(self.now)
                )
                for each in list(self.mirrors.values())[:5]
            ],
            health=self.health,
            loop_lag=t.LoopLag(p50_ms=0.1, p99_ms=2.4, max_ms=11.0, samples=60_000),
            rss_bytes=88_000_000,
            throughput_bytes_s=sum(run.rate_bytes_s for run in self.runs.values()),
            upstreams=self.upstreams,
            as_of=self.as_of,
        )

    def _do_channel_list(self, query: str = "", sort: str = "name", cursor: str | None = None, limit: int = 100) -> Any:
        found = [each for each in self.channels.values() if query.casefold() in each.name]
        return self._page(self._sorted(found, sort), cursor, limit)

    def _sorted(self, items: Iterable[T], sort: str) -> list[T]:
        field = {"last_updated": "last_success_at", "mirror": "name"}.get(
            sort.removeprefix("-"), sort.removeprefix("-")
        )

        def value(each: T) -> str:
            channel = f"{getattr(each, 'channel', '')}\0" if sort.removeprefix("-") == "name" else ""
            return f"{channel}{getattr(each, field)}".replace("/", " ")

        return sorted(items, key=value, reverse=sort.startswith("-"))

    def _channel(self, name: str) -> t.Channel:
        if name not in self.channels:
            raise NotFound(f"there is no channel {name}")
        return self.channels[name]

    def _do_channel_get(self, channel: str) -> Any:
        held = self._channel(channel)
        address = f"http://127.0.0.1:8470/repo/{channel}"
        return {
            **msgspec.to_builtins(held),
            "mirror_list": [each for each in self.mirrors.values() if each.channel == channel],
            "subchannel_list": [name for name in self.channels if name.startswith(f"{channel}/")],
            "blocks": self.blocks,
            "addresses": t.Addresses(
                conda=address,
                snapshot=f"http://127.0.0.1:8470/snapshot/DATE/{channel}",
                setup={
                    "conda": f"conda config --add channels {address}",
                    "pixi": f"pixi project channel add {address}",
                },
            ),
            "as_of": self.as_of,
        }

    def _do_channel_create(self, name: str, dry_run: bool = False, **fields: Any) -> Any:
        if name in self.channels:
            raise Invalid(f"there is a channel {name} already", path="name")
        if fields.get("keep_generations") is not None:
            fields["keep_generations"] = msgspec.convert(fields["keep_generations"], t.KeepGenerations)
        channel = self.add_channel(name, **fields)
        parent = name.partition("/")[0]
        if parent != name and parent in self.channels:
            held = self.channels[parent]
            self.channels[parent] = msgspec.structs.replace(held, subchannels=held.subchannels + 1)
        self.tell(Fact.CHANNEL_CREATED, {"channel": name})
        return {"channel": channel, "seq": len(self.events)}

    def _do_channel_update(self, channel: str, revision: int, **fields: Any) -> Any:
        held = self._channel(channel)
        fields = {name: value for name, value in fields.items() if name in {"description", "privacy", "policy"}}
        self.channels[channel] = msgspec.structs.replace(held, revision=revision + 1, **fields)
        self.assign()
        self.tell(Fact.CHANNEL_UPDATED, {"channel": channel})
        return {"channel": self.channels[channel], "seq": len(self.events)}

    def _do_channel_delete(self, channel: str, confirm: str) -> Any:
        self._channel(channel)
        if confirm != channel:
            raise Invalid("confirm must be the channel's name", path="confirm")
        del self.channels[channel]
        self.mirrors = {number: each for number, each in self.mirrors.items() if each.channel != channel}
        self.tell(Fact.CHANNEL_DELETED, {"channel": channel})
        return {"seq": len(self.events)}

    def _do_channel_freeze(self, channel: str) -> Any:
        return self._set_frozen(channel, frozen=True)

    def _do_channel_unfreeze(self, channel: str, dry_run: bool = False) -> Any:
        held = self._channel(channel)
        if not dry_run:
            self.rolled_back.pop(channel, None)
            return self._set_frozen(channel, frozen=False)
        change = self.rolled_back.get(channel)
        if change is None and held.draft is not None:
            change = t.ContentChange(
                added=held.draft.added,
                removed=held.draft.removed,
                from_generation=held.generation,
                to_generation=held.generation + 1,
            )
        return {"changed": held.frozen, "channel": held, "change": change, "seq": len(self.events)}

    def _set_frozen(self, channel: str, *, frozen: bool) -> Any:
        held = self._channel(channel)
        changed = held.frozen is not frozen
        since, by = (rfc3339(self.now), "ada") if frozen else (None, None)
        draft = held.draft if frozen else None
        self.channels[channel] = msgspec.structs.replace(
            held, frozen=frozen, frozen_at=since, frozen_by=by, draft=draft
        )
        if changed:
            self.tell(Fact.CHANNEL_FROZEN if frozen else Fact.CHANNEL_UNFROZEN, {"channel": channel})
        hidden = 37 if frozen else None
        return {
            "changed": changed,
            "channel": self.channels[channel],
            "not_stored": hidden,
            "seq": len(self.events),
        }

    def _do_channel_generations(self, channel: str, cursor: str | None = None, limit: int = 100) -> Any:
        self._channel(channel)
        return self._page(self.generations[channel], cursor, limit)

    def _do_channel_changes(
        self, channel: str, generation: int | None = None, cursor: str | None = None, limit: int = 100
    ) -> Any:
        self._channel(channel)
        return self._page(self.changes.get(channel, []), cursor, limit)

    def _do_channel_rollback(self, channel: str, generation: int) -> Any:
        return {"run": None, "seq": len(self.events)}

    def _do_mirror_check(self, type: str, source: str, **_: Any) -> Any:
        if "nowhere" in source:
            raise Invalid(f"{source} does not answer", hint="check the address", path="source")
        return t.SourceFound(
            type=t.MirrorType(type),
            source=source,
            subdirs=["linux-64", "noarch"] if type == t.MirrorType.CONDA else [],
            projects=1234 if type == t.MirrorType.PYTHON else None,
            index_bytes=62_900_000,
            warnings=[],
            platforms={"python": ["linux-64", "win-64"], "r": ["source", "windows"]}.get(type, []),
            python_versions=["3.13", "3.12"] if type == t.MirrorType.PYTHON else [],
            r_versions=["4.5", "4.4"] if type == t.MirrorType.R else [],
        )

    def _do_mirror_create(self, channel: str, name: str, run_now: bool = False, **fields: Any) -> Any:
        self._channel(channel)
        if any(each.channel == channel and each.name == name for each in self.mirrors.values()):
            raise Invalid(f"{channel} has a mirror {name} already", path="name")
        if "down" in fields["source"] and fields.get("check", True):
            raise Upstream(
                f"{fields['source']} does not answer", hint="`check: false` takes the address without asking"
            )
        more = any(each.channel == channel for each in self.mirrors.values())
        warnings = [f"{channel} has another mirror of that type: the older one wins"] if more else []
        dry = fields.pop("dry_run", False)
        for each in ("check", "credentials"):
            fields.pop(each, None)
        fields["filters"] = msgspec.convert(fields.get("filters", {}), t.Filters)
        fields["type"] = t.MirrorType(fields["type"])
        mirror = self.add_mirror(channel, name, **fields)
        if dry:
            del self.mirrors[mirror.id]
            return {"mirror": mirror, "run": None, "warnings": warnings, "seq": len(self.events)}
        self.assign()
        self.tell(Fact.MIRROR_CREATED, {"channel": channel, "mirror": mirror.id})
        run = self.begin_run(mirror.id) if run_now else None
        return {"mirror": self.mirrors[mirror.id], "run": run, "warnings": warnings, "seq": len(self.events)}

    def _do_mirror_list(
        self,
        channel: str | None = None,
        query: str = "",
        sort: str = "name",
        cursor: str | None = None,
        limit: int = 100,
        **fields: Any,
    ) -> Any:
        found = [
            each
            for each in self.mirrors.values()
            if query.casefold() in f"{each.channel}:{each.name} {each.source}".casefold()
            and channel in {None, each.channel}
            and all(getattr(each, name) == value for name, value in fields.items())
        ]
        return self._page(self._sorted(found, sort), cursor, limit)

    def _mirror(self, ref: int | str) -> t.Mirror:
        for each in self.mirrors.values():
            if ref in {each.id, f"{each.channel}:{each.name}"}:
                return each
        raise NotFound(f"there is no mirror {ref}")

    def _do_mirror_get(self, mirror: int | str) -> Any:
        return {**msgspec.to_builtins(self._mirror(mirror)), "as_of": self.as_of}

    def _do_mirror_update(self, mirror: int | str, revision: int, **fields: Any) -> Any:
        held = self._mirror(mirror)
        known = {"name", "source", "schedule", "enabled", "policy"}
        fields = {name: value for name, value in fields.items() if name in known}
        self.mirrors[held.id] = msgspec.structs.replace(held, revision=revision + 1, **fields)
        self.assign()
        self.tell(Fact.MIRROR_UPDATED, {"channel": held.channel, "mirror": held.id})
        return {"mirror": self.mirrors[held.id], "warnings": [], "seq": len(self.events)}

    def _do_mirror_run(self, mirror: int | str, accept_removals: bool = False) -> Any:
        return {"run": self.begin_run(self._mirror(mirror).id), "seq": len(self.events)}

    def _do_mirror_restart(self, mirror: int | str) -> Any:
        return self._do_mirror_run(mirror)

    def _do_mirror_plan(self, mirror: int | str | None = None, **_: Any) -> Any:
        held = self._mirror(mirror) if mirror is not None else next(iter(self.mirrors.values()))
        run = self.begin_run(held.id, t.RunKind.PLAN)
        return {"run": run, "seq": len(self.events)}

    def _do_mirror_stop(self, mirror: int | str, publish: bool = False) -> Any:
        held = self._mirror(mirror)
        run = next(each.id for each in self.runs.values() if each.mirror == held.id and not each.state.ended)
        self.finish(run, t.RunState.STOPPED)
        return {"run": self.runs[run], "seq": len(self.events)}

    def _do_mirror_fill(self, mirror: int | str) -> Any:
        return {"run": msgspec.to_builtins(self.begin_run(self._mirror(mirror).id)), "seq": len(self.events)}

    def _do_token_list(self, query: str = "", cursor: str | None = None, limit: int = 100) -> Any:
        return self._page([each for each in self.tokens.values() if query in each.name], cursor, limit)

    def _do_token_create(self, name: str, channels: list[str] | None = None, expires_at: str | None = None) -> Any:
        token = t.Token(
            id=len(self.tokens) + 1,
            name=name,
            channels=channels or [],
            created_at=rfc3339(self.now),
            created_by="ada",
            expires_at=expires_at,
            last_used_at=None,
            revoked=False,
        )
        self.tokens[token.id] = token
        self.tell(Fact.TOKEN_CREATED, {"token": token.id})
        return {"token": f"secret-of-{name}", "item": token, "seq": len(self.events)}

    def _do_token_revoke(self, id: int) -> Any:
        self.tokens[id] = msgspec.structs.replace(self.tokens[id], revoked=True)
        self.tell(Fact.TOKEN_REVOKED, {"token": id})
        return {"item": self.tokens[id], "seq": len(self.events)}

    def _do_store_gc(self, dry_run: bool = False) -> Any:
        self.freed += not dry_run
        held = {"index": 7_000_000, "drafts": 0, "grace": 2_000_000, "snapshots": 1_000_000}
        use: dict[str, Any] = {
            "bytes": 0,
            "blobs": 0,
            "quarantined": 0,
            "quarantined_waiting": 0,
            "free": 0,
            "floor": 0,
        }
        use |= {"index_files": 0, "index_bytes": 0, "unneeded": 3, "unneeded_bytes": 5_000_000, "snapshots": []}
        return {"run": None, "blobs": 3, "bytes": 5_000_000, "use": use | {"held": held}, "seq": len(self.events)}

    def _do_store_status(self) -> Any:
        return {
            "bytes": 62_900_000_000,
            "blobs": 40_112,
            "quarantined": 0,
            "quarantined_waiting": 0,
            "free": 812_000_000_000,
            "floor": 50_000_000_000,
            "index_files": 120,
            "index_bytes": 900_000_000,
            "held": t.HeldBytes(index=40_000_000_000, drafts=0, grace=2_900_000_000, snapshots=20_000_000_000),
            "snapshots": [],
            "unneeded": 0,
            "unneeded_bytes": 0,
            "as_of": self.as_of,
        }

    def _do_store_scrub(self) -> Any:
        self.scrubs += 1
        return {"run": None, "seq": len(self.events)}

    def _do_package_remove(self, channel: str, spec: str, family: str) -> Any:
        block = {"family": family, "spec": spec, "by": "ada", "at": "2026-04-29T22:00:00.000Z", "note": ""}
        self.blocks.append(block)
        return {"files": [], "total": 3, "run": None, "seq": len(self.events)}

    def _do_package_restore(self, channel: str, spec: str, family: str) -> Any:
        self.blocks = [block for block in self.blocks if (block["family"], block["spec"]) != (family, spec)]
        return {"files": [], "total": 3, "run": None, "seq": len(self.events)}

    def _do_mirror_delete(self, mirror: int | str, packages: str, confirm: str) -> Any:
        held = self._mirror(mirror)
        if confirm != held.name:
            raise Invalid("confirm must be the mirror's name", path="confirm")
        del self.mirrors[held.id]
        self.tell(Fact.MIRROR_DELETED, {"channel": held.channel, "mirror": held.id})
        return {"kept": held.stored, "dropped": held.artifacts - held.stored, "run": None, "seq": len(self.events)}

    def _do_mirror_details(self, mirror: int | str, run: int | None = None) -> Any:
        held = self._mirror(mirror)
        return t.MirrorDetails(
            mirror=held.id,
            run=held.last_run.id if held.last_run else None,
            counts=t.RunCounts(
                added=1_204,
                removed=17,
                unchanged=698_779,
                failed=2,
                filtered=self.filtered(held),
            ),
            artifacts=held.artifacts,
            stored=held.stored,
            on_demand=held.artifacts - held.stored,
            bytes=held.bytes,
            bytes_stored=held.bytes // 10,
            parts={"linux-64": 510_000, "noarch": 190_000},
            failed=[
                t.FailedArtifact(
                    part="linux-64", filename="zlib-1.3-h0_0.conda", reason="the source says 404", attempts=3
                )
            ],
            shadowed=["numpy"],
            notes=["2 names are shadowed by an older mirror"],
            in_force=held.in_force,
        )

    def _do_run_list(self, sort: str = "-id", cursor: str | None = None, limit: int = 100, **fields: Any) -> Any:
        fields = {name: value for name, value in fields.items() if value is not None}
        found = [
            each for each in self.runs.values() if all(getattr(each, name) == value for name, value in fields.items())
        ]
        by = sort.removeprefix("-")

        def value(each: t.Run) -> tuple[str, int]:
            return ("" if by == "id" else str(getattr(each, "mirror_name" if by == "mirror" else by))), each.id

        return self._page(sorted(found, key=value, reverse=sort.startswith("-")), cursor, limit)

    def _run(self, run: int) -> t.Run:
        if run not in self.runs:
            raise NotFound(f"there is no run {run}")
        return self.runs[run]

    def _do_run_get(self, run: int) -> Any:
        return {**msgspec.to_builtins(self._run(run)), "as_of": self.as_of}

    def _do_run_log(self, run: int, after: int = 0, limit: int = 200) -> Any:
        self._run(run)
        left = [line for line in self.logs[run] if line.number > after]
        more = str(left[limit - 1].number) if len(left) > limit else None
        return t.Page(items=left[:limit], next_cursor=more, total=None, as_of=self.as_of)

    def _do_package_list(
        self,
        channel: str,
        query: str = "",
        sort: str = "name",
        cursor: str | None = None,
        limit: int = 100,
        **_: Any,
    ) -> Any:
        self._channel(channel)
        found = self.packages.get(channel, [])
        if query:
            found = [each for each in found if query.casefold() in each.name]
        if sort != "name":
            field = sort.removeprefix("-")
            found = sorted(found, key=lambda each: (getattr(each, field), each.name), reverse=sort.startswith("-"))
        return self._page(found, cursor, limit)

    def _do_report_downloads(self, channel: str, package: str, **_: Any) -> Any:
        counts = {"": 12, "build farm": 40} if any(one.downloads for one in self.packages.get(channel, [])) else {}
        items = [
            t.DownloadCount(
                channel=channel,
                family=t.Family.CONDA,
                package=package,
                day=None,
                version=None,
                token=token,
                downloads=downloads,
            )
            for token, downloads in counts.items()
        ]
        return t.TextPage(items=items, as_of=self.as_of)

    def _do_notify_test(self) -> Any:
        return t.NotifyTest(ok=self.notifies, text="the notification was taken", seconds=0.1)

    def _do_package_get(self, channel: str, name: str, family: str = "conda") -> Any:
        package = next((each for each in self.packages.get(channel, []) if each.name == name), None)
        if package is None:
            raise NotFound(f"{channel} has no package {name}")
        files = [
            t.PackageFile(
                part="noarch",
                filename=f"{name}-{package.version}-py_{index}.conda",
                version=package.version,
                build=f"py_{index}",
                size=123_456,
                sha256="ab" * 32,
                md5=None,
                license="BSD-3-Clause",
                timestamp=rfc3339(self.now - 86400 * index),
                state=t.ArtifactState.STORED if index % 2 else t.ArtifactState.ON_DEMAND,
                depends=["python >=3.9", "numpy"],
                mirror="forge",
                generation=1,
                url=f"http://127.0.0.1:8470/repo/{channel}/noarch/{name}-{package.version}-py_{index}.conda",
            )
            for index in range(package.files)
        ]
        return t.PackageDetail(
            channel=channel,
            family=t.Family(family),
            name=name,
            version=package.version,
            versions=[package.version],
            files=files,
            truncated=False,
            dependencies=["python", "numpy"],
            dependants=["package-000002"],
            as_of=self.as_of,
        )

    def _do_schedule_next(self, schedule: str, count: int = 3) -> Any:
        return CronSchedules().coming(schedule, round(self.now * 1000), count)

    def _do_audit_list(self, query: str = "", cursor: str | None = None, limit: int = 100) -> Any:
        entries = [
            t.AuditEntry(
                id=number,
                time=rfc3339(self.now - 60 * number),
                uid=1000,
                pid=4242,
                user="ada",
                role=t.Role.MANAGER,
                method="channel.freeze",
                params={"channel": "main"},
                outcome="ok",
            )
            for number in range(40, 0, -1)
        ]
        return self._page([each for each in entries if query in each.method or query in each.user], cursor, limit)


async def _serve(socket: Path, channels: int, packages: int, running: int) -> None:
    """Serve a world in which `running` mirrors run for ever, with progress four times a second each."""
    daemon = FakeDaemon(socket, now=datetime.now(UTC).timestamp())
    daemon.add_channel("main", packages=packages, generation=4)
    for number in range(channels - 1):
        daemon.add_channel(f"team-{number:04}", frozen=number % 5 == 0)
    runs = [daemon.begin_run(daemon.add_mirror("main", f"source-{number:02}").id).id for number in range(running)]
    async with daemon:
        for tick in itertools.count():
            daemon.now = datetime.now(UTC).timestamp()
            for place, run in enumerate(runs):
                if daemon.runs[run].state.ended:
                    continue
                name = STEP_TITLES[tick // 40 % 8][0]
                if tick and tick % 320 == 0:
                    daemon.finish(run)
                    runs[place] = daemon.begin_run(daemon.runs[run].mirror or 0).id
                    continue
                if tick % 40 == 0:
                    daemon.step(run, name, total=40_000, description="begins")
                    daemon.log(
                        run, f"{name} begins, with a line that is rather long " + "so that it must be cut " * 4, name
                    )
                done = tick % 40 * 1000 + run
                daemon.progress(run, done=done, total=40_000, rate=1e6 + done, description=f"file number {done:,}")
            await asyncio.sleep(0.25)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("socket", type=Path)
    parser.add_argument("--channels", type=int, default=12)
    parser.add_argument("--packages", type=int, default=100_000)
    parser.add_argument("--running", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(_serve(given.socket, given.channels, given.packages, given.running))
