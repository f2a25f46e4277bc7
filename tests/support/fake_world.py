"""A generated world of channels, mirrors and runs, which tests change directly; each change tells its event."""

import itertools
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec

from firth_protocol import types as t
from firth_protocol.events import PROGRESS, Fact

START = 1_795_348_800.0
"""Noon, 22 November 2026: the fake world's time, which stands still unless a test moves it."""

STEP_TITLES = (
    (t.StepName.CONNECT, "Connect to source", ""),
    (t.StepName.FETCH_INDEX, "Fetch remote index", "bytes"),
    (t.StepName.FILTER, "Filter remote packages", "artifacts"),
    (t.StepName.RESOLVE, "Resolve dependencies", "specs"),
    (t.StepName.PLAN, "Compare with channel", "artifacts"),
    (t.StepName.DOWNLOAD, "Download packages", "files"),
    (t.StepName.PUBLISH, "Publish index", "files"),
    (t.StepName.CLEAN, "Clean up", "files"),
)


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def fresh_steps() -> list[t.Step]:
    return [
        t.Step(number=number, name=name, title=title, state=t.StepState.WAITING, unit=unit)
        for number, (name, title, unit) in enumerate(STEP_TITLES, 1)
    ]


@cache
def generated_packages(count: int) -> tuple[t.Package, ...]:
    return tuple(
        t.Package(
            family=t.Family.CONDA,
            name=f"package-{index:06}",
            version=f"{1 + index % 9}.{index % 30}.0",
            versions=1 + index % 12,
            files=2 + index % 40,
            stored=index % 3,
            bytes=(1 + index % 977) * 54_321,
            platforms=["linux-64", "noarch"] if index % 2 else ["noarch"],
        )
        for index in range(count)
    )


