"""The only place that gathers what R packages need into the interface of a family."""

from firth_protocol.types import Family
from firthd.families.base import FamilyRules
from firthd.families.r.addresses import file_address, install, locate, set_up
from firthd.families.r.archives import check_archive
from firthd.families.r.filters import FIELDS, check_filters, only
from firthd.families.r.paths import elsewhere, fetch_url
from firthd.families.r.records import facts
from firthd.families.r.requests import RECOGNISER, encoding, found, probe, requests
from firthd.families.r.requirement import requirement, sort_versions
from firthd.families.r.source import normalise

R = FamilyRules(
    family=Family.R,
    requests=requests,
    probe=probe,
    encoding=encoding,
    recogniser=RECOGNISER,
    filters=FIELDS,
    check_filters=check_filters,
    only=only,
    found=found,
    formats="firthd.families.r.formats:FORMATS",
    reads=(),
    first_parts=(),
    empty_part=lambda _: {},
    shows_empty=True,
    reads_beside=True,
    locate=locate,
    address=file_address,
    set_up=set_up,
    install=install,
    needs_record=lambda _: False,
    fetch_url=fetch_url,
    elsewhere=elsewhere,
    requirement=requirement,
    facts=facts,
    normalise=normalise,
    check_archive=check_archive,
    sort_versions=sort_versions,
    reserved_names=frozenset(),
    policing="firthd.families.r.policing:POLICING",
)
