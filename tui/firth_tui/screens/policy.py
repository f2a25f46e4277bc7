"""One policy: its rules in words, where it is in force, and on request what it keeps and drops there."""

from typing import Any, ClassVar

from textual.app import ComposeResult

from firth_protocol.errors import FirthError, NotFound
from firth_protocol.methods import PolicyGet, PolicyPreviewReply
from firth_tui.actions import Place
from firth_tui.format import Cell, Sign, Tone, clean, counted
from firth_tui.model import Touched
from firth_tui.screens.place import PlaceScreen, bindings
from firth_tui.screens.policies import changes_policies
from firth_tui.screens.policy_lines import WORDS, effect_lines, policy_lines
from firth_tui.widgets.scroll import Scroll
from firth_tui.widgets.sheet import Sheet
from firth_tui.widgets.work import Repeated

MOST_TRIED = 10
"""Uses whose effect is told: each means reading whole indexes."""


class PolicyScreen(PlaceScreen):
    """One policy."""

    BINDINGS = bindings({Place.POLICY})
    words: ClassVar = WORDS

    def __init__(self, name: str) -> None:
        super().__init__()
        self.policy_name = name
        self.policy_now: PolicyGet | None = None
        self.sheet = Sheet()
        self._effect: list[list[Cell]] = []
        self._reading = Repeated(self, self._read, group="policy")
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

    def body(self) -> ComposeResult:
        with Scroll(id="sheet"):
            yield self.sheet

    def on_mount(self) -> None:
        self.focus_body()
        self.reload()

    def focus_body(self) -> None:
        self.set_focus(self.query_one("#sheet", Scroll))

    def behind(self) -> bool:
        return self.policy_now is None and self._reading.at_work

    def readings(self) -> list[Repeated]:
        return [self._reading]

    def reload(self) -> None:
        self._reading.ask()

    def fact(self, about: Touched) -> None:
        if not about.progress and changes_policies(about):
            self.reload()

    async def own_command(self, name: str) -> None:
        if name == "policy.effect":
            self.show_effect()

    def show_effect(self) -> None:
        """Tell what the policy keeps and drops where it is in force; the place goes on meanwhile."""
        self._effect = [[Cell(" trying it out…", Tone.MUTED)]]
        self._draw()
        self._trying.ask()

    async def _read(self) -> None:
        try:
            self.policy_now = await self.firth.link.ask(PolicyGet, "policy.get", policy=self.policy_name)
        except NotFound:
            self.firth.tell(f"The policy {self.policy_name} has been deleted.", warning=True)
            self.leave()
            return
        except FirthError as error:
            self.sheet.put([[Cell(f" {Sign.BAD} {clean(error.message)}", Tone.BAD)]])
            return
        except OSError:
            return
        self._draw()

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
        self._draw()

    def tick(self, now: float) -> None:
        super().tick(now)
        self._draw()

    def _draw(self) -> None:
        if self.policy_now is not None:
            self.sheet.put([[], *policy_lines(self.policy_now, self.now()), [], *self._effect])
            self.redraw()
