"""The form that creates and edits a policy; what it means and what it would do is told while somebody types."""

from collections.abc import Sequence
from typing import Any

from textual.containers import Vertical
from textual.timer import Timer

from firth_protocol.errors import Conflict, FirthError, Invalid
from firth_protocol.methods import PolicyGet, PolicyPreviewReply, PolicyReply
from firth_protocol.types import Family, Mirror, Policy, Rules
from firth_tui.format import Cell, Sign, Tone, clean
from firth_tui.policy_rules import (
    ANY,
    NO,
    NOT,
    ONLY,
    YES,
    families_of,
    field_of,
    lines_of,
    rules_of,
)
from firth_tui.screens.forms.fields import Field, choice_field, text_field
from firth_tui.screens.forms.form import Form
from firth_tui.screens.forms.picked import picked, picked_field
from firth_tui.screens.policy_lines import effect_lines
from firth_tui.widgets.sheet import Sheet
from firth_tui.widgets.work import Repeated, start

TYPING_S = 0.3
"""How long typing must pause before the daemon is asked what the rules mean."""
TRYING_S = 0.9
"""How long before it is asked what they would do: that reads whole indexes."""
MIRRORS = 1000
"""Mirrors on which a policy can be tried here."""
NAMELESS = "what is being typed"
"""The name under which rules are looked at that have not been saved."""
MOST_LINES = 9

HOW = ((ANY, "all"), (ONLY, "only"), (NOT, "all but"))
YES_NO = ((YES, "yes"), (NO, "no"))
KEPT_OUT = (("deny", "kept out"), ("allow", "let in"))
COUNTED = (("deny", "keep out"), ("allow", "count for nothing"))
SWITCHED = {"takes", "platforms_how", "licenses_how", "flaws"}


