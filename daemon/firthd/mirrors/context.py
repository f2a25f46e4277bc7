"""What runs of mirrors are given to work with: the collaborators, and the folders that are theirs."""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from firth_protocol.errors import NotFound
from firth_protocol.types import Family
from firthd.channels.blocks import Blocks
from firthd.channels.mend import Mender
from firthd.channels.policies import InForce, Policies, named_by
from firthd.channels.publish import Publisher
from firthd.clock import Clock
from firthd.families.base import FamilyRules
from firthd.mirrors.on_demand import OnDemand
from firthd.mirrors.source import NO_MIRROR, Job, job_of, rules_of
from firthd.mirrors.space import SpaceGuard
from firthd.runs.queue import RunQueue
from firthd.store import catalog
from firthd.store.blobs import BlobStore
from firthd.store.database import Database
from firthd.store.journal import Journal
from firthd.store.partials import Partials
from firthd.store.secrets import SecretFile
from firthd.upstream.client import Upstream
from firthd.workers import Workers


class Context(Struct, frozen=True, kw_only=True):
    """The collaborators of runs, built once."""

    db: Database
    journal: Journal
    clock: Clock
    queue: RunQueue
    workers: Workers
    upstream: Upstream
    blobs: BlobStore
    space: SpaceGuard
    secrets: SecretFile
    publisher: Publisher
    mender: Mender
    blocks: Blocks
    policies: Policies
    on_demand: OnDemand
    partials: Partials
    families: Mapping[Family, FamilyRules]
    state: Path  # the state folder
    max_part_bytes: int  # of one part of a source's index, decompressed

    async def job(self, mirror_id: int | None) -> Job:
        """Return what a run of a mirror works on, as the mirror is now; raise NotFound when it is gone."""
        mirror = None
        if mirror_id is not None:
            ref = mirror_id
            mirror = await self.db.read(lambda r: catalog.mirror_by_id(r, ref))
        if mirror is None:
            raise NotFound("the mirror was deleted, or the plan was forgotten when the daemon ended")
        return self.taking(job_of(mirror, self.secrets))

    def taking(self, job: Job) -> Job:
        """Return a job whose filters name the packages that its policy does, where a policy says which they are."""
        in_force = self.in_force(job)
        rules, judge = rules_of(self.families, job.type), in_force.judge if in_force is not None else None
        takes = named_by(rules, judge, job.filters)
        return job if takes == job.filters else replace(job, filters=takes, mirrors_own=job.filters)

    def still_taken(self, job: Job) -> bool:
        """Tell whether it is as it was when a run began who says which packages a mirror takes."""
        return self.taking(replace(job, filters=job.own, mirrors_own=None)).grows == job.grows

    def in_force(self, job: Job) -> InForce | None:
        """Return the policy that judges what a run reads; None: there is none."""
        if job.mirror_id == NO_MIRROR:
            return self.policies.of_new(job.channel_id, job.type.value)
        return self.policies.of_mirror(job.mirror_id)

    async def judged_as(self, job: Job) -> str:
        """Return by what a mirror's rows were judged: the stamp of a policy."""
        mirror = await self.db.read(lambda r: catalog.mirror_by_id(r, job.mirror_id))
        return mirror.judged if mirror is not None else ""

    def source_folder(self, mirror_id: int) -> Path:
        """Return where the copies of a mirror's index lie."""
        return self.state / "sources" / str(mirror_id)

    def run_folder(self, run_id: int) -> Path:
        """Return where a run keeps its own file while it works."""
        return self.state / "runs" / str(run_id)

    def render_folder(self, run_id: int) -> Path:
        """Return where a run renders, on the file system of the rendered store."""
        return self.state / "rendered" / "work" / str(run_id)
