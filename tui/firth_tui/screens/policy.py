"""One policy: its rules in words, where it is in force, and on request what it keeps and drops there."""

from typing import Any, ClassVar

from firth_protocol.errors import FirthError
from firth_protocol.methods import PolicyGet, PolicyPreviewReply
from firth_tui.actions import Place
from firth_tui.format import Cell, Sign, Tone, clean, counted
from firth_tui.model import Touched
from firth_tui.screens.place import bindings
from firth_tui.screens.policies import changes_policies
from firth_tui.screens.policy_lines import WORDS, effect_lines, policy_lines
from firth_tui.screens.sheet_place import SheetScreen
from firth_tui.widgets.work import Repeated

MOST_TRIED = 10
"""Uses whose effect is told: each means reading whole indexes."""


class PolicyScreen(SheetScreen):
    """One policy."""

    BINDINGS = bindings({Place.POLICY})
    words: ClassVar = WORDS

    def __init__(self, name: str) -> None:
        super().__init__()
        self.policy_name = name
        self.policy_now: PolicyGet | None = None
        self._effect: list[list[Cell]] = []
        self._trying = Repeated(self, self._try, group="effect")

    def where(self) -> Place:
        return Place.POLICY

    def crumbs(self) -> list[str]:
        return ["Policies", self.policy_name]

    def side(self) -> list[Cell]:
        policy = self.policy_now
        return [Cell(f"in force in {counted(len(policy.used_by), 'place')}", Tone.MUTED)] if policy else []

    def subjects(self, *, painted: bool = False) -> dict[str, Any]:
        return {"policy": self.policy_now}

    def name_to_copy(self, row: Any) -> str | None:
        return self.policy_name

    @property
    def known(self) -> bool:
        return self.policy_now is not None

    def told_gone(self) -> str:
        return f"The policy {self.policy_name} has been deleted."

    def about_this(self, about: Touched) -> bool:
        return not about.progress and changes_policies(about)

    async def own_command(self, name: str) -> None:
        if name == "policy.effect":
            self.show_effect()

    def show_effect(self) -> None:
        """Tell what the policy keeps and drops where it is in force; the place goes on meanwhile."""
        self._effect = [[Cell(" trying it out…", Tone.MUTED)]]
        self.draw()
        self._trying.ask()

    async def read(self) -> None:
        self.policy_now = await self.firth.link.ask(PolicyGet, "policy.get", policy=self.policy_name)

    async def _try(self) -> None:
        policy = self.policy_now
        lines: list[list[Cell]] = []
        for used in policy.used_by[:MOST_TRIED] if policy else ():
            where: dict[str, Any] = {"channel": used.channel} if used.mirror is None else {"mirror": used.mirror}
            try:
                reply = await self.firth.link.ask(
                    PolicyPreviewReply, "policy.preview", policy=self.policy_name, **where
                )
            except (FirthError, OSError) as error:
                lines.append([Cell(f" {Sign.BAD} {clean(used.channel)}: {clean(str(error))}", Tone.BAD)])
                continue
            for effect in reply.effects:
                lines += [*effect_lines(effect), []]
            lines += [[Cell(f" {clean(warning)}", Tone.MUTED)] for warning in reply.warnings]
        self._effect = lines
        self.draw()

    def lines(self) -> list[list[Cell]]:
        assert self.policy_now is not None
        return [[], *policy_lines(self.policy_now, self.now()), [], *self._effect]
