"""The only place that gathers what conda provides into the interface of a family."""

from firth_protocol.types import Family
from firthd.families.base import FamilyRules
from firthd.families.conda.addresses import file_address, install, locate, set_up
from firthd.families.conda.archives import check_archive
from firthd.families.conda.filters import FIELDS, check_filters, only
from firthd.families.conda.names import KNOWN_SUBDIRS
from firthd.families.conda.paths import FIRST_SUBDIRS, REPODATA, SHARD_INDEX, fetch_url, needs_record
from firthd.families.conda.pieces import PIECES
from firthd.families.conda.render import empty_subdir
from firthd.families.conda.requests import RECOGNISER, encoding, found, probe, requests
from firthd.families.conda.requirements import facts, requirement
from firthd.families.conda.source import normalise
from firthd.families.conda.versions import sort_versions

CONDA = FamilyRules(
    family=Family.CONDA,
    requests=requests,
    probe=probe,
    encoding=encoding,
    recogniser=RECOGNISER,
    filters=FIELDS,
    check_filters=check_filters,
    only=only,
    found=found,
    formats="firthd.families.conda.formats:FORMATS",
    reads=(f"/{SHARD_INDEX}", f"/{REPODATA}"),
    first_parts=FIRST_SUBDIRS,
    empty_part=empty_subdir,
    locate=locate,
    address=file_address,
    set_up=set_up,
    pieces=PIECES,
    install=install,
    needs_record=needs_record,
    fetch_url=fetch_url,
    requirement=requirement,
    facts=facts,
    normalise=normalise,
    check_archive=check_archive,
    sort_versions=sort_versions,
    reserved_names=frozenset(KNOWN_SUBDIRS),
    policing="firthd.families.conda.policing:POLICING",
)
