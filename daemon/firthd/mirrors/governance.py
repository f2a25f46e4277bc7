"""The only place that puts together what is about policies: the verbs on them, previews, and explanations."""

from collections.abc import Mapping

from msgspec import Struct

from firth_protocol.types import RunKind
from firthd.mirrors.advisories import Advisories
from firthd.mirrors.context import Context
from firthd.mirrors.explain import Explanations
from firthd.mirrors.govern import Governor
from firthd.mirrors.preview import Previews
from firthd.mirrors.refilter import Refilters
from firthd.mirrors.run import MirrorRuns
from firthd.mirrors.touched import Touched
from firthd.runs.queue import Executor


class Governance(Struct, frozen=True, kw_only=True):
    """What handlers and chores need of policies."""

    governor: Governor
    previews: Previews
    explanations: Explanations
    refilters: Refilters
    advisories: Advisories
    touched: Touched

    def executors(self) -> Mapping[RunKind, Executor]:
        """Return who carries out each kind of run that is about policies."""
        return {RunKind.REFILTER: self.refilters.refilter, RunKind.ADVISORY: self.advisories.run}


def governance(context: Context, runs: MirrorRuns) -> Governance:
    """Build it."""
    governor = Governor(context.db, context.journal, context.clock, context.queue, context.policies, context.families)
    return Governance(
        governor=governor,
        refilters=Refilters(context, runs),
        advisories=Advisories(context, governor),
        touched=Touched(context.db, context.journal, context.families),
        previews=Previews(context, governor),
        explanations=Explanations(context.db, context.journal, context.policies, context.blocks, context.families),
    )