class FakeWorld:
    """What a daemon would hold."""

    def __init__(self, now: float = START) -> None:
        self.now = now
        self.epoch = "fake"
        self.channels: dict[str, t.Channel] = {}
        self.mirrors: dict[int, t.Mirror] = {}
        self.runs: dict[int, t.Run] = {}
        self.logs: dict[int, list[t.LogLine]] = {}
        self.packages: dict[str, list[t.Package]] = {}
        self.generations: dict[str, list[t.Generation]] = {}
        self.changes: dict[str, list[t.Change]] = {}
        self.health: list[t.HealthProblem] = []
        self.events: list[t.Event] = []
        self._ids = itertools.count(1)

    def add_channel(self, name: str, *, packages: int = 0, **fields: Any) -> t.Channel:
        families = []
        if packages:
            self.packages[name] = list(generated_packages(packages))
            families = [
                t.FamilyTotals(
                    family=t.Family.CONDA, artifacts=packages * 3, packages=packages, bytes=packages * 1_234_567
                )
            ]
        values: dict[str, Any] = {
            "id": next(self._ids),
            "name": name,
            "description": "",
            "privacy": t.Privacy.PUBLIC,
            "keep_generations": t.KeepGenerations(),
            "frozen": False,
            "frozen_at": None,
            "frozen_by": None,
            "generation": 1,
            "published_at": rfc3339(self.now - 7200),
            "families": families,
            "mirrors": 0,
            "worst_state": None,
            "subchannels": 0,
            "draft": None,
            "created_at": rfc3339(self.now - 86400),
            "updated_at": rfc3339(self.now - 86400),
            "revision": 1,
        }
        channel = t.Channel(**{**values, **fields})
        self.channels[name] = channel
        self.generations[name] = [
            t.Generation(
                number=number,
                time=rfc3339(self.now - 86400 + number * 3600),
                cause=t.Cause.CREATE if number == 1 else t.Cause.RUN,
                run=None,
                added=(number - 1) * 120,
                removed=(number - 1) * 3,
                artifacts=(number - 1) * 117,
                bytes=(number - 1) * 80_000_000,
                digest=f"{number:064x}",
                shows=number,
                current=number == channel.generation,
                kept=True,
            )
            for number in range(channel.generation, 0, -1)
        ]
        return channel

    def add_mirror(self, channel: str, name: str, **fields: Any) -> t.Mirror:
        number = next(self._ids)
        values: dict[str, Any] = {
            "id": number,
            "channel": channel,
            "name": name,
            "type": t.MirrorType.CONDA,
            "mode": t.MirrorMode.PASSIVE,
            "source": f"https://conda.example.org/{name}",
            "schedule": "0 0 1 * *",
            "filters": t.Filters(),
            "on_upstream_removal": t.OnUpstreamRemoval.FOLLOW,
            "proxy": None,
            "ca_file": None,
            "credentials": None,
            "enabled": True,
            "state": t.RunState.PENDING,
            "last_run": None,
            "last_success_at": None,
            "last_success_age_s": None,
            "next_run_at": rfc3339(self.now + 3 * 86400),
            "artifacts": 0,
            "stored": 0,
            "shadowed": 0,
            "bytes": 0,
            "created_at": rfc3339(self.now - 86400),
            "updated_at": rfc3339(self.now - 3600),
            "revision": 1,
        }
        mirror = t.Mirror(**{**values, **fields})
        self.mirrors[number] = mirror
        held = self.channels[channel]
        self.channels[channel] = msgspec.structs.replace(
            held, mirrors=held.mirrors + 1, worst_state=held.worst_state or mirror.state
        )
        return mirror

    def begin_run(self, mirror: int, kind: t.RunKind = t.RunKind.MIRROR) -> t.Run:
        """Start a run of a mirror, at its first step."""
        held = self.mirrors[mirror]
        number = next(self._ids)
        self.runs[number] = t.Run(
            id=number,
            kind=kind,
            state=t.RunState.RUNNING,
            channel=held.channel,
            mirror=mirror,
            mirror_name=held.name,
            cause="by hand",
            by="ada",
            created_at=rfc3339(self.now),
            started_at=rfc3339(self.now),
            finished_at=None,
            step=t.StepName.CONNECT,
            steps=fresh_steps(),
            counts=t.RunCounts(),
            bytes_done=0,
            bytes_total=None,
            rate_bytes_s=0.0,
            eta_s=None,
            waiting_for=None,
            generation=None,
            error=None,
            notes=[],
        )
        self.logs[number] = []
        self._brief(number)
        self._run_fact(Fact.RUN_STARTED, number)
        return self.runs[number]

    def step(
        self, run: int, name: t.StepName, *, done: int = 0, total: int | None = None, description: str = ""
    ) -> None:
        """Go on to a step; those before it are done."""
        held = self.runs[run]
        steps: list[t.Step] = []
        reached = False
        for each in held.steps:
            if each.name == name:
                reached = True
                each = msgspec.structs.replace(
                    each,
                    state=t.StepState.RUNNING,
                    done=done,
                    total=total,
                    description=description,
                    started_at=each.started_at or rfc3339(self.now),
                )
            elif not reached and each.state is not t.StepState.DONE:
                each = msgspec.structs.replace(
                    each,
                    state=t.StepState.DONE,
                    started_at=each.started_at or rfc3339(self.now),
                    finished_at=rfc3339(self.now),
                )
            steps.append(each)
        self.runs[run] = msgspec.structs.replace(held, step=name, steps=steps)
        self._brief(run)
        number = next(step.number for step in steps if step.name == name)
        self._run_fact(Fact.RUN_STEP, run, step=name, number=number, state="running", description=description)

    def progress(self, run: int, *, done: int, total: int | None = None, rate: float = 0.0, **data: Any) -> None:
        """Tell progress of the step that runs; nothing durable."""
        held = self.runs[run]
        steps = [
            msgspec.structs.replace(step, done=done, total=total, description=data.get("description", step.description))
            if step.name == held.step
            else step
            for step in held.steps
        ]
        self.runs[run] = msgspec.structs.replace(held, steps=steps, rate_bytes_s=rate)
        step = next(step for step in steps if step.name == held.step)
        told = {**msgspec.to_builtins(step), "rate_bytes_s": rate, "bytes_done": held.bytes_done, **data}
        ids = {"run": run, "mirror": held.mirror, "channel": held.channel}
        self.send(t.Event(time=rfc3339(self.now), topic="progress", type=PROGRESS, ids=ids, data=told))

    def finish(self, run: int, state: t.RunState = t.RunState.COMPLETED, error: t.RunError | None = None) -> None:
        """End a run."""
        held = self.runs[run]
        steps = [
            step
            if step.state is t.StepState.DONE
            else msgspec.structs.replace(
                step,
                state=t.StepState.DONE if state is t.RunState.COMPLETED else t.StepState.SKIPPED,
                started_at=step.started_at or rfc3339(self.now),
                finished_at=rfc3339(self.now),
            )
            for step in held.steps
        ]
        self.runs[run] = msgspec.structs.replace(
            held, state=state, steps=steps, step=None, error=error, finished_at=rfc3339(self.now), rate_bytes_s=0.0
        )
        self._brief(run)
        self._run_fact(Fact.RUN_FINISHED, run, state=state, error=msgspec.to_builtins(error))

    def log(self, run: int, text: str, step: t.StepName | None = None, level: str = "info") -> None:
        lines = self.logs[run]
        lines.append(t.LogLine(number=len(lines) + 1, time=rfc3339(self.now), level=level, step=step, text=text))

    def _brief(self, run: int) -> None:
        held = self.runs[run]
        if held.mirror is None or held.kind is not t.RunKind.MIRROR:
            return
        step = next((step for step in held.steps if step.name == held.step), None)
        brief = t.RunBrief(
            id=run,
            state=held.state,
            step=held.step,
            step_number=step.number if step else None,
            description=step.description if step else "",
            started_at=held.started_at,
            finished_at=held.finished_at,
            error=held.error,
            missing=held.counts.failed,
        )
        mirror = msgspec.structs.replace(self.mirrors[held.mirror], state=held.state, last_run=brief)
        if held.state is t.RunState.COMPLETED:
            mirror = msgspec.structs.replace(mirror, last_success_at=held.finished_at, last_success_age_s=0.0)
        self.mirrors[mirror.id] = mirror
        channel = self.channels[mirror.channel]
        self.channels[channel.name] = msgspec.structs.replace(channel, worst_state=held.state)

    def _run_fact(self, fact: Fact, run: int, **data: Any) -> None:
        held = self.runs[run]
        self.tell(fact, {"run": run, "mirror": held.mirror, "channel": held.channel}, data)

    def tell(self, fact: Fact, ids: dict[str, Any], data: dict[str, Any] | None = None) -> None:
        """Number a fact and send it."""
        event = t.Event(
            cursor=f"{self.epoch}:{len(self.events) + 1}",
            time=rfc3339(self.now),
            topic=fact.topic,
            type=fact,
            ids=ids,
            data=data or {},
        )
        self.events.append(event)
        self.send(event)

    def send(self, event: t.Event) -> None:
        """Take an event to those who follow; nobody does without a socket."""

    @property
    def as_of(self) -> str:
        return f"{self.epoch}:{len(self.events)}"
