"""The form that creates and edits a mirror; the source is asked while typing stops."""

import asyncio
from collections.abc import Sequence
from typing import Any

from textual.containers import VerticalScroll
from textual.timer import Timer

from firth_protocol.errors import Conflict, FirthError, Invalid
from firth_protocol.methods import MirrorGet, MirrorReply, RunReply
from firth_protocol.types import (
    NAMED_SCHEDULES,
    Filters,
    Mirror,
    MirrorMode,
    MirrorType,
    OnUpstreamRemoval,
    ScheduleNext,
    SourceFound,
)
from firth_tui.actions import Place, Target
from firth_tui.format import Tone, moment, type_name
from firth_tui.screens.forms.fields import Field, choice_field, lines, text_field, words
from firth_tui.screens.forms.form import Form
from firth_tui.screens.forms.mirror_lists import (
    FILTERS,
    FOUND,
    SWITCHES,
    YES_NO,
    channel_field,
    compare_found,
    filter_fields,
    found_words,
    offer_channels,
)
from firth_tui.screens.forms.policy_choice import NO_POLICY, offer_policies, policy_field, say_in_force
from firth_tui.widgets.work import Repeated, start
from firth_tui.wording import UNCHECKED

TYPING_S = 0.7
"""How long typing must pause before the source is asked."""

FIXED = "fixed after creation"

SECRETS = (("none", "none"), ("token", "token"), ("user", "user and password"), ("bearer", "bearer"))
WARNED = {
    "schedule": ("schedule", "often", "daily", "hour"),
    "conda-subdirs": ("platform", "subdir"),
    "also_from": ("file:",),
}
"""Fields that a warning is about, by words in it; others stand beside the name."""
MEGABYTE = 1_000_000
TRANSFER = ("also_from", "drop_unused_days", "max_rate", "max_rate_hours")
PLAN_FIELDS = ("channel", "name", "type", "mode", "source", "filters", "on_upstream_removal", "proxy", "ca_file")


