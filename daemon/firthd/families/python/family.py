"""The only place that gathers what Python provides into the interface of a family."""

from firth_protocol.types import Family
from firthd.families.base import FamilyRules, Form, LazyParts
from firthd.families.python.addresses import file_address, install, locate, page_at, set_up
from firthd.families.python.archives import check_archive, inside
from firthd.families.python.filters import FIELDS, check_filters, named, only
from firthd.families.python.page import HTML_FORM, JSON_FORM, files_on
from firthd.families.python.paths import fetch_url, list_path, needs_record
from firthd.families.python.recognise import ACCEPT, RECOGNISER
from firthd.families.python.records import promised
from firthd.families.python.requests import encoding, found, instead, is_lazy, lazy_ask, probe, requests
from firthd.families.python.requirements import facts, needs, requirement, sort_versions
from firthd.families.python.source import normalise

FORMATS = "firthd.families.python.formats:FORMATS"
ELSEWHERE = ("+simple/", "pypi/simple/", "root/pypi/+simple/", "simple/simple/", "index/", "pypi/")
"""Where index servers have their list whose own address shows something else."""

PYTHON = FamilyRules(
    family=Family.PYTHON,
    requests=requests,
    probe=probe,
    encoding=encoding,
    recogniser=RECOGNISER,
    filters=FIELDS,
    check_filters=check_filters,
    only=only,
    named=named,
    found=found,
    formats=FORMATS,
    reads=(list_path(JSON_FORM), list_path(HTML_FORM)),
    first_parts=(),
    empty_part=lambda part: {},
    locate=locate,
    address=file_address,
    set_up=set_up,
    install=install,
    needs_record=needs_record,
    fetch_url=fetch_url,
    promised=promised,
    requirement=requirement,
    facts=facts,
    normalise=normalise,
    check_archive=check_archive,
    inside=inside,
    needs=needs,
    sort_versions=sort_versions,
    reserved_names=frozenset(),
    policing="firthd.families.python.policing:POLICING",
    lazy=LazyParts(is_lazy=is_lazy, ask=lazy_ask, pages=FORMATS, at=page_at, listed=files_on),
    small_parts=True,
    instead=instead,
    other_places=tuple(Form(path, accept=ACCEPT, in_folder=False) for path in ELSEWHERE),
)
