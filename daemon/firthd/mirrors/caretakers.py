"""The only place that puts together what brings files and takes them away, and says which runs each carries out."""

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from firth_protocol.types import RunKind
from firthd.config import Settings, public
from firthd.mirrors.backup import Backups
from firthd.mirrors.care import Care
from firthd.mirrors.context import Context
from firthd.mirrors.damage import Damage
from firthd.mirrors.delete_run import DeleteRuns
from firthd.mirrors.fill import FillRuns
from firthd.mirrors.remove import Removal
from firthd.mirrors.take_in import TakeIn
from firthd.mirrors.unused import Unused
from firthd.runs.queue import Executor
from firthd.store.blobs import BlobStore
from firthd.store.quarantine import Room
from firthd.store.repairs import Repairs


class Caretakers(Struct, frozen=True, kw_only=True):
    """What takes care of stored files."""

    repairs: Repairs
    damage: Damage
    fills: FillRuns
    care: Care
    backups: Backups
    removal: Removal
    unused: Unused
    deletions: DeleteRuns

    def executors(self) -> Mapping[RunKind, Executor]:
        """Return who carries out each kind of run that is about stored files."""
        return {
            RunKind.REMOVE: self.removal.run,
            RunKind.DELETE: self.deletions.run,
            RunKind.FILL: self.fills.fill,
            RunKind.GC: self.care.gc,
            RunKind.SCRUB: self.care.scrub,
            RunKind.BACKUP: self.backups.backup,
        }


def caretakers(
    context: Context,
    repairs: Repairs,
    take_in: TakeIn,
    rooms: dict[Room, BlobStore],
    settings: Settings,
    forget_files: Callable[[], None],
) -> Caretakers:
    """Build them."""
    damage = Damage(context.db, context.clock, context.queue, repairs, context.mender, take_in)
    shown = msgspec.json.format(msgspec.json.encode(public(settings), enc_hook=str))
    return Caretakers(
        repairs=repairs,
        damage=damage,
        fills=FillRuns(context),
        care=Care(
            db=context.db,
            clock=context.clock,
            queue=context.queue,
            rooms=rooms,
            space=context.space,
            repairs=repairs,
            damage=damage,
            grace_ms=settings.store.grace_ms,
        ),
        backups=Backups(context.state, context.clock, shown, settings.store.export_dirs),
        removal=Removal(context),
        deletions=DeleteRuns(context),
        unused=Unused(context.db, context.clock, context.blobs, take_in, forget_files),
    )