class MirrorForm(Form):
    """Dismisses with a MirrorReply, or None when cancelled."""

    def __init__(self, *, mirror: Mirror | None = None, channel: str = "", likely: str = "") -> None:
        """Edit `mirror`, or make one: in `channel`, or where somebody picks it, `likely` picked at first."""
        where = mirror.channel if mirror else channel
        self._likely = likely
        what = f"Edit the mirror {mirror.name} of {where}" if mirror else f"New mirror{f' of {where}' if where else ''}"
        super().__init__(what)
        self.mirror = mirror
        self.channel = where
        self._revision = mirror.revision if mirror else 0
        self._typing: Timer | None = None
        self._found: SourceFound | None = None  # at the last look at the source
        self._unasked = ""  # the source that did not answer when it was saved: saving again takes it
        self._times = Repeated(self, self._show_times, group="times")
        self._in_force = Repeated(self, self._say_in_force, group="policy")

    # --- the fields

    def fields(self) -> list[Field]:
        mirror = self.mirror
        fixed = FIXED if mirror else ""
        shown = [
            text_field(
                "name",
                "Name",
                "Any name, unique in its channel.",
                mirror.name if mirror else "",
                placeholder="such as forge",
            ),
            choice_field(
                "type",
                "Type",
                "What stands at the source: a conda channel, a Python index, or a CRAN-like R repository.",
                [(each, type_name(each)) for each in MirrorType],
                mirror.type if mirror else MirrorType.CONDA,
                reason=fixed,
            ),
            choice_field(
                "mode",
                "Mode",
                "Passive fetches a file when a client first asks for it; active downloads every file in its run.",
                [(MirrorMode.PASSIVE, "passive (recommended)"), (MirrorMode.ACTIVE, "active")],
                mirror.mode if mirror else MirrorMode.PASSIVE,
                reason=fixed,
            ),
            text_field(
                "source",
                "Source",
                "The address: https://…, or file:///… for a folder on this machine. It is asked when you pause.",
                mirror.source if mirror else "",
                placeholder="such as https://conda.example.org/main",
            ),
            *self._when(),
            policy_field(
                mirror.policy if mirror else None,
                nobody=NO_POLICY,
                help="The rules for what it may bring in; one of its own replaces that of its channel.",
            ),
            *filter_fields(mirror.type if mirror else MirrorType.CONDA, mirror.filters if mirror else Filters()),
            choice_field(
                "on_removal",
                "Gone at source",
                "What happens here to packages that the source stops listing.",
                [(OnUpstreamRemoval.FOLLOW, "retire them"), (OnUpstreamRemoval.KEEP, "keep what is stored")],
                mirror.on_upstream_removal if mirror else OnUpstreamRemoval.FOLLOW,
            ),
            *self._secrets(),
            text_field("proxy", "Proxy", "http://host:port; empty: none.", (mirror.proxy or "") if mirror else ""),
            text_field(
                "ca_file",
                "CA file",
                "File on the daemon's machine with the certificates to trust; empty: the system's.",
                (mirror.ca_file or "") if mirror else "",
            ),
            *self._transfer(),
        ]
        if not self.channel:
            shown.insert(0, channel_field(self._likely))
        return shown

    def _transfer(self) -> list[Field]:
        mirror = self.mirror
        rate = mirror.max_rate if mirror else None
        return [
            text_field(
                "also_from",
                "Files also",
                "Folders (file:///…) and addresses asked for files before the source, with commas between.",
                ", ".join(mirror.also_from) if mirror else "",
            ),
            text_field(
                "drop_unused_days",
                "Drop unused",
                "Days after which a file that nobody asks for leaves the store; empty: never.",
                str(mirror.drop_unused_days or "") if mirror else "",
            ),
            text_field(
                "max_rate",
                "At most",
                "Megabytes a second, such as 12.5; empty: as fast as it goes.",
                f"{rate / MEGABYTE:.12g}" if rate else "",
            ),
            text_field(
                "max_rate_hours",
                "In the hours",
                "UTC hours in which that holds, such as 8-18; empty: always.",
                (mirror.max_rate_hours or "") if mirror else "",
            ),
        ]

    def _transfer_given(self) -> dict[str, Any]:
        """Return what the fields about transfer say, those left out that are empty; raise Invalid for no number."""
        values = self.values()
        given: dict[str, Any] = {"also_from": lines(values["also_from"]), "max_rate_hours": values["max_rate_hours"]}
        for name, unit, what in (("drop_unused_days", 1, "days are whole numbers"), ("max_rate", MEGABYTE, "a number")):
            text = values[name]
            try:
                given[name] = round((float if unit > 1 else int)(text) * unit) if text else None
            except (ValueError, OverflowError):
                raise Invalid(f"{what}, not {text[:20]!r}", path=name) from None
        if values["mode"] != MirrorMode.PASSIVE:
            del given["drop_unused_days"]
        return {name: value for name, value in given.items() if value}

    def _when(self) -> list[Field]:
        mirror = self.mirror
        schedule = mirror.schedule if mirror else NAMED_SCHEDULES["monthly"]
        preset = next((name for name, cron in NAMED_SCHEDULES.items() if cron == schedule), "cron")
        options = [*((name, name) for name in NAMED_SCHEDULES), ("cron", "other")]
        return [
            choice_field("schedule", "Frequency", "How often it runs by itself; the times are UTC.", options, preset),
            text_field(
                "cron",
                "Cron",
                "Minute hour day month weekday, in UTC: 30 2 * * 1-5 is 02:30 on working days.",
                schedule,
            ),
            choice_field(
                "enabled",
                "By schedule",
                "No: it runs only by hand.",
                YES_NO,
                "no" if mirror and not mirror.enabled else "yes",
            ),
        ]

    def _secrets(self) -> list[Field]:
        held = self.mirror is not None and self.mirror.credentials is not None
        options = [("keep", "as they are (never shown)"), *SECRETS] if held else list(SECRETS)
        return [
            choice_field(
                "credentials",
                "Credentials",
                "What the source asks for; kept apart from the state, and never shown again.",
                options,
                "keep" if held else "none",
            ),
            text_field("user", "User", "The user's name at the source."),
            text_field("secret", "Secret", "The token or password; never shown.", secret=True),
        ]

    def buttons(self) -> Sequence[tuple[str, str]]:
        return [("plan", "Plan"), ("run", "Save & Run"), ("save", "Save")]

    def on_mount(self) -> None:
        self._show_what_applies()
        if not self.channel:
            start(self, offer_channels, self.firth, self.field("channel"), group="channels")
        start(self, offer_policies, self.firth, self.field("policy"), NO_POLICY, group="policies")
        self._in_force.ask()

    def first_field(self) -> Field:
        return self.field("name") if self._likely else super().first_field()

    async def _say_in_force(self) -> None:
        await say_in_force(self.firth, self.field("policy"), self.channel or self.field("channel").value)

    def _show_what_applies(self) -> None:
        secret = self.field("credentials").value
        self.field("drop_unused_days").display = self.field("mode").value == MirrorMode.PASSIVE
        self.field("cron").display = self.field("schedule").value == "cron"
        self.field("user").display = secret == "user"
        self.field("secret").display = secret in {"token", "user", "bearer"}
        self._times.ask()

    async def _other_filters(self) -> None:
        """Put the filters of the chosen type in the place of those of another."""
        kind = self.field("type").value
        for field in self.query(Field):
            if "-" in field.field and not field.field.startswith(f"{kind}-"):
                await field.remove()
        if not self.query(f"#field-{kind}-{FILTERS[kind][0][0]}"):
            await self.query_one("#form-fields", VerticalScroll).mount(
                *filter_fields(kind, self.mirror.filters if self.mirror else Filters()), before=self.field("on_removal")
            )

    async def _show_times(self) -> None:
        """Say when the schedule comes next: the daemon knows, and is asked for what stands there by then."""
        field = self.field("cron" if self.field("schedule").value == "cron" else "schedule")
        asked = self._schedule()
        try:
            found = await self.firth.link.ask(ScheduleNext, "schedule.next", schedule=asked)
        except Invalid as error:
            if asked == self._schedule():
                field.say(f"{error.message}{'; ' if error.hint else ''}{error.hint}", Tone.BAD)
            return
        except (FirthError, OSError):
            return  # it is told when it is saved
        if asked == self._schedule():
            times = ", ".join(moment(each)[:16] for each in found.times)
            field.say(f"next: {times}" + "".join(f"; {warning}" for warning in found.warnings), Tone.MUTED)

    def _schedule(self) -> str:
        preset = self.field("schedule").value
        return self.field("cron").value if preset == "cron" else NAMED_SCHEDULES[preset]

    # --- asking the source

    def changed_field(self, name: str) -> None:
        if name == "type":
            start(self, self._other_filters, group="filters", exclusive=True)
        if name in {"credentials", "schedule", "cron", "mode"}:
            self._show_what_applies()
        if name in {"policy", "channel"}:
            self._in_force.ask()
        self._compare(name.partition("-")[2])
        if name in {"type", "source", "credentials", "secret", "user", "proxy", "ca_file", "conda-subdirs"}:
            if self._typing is not None:
                self._typing.stop()
            self._typing = self.set_timer(TYPING_S, self._ask_source)
        elif self.mirror is None:
            start(self, self._warn, group="warnings", exclusive=True)

    async def _warn(self) -> None:
        """Say beside their fields what the daemon would warn of, before anything is saved."""
        await asyncio.sleep(TYPING_S)
        given = self._given()
        if not (given["channel"] and given["name"] and "://" in given["source"]):
            return
        try:
            reply = await self.firth.link.ask(
                MirrorReply, "mirror.create", **{**given, "check": False, "dry_run": True}
            )
        except (FirthError, OSError):
            return  # it is told when it is saved
        for warning in reply.warnings:
            field = self._field_of(warning)
            if not field.error:
                field.say(f"! {warning}", Tone.WARN)

    def _field_of(self, warning: str) -> Field:
        """Return the field that a warning is about."""
        for name, words_of_it in WARNED.items():
            found = self.query(f"#field-{name}")
            if found and any(word in warning for word in words_of_it):
                return found.first(Field)
        return self.field("name")

    def _ask_source(self) -> None:
        source = self.field("source").value
        if "://" in source:
            start(self, self._check, source, group="check", exclusive=True)
        elif source:
            self.field("source").say("an address begins with https:// or file:///", Tone.BAD)

    async def _check(self, source: str) -> None:
        field = self.field("source")
        field.say("asking the source…")
        given: dict[str, Any] = {"type": self.field("type").value, "source": source, **self._reaching()}
        if self.mirror is not None and self.field("credentials").value == "keep":
            given["mirror"] = self.mirror.id
        try:
            found = await self.firth.link.ask(SourceFound, "mirror.check", **given)
        except FirthError as error:
            hint = f"; {error.hint}" if error.hint else ""
            # told, but no hindrance: a source may be down just now
            field.say(f"! {error.message}{hint}", Tone.WARN)
            return
        except OSError:
            field.say("")
            return
        field.say(found_words(found), Tone.OK)
        self._found = found
        for name in FOUND[found.type]:
            self._compare(name)
        if self.mirror is None:
            start(self, self._warn, group="warnings", exclusive=True)

    def _compare(self, name: str) -> None:
        """Offer what the source has of a filter, and say which of what is taken it has not."""
        if self._found is not None and name in FOUND[self._found.type]:
            for field in self.query(f"#field-{self._found.type}-{name}").results(Field):
                compare_found(field, name, self._found)

    def _reaching(self) -> dict[str, Any]:
        values = self.values()
        given: dict[str, Any] = {name: values[name] for name in ("proxy", "ca_file") if values[name]}
        secret = values["credentials"]
        if secret == "user":
            given["credentials"] = {"user": values["user"], "password": values["secret"]}
        elif secret in {"token", "bearer"}:
            given["credentials"] = {secret: values["secret"]}
        return given

    # --- saving

    def _filters_given(self) -> Filters:
        values = self.values()
        kind = values["type"]
        read = words if kind == MirrorType.CONDA else lines
        given: dict[str, Any] = {name: read(values.get(f"{kind}-{name}", "")) for name, _, _ in FILTERS[kind]}
        if kind in SWITCHES:
            name = SWITCHES[kind][0]
            given[name] = {"": None, "yes": True, "no": False}[values.get(f"{kind}-{name}", "")]
        return Filters(**given)

    def _given(self) -> dict[str, Any]:
        values = self.values()
        return {
            "channel": self.channel or values["channel"],
            "name": values["name"],
            "type": values["type"],
            "mode": values["mode"],
            "source": values["source"],
            "schedule": self._schedule(),
            "filters": self._filters_given(),
            "on_upstream_removal": values["on_removal"],
            "enabled": values["enabled"] == "yes",
            **self._reaching(),
            **self._transfer_given(),
            **({"policy": values["policy"]} if values["policy"] else {}),
        }

    async def press(self, button: str) -> None:
        given = self._given()
        for name, what in (
            ("channel", "a channel is needed"),
            ("name", "a name is needed"),
            ("source", "an address is needed"),
        ):
            if not given[name]:
                raise Invalid(what, path=name)
        if button == "plan":
            await self._plan(given)
            return
        if given["source"] == self._unasked:
            given["check"] = False
        try:
            await self._save(button, given)
        except FirthError as error:
            self._unasked = given["source"] if UNCHECKED in error.hint else ""
            raise

    async def _save(self, button: str, given: dict[str, Any]) -> None:
        link = self.firth.link
        if self.mirror is None:
            run_now = {"run_now": True} if button == "run" else {}
            self.dismiss(await link.ask(MirrorReply, "mirror.create", **given, **run_now))
            return
        changed = {**self._differences(given), **({"check": False} if "check" in given else {})}
        reply = await link.ask(MirrorReply, "mirror.update", mirror=self.mirror.id, revision=self._revision, **changed)
        if button == "run":
            for warning in reply.warnings:
                self.firth.tell(warning, warning=True)
            self.dismiss(await link.ask(RunReply, "mirror.run", mirror=self.mirror.id))
        else:
            self.dismiss(reply)

    def _differences(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return what an edit changes: absent is unchanged, null is cleared."""
        mirror = self.mirror
        assert mirror is not None
        names = ("name", "source", "schedule", "filters", "on_upstream_removal", "enabled")
        changed = {name: given[name] for name in names if given[name] != getattr(mirror, name)}
        for name in ("proxy", "ca_file"):
            if given.get(name) != getattr(mirror, name):
                changed[name] = given.get(name)
        for name in (*TRANSFER, "policy"):
            if (given.get(name) or None) != (getattr(mirror, name) or None):
                changed[name] = given.get(name)
        secret = self.field("credentials").value
        if secret != "keep" and (secret != "none" or mirror.credentials is not None):
            changed["credentials"] = given.get("credentials")
        return changed

    async def _plan(self, given: dict[str, Any]) -> None:
        if self.mirror is not None and not self.dirty:
            reply = await self.firth.link.ask(RunReply, "mirror.plan", mirror=self.mirror.id)
        else:
            fields = {name: value for name, value in given.items() if name in {*PLAN_FIELDS, "credentials"}}
            reply = await self.firth.link.ask(RunReply, "mirror.plan", **fields)
        if reply.run is not None and self.app.screen is self:
            self.firth.open(Target(place=Place.RUN, number=reply.run.id))

    def overtaken(self, error: Conflict) -> None:
        if self.mirror is None:
            self.complain(Conflict(error.message, hint=error.hint, path="name"))
        else:
            start(self, self._take_over, error, group="form")

    async def _take_over(self, error: Conflict) -> None:
        assert self.mirror is not None
        current = await self.firth.link.ask(MirrorGet, "mirror.get", mirror=self.mirror.id)
        self._revision = current.revision
        self.complain(Invalid(f"{error.message}; save again to put your values in place of theirs"))