class PolicyForm(Form):
    """Dismisses with a PolicyReply, or None when cancelled."""

    DEFAULT_CSS = """
    PolicyForm #policy-words { height: auto; padding: 0; }
    """

    def __init__(self, policy: Policy | None = None) -> None:
        super().__init__(f"Edit the policy {policy.name}" if policy else "New policy")
        self.policy = policy
        self._revision = policy.revision if policy else 0
        self._typing: Timer | None = None
        self._trying: Timer | None = None
        self._words: list[str] = []
        self._said = ""
        self._effect: list[list[Cell]] = []
        self._sheet = Sheet()
        self._sheet.id = "policy-words"
        self._meaning = Repeated(self, self._ask_meaning, group="meaning")
        self._preview = Repeated(self, self._ask_effect, group="effect")

    # --- the fields

    def fields(self) -> list[Field]:
        policy = self.policy
        now = lines_of(policy.rules if policy else Rules())
        families = policy.families if policy and len(policy.families) < len(Family) else []
        name = (
            choice_field("name", "Name", "", [(policy.name, policy.name)], policy.name, reason="fixed after creation")
            if policy
            else text_field("name", "Name", "Any name; a channel or a mirror picks it by that.", placeholder="no-gpl")
        )
        return [
            name,
            text_field("description", "Description", "A sentence for people.", policy.description if policy else ""),
            text_field(
                "families",
                "Judges",
                "conda, python, r, with commas between; empty: all. What it does not judge passes.",
                ", ".join(families),
            ),
            *self._package_fields(now),
            *self._list_fields(now),
            *self._other_fields(now),
            *self._flaw_fields(now),
            picked_field("on", "Try it on", "A mirror on which the effect is shown.", [("", "none")], "", reason="…"),
        ]

    def _package_fields(self, now: dict[str, str]) -> list[Field]:
        return [
            choice_field("takes", "Packages", "All, or only those that are named.", HOW[:2], now["takes"]),
            _long(
                "allow",
                "Only these",
                "Specs with semicolons between: numpy >=1.26,<3; scipy. None at all keeps nothing.",
                now["allow"],
            ),
            choice_field("dependencies", "And their needs", "What they depend on too.", YES_NO, now["dependencies"]),
            _long("exclude", "Never", "Specs that are left out, with semicolons between.", now["exclude"]),
            _long("exceptions", "Always", "Specs that are kept whatever the rules say.", now["exceptions"]),
        ]

    def _list_fields(self, now: dict[str, str]) -> list[Field]:
        return [
            choice_field("platforms_how", "Platforms", "In conda's words.", HOW, now["platforms_how"]),
            text_field(
                "platforms",
                "Which",
                "Such as linux-64, osx-arm64; noarch always passes unless it is named in all but.",
                now["platforms"],
            ),
            choice_field("licenses_how", "Licences", "Families of licences.", HOW, now["licenses_how"]),
            text_field(
                "licenses",
                "Which",
                "AGPL APACHE BSD CC GPL GPL2 GPL3 LGPL MIT MOZILLA PSF PUBLIC-DOMAIN PROPRIETARY OTHER NONE",
                now["licenses"],
            ),
            choice_field("unknown", "Unknown ones", "Licences that nobody can map.", KEPT_OUT, now["unknown"]),
        ]

    def _other_fields(self, now: dict[str, str]) -> list[Field]:
        return [
            text_field(
                "min_age",
                "Days old",
                "Only what is at least so many days old; what is younger enters by itself.",
                now["min_age"],
            ),
            text_field("keep_latest", "Newest", "So many versions of each package; empty: all.", now["keep_latest"]),
            text_field("since", "Since", "First UTC day of upload, YYYY-MM-DD; empty: any.", now["since"]),
            text_field("until", "Until", "Last UTC day of upload, YYYY-MM-DD; empty: any.", now["until"]),
            choice_field(
                "signed_only", "Only signed", "What carries no signature is kept out.", YES_NO, now["signed_only"]
            ),
            choice_field(
                "legacy", "Old forms", "No: none of a build that is there in the new form too.", YES_NO, now["legacy"]
            ),
        ]

    def _flaw_fields(self, now: dict[str, str]) -> list[Field]:
        return [
            choice_field("flaws", "Known flaws", "Yes: keep out what imported advisories name.", YES_NO, now["flaws"]),
            text_field("score", "Of score", "Such as >= 7; empty: any score.", now["score"]),
            text_field(
                "statuses",
                "But not if",
                "Statuses that count for nothing: reported, active, mitigated, cleared, disputed.",
                now["statuses"],
            ),
            choice_field("unreviewed", "Unreviewed", "Those that nobody has looked at.", COUNTED, now["unreviewed"]),
            choice_field("unscored", "Unscored", "Those without a score.", COUNTED, now["unscored"]),
        ]

    def buttons(self) -> Sequence[tuple[str, str]]:
        return [("save", "Save" if self.policy else "Create")]

    def on_mount(self) -> None:
        self._show_what_applies()
        self.query_one("#form-bottom", Vertical).mount(self._sheet, before=0)
        start(self, self._offer_mirrors, group="mirrors")
        self._meaning.ask()

    def _show_what_applies(self) -> None:
        only = self.field("takes").value == ONLY
        for name in ("allow", "dependencies"):
            self.field(name).display = only
        for name in ("platforms", "licenses"):
            self.field(name).display = self.field(f"{name}_how").value != ANY
        self.field("unknown").display = self.field("licenses").display
        for name in ("score", "statuses", "unreviewed", "unscored"):
            self.field(name).display = self.field("flaws").value == YES

    async def _offer_mirrors(self) -> None:
        control = picked(self.field("on"))
        try:
            found = (await self.firth.link.page(Mirror, "mirror.list", limit=MIRRORS)).items
        except (FirthError, OSError):
            return
        options = [(str(each.id), f"{each.channel}: {each.name}") for each in found]
        if not options:
            control.offer([("", "none")], reason="there is no mirror yet")
            return
        self._before["on"] = control.value = _first_used(self.policy, found)
        control.offer([*options, ("", "none")])
        self._preview.ask()

    # --- what the rules mean and do

    def changed_field(self, name: str) -> None:
        if name in SWITCHED:
            self._show_what_applies()
        if name in {"name", "description"}:
            return
        for timer in (self._typing, self._trying):
            if timer is not None:
                timer.stop()
        if name != "on":
            self._typing = self.set_timer(TYPING_S, self._meaning.ask)
        self._trying = self.set_timer(TRYING_S, self._preview.ask)

    def _given(self) -> dict[str, Any]:
        values = self.values()
        return {"families": families_of(values), "rules": rules_of(values)}

    async def _ask_meaning(self) -> None:
        """Say in words what stands there, or beside its line what cannot be understood."""
        try:
            given = self._given()
            reply = await self.firth.link.ask(PolicyReply, "policy.create", name=NAMELESS, dry_run=True, **given)
        except Conflict:
            return
        except Invalid as error:
            self._words = []
            self._wrong(error)
        except (FirthError, OSError):
            return  # it is told when it is saved
        else:
            self._words = reply.policy.summary
        self._draw()

    async def _ask_effect(self) -> None:
        """Say what the rules would keep and drop of a mirror; nothing is changed."""
        on = self.field("on").value
        if not on:
            self._effect, self._said = [], ""
            self._draw()
            return
        try:
            given = self._given()
            self._said = "trying it out…"
            self._draw()
            reply = await self.firth.link.ask(PolicyPreviewReply, "policy.preview", mirror=int(on), **given)
        except Invalid:
            self._effect, self._said = [], ""  # told beside its line
        except (FirthError, OSError) as error:
            self._effect, self._said = [], f"{Sign.WARN} it could not be tried: {error}"
        else:
            self._said = ""
            told = [[Cell(f" {clean(warning)}", Tone.MUTED)] for warning in reply.warnings]
            self._effect = [line for effect in reply.effects for line in effect_lines(effect)] or told
        self._draw()

    def _wrong(self, error: Invalid) -> None:
        name = field_of(str(error.data.get("path", "")))
        field = next((each for each in self.query(Field) if each.field == name), None)
        if field is not None and field.display:
            hint = f"; {error.hint}" if error.hint else ""
            field.say(f"{error.message}{hint}", Tone.BAD)

    def _draw(self) -> None:
        words = " ".join(self._words)
        lines = [[Cell(" In words    ", Tone.MUTED), Cell(clean(words, 400))]] if words else []
        lines += [[Cell(f" {clean(self._said, 200)}", Tone.MUTED)]] if self._said else self._effect
        self._sheet.put(lines[:MOST_LINES])

    # --- saving

    def complain(self, error: Exception) -> None:
        if isinstance(error, Invalid) and error.data.get("path"):
            error = Invalid(error.message, hint=error.hint, path=field_of(str(error.data["path"])))
        super().complain(error)

    async def press(self, button: str) -> None:
        values, given = self.values(), self._given()
        link = self.firth.link
        if self.policy is None:
            if not values["name"]:
                raise Invalid("a name is needed", path="name")
            reply = await link.ask(
                PolicyReply, "policy.create", name=values["name"], description=values["description"], **given
            )
            self.dismiss(reply)
            return
        held = self.policy
        families = given["families"] or list(Family)
        changed: dict[str, Any] = {}
        if values["description"] != held.description:
            changed["description"] = values["description"]
        if sorted(families) != sorted(held.families):
            changed["families"] = given["families"]
        if given["rules"] != rules_of(lines_of(held.rules)):
            changed["rules"] = given["rules"]
        self.dismiss(await link.ask(PolicyReply, "policy.update", policy=held.name, revision=self._revision, **changed))

    def overtaken(self, error: Conflict) -> None:
        if self.policy is None:
            self.complain(Invalid(error.message, hint=error.hint, path="name"))
        else:
            start(self, self._take_over, error, group="form")

    async def _take_over(self, error: Conflict) -> None:
        assert self.policy is not None
        current = await self.firth.link.ask(PolicyGet, "policy.get", policy=self.policy.name)
        self._revision = current.revision
        self.complain(Invalid(f"{error.message}; save again to put your values in place of theirs"))


def _first_used(policy: Policy | None, mirrors: Sequence[Mirror]) -> str:
    """Return on which mirror a policy is tried at first: one that it judges, else the first."""
    for used in policy.used_by if policy else ():
        for each in mirrors:
            if each.id == used.mirror or (used.mirror is None and each.channel == used.channel):
                return str(each.id)
    return str(mirrors[0].id)


def _long(name: str, label: str, help: str, value: str) -> Field:
    """Return a line for any number of specs."""
    field = text_field(name, label, help, value)
    field.control.max_length = 0  # type: ignore[attr-defined]
    return field
