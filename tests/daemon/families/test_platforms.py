"""What forms offer as platforms is what the families know."""

from firth_protocol.platforms import PLATFORMS
from firth_protocol.types import Filters, MirrorType
from firthd.families.conda.filters import check_filters as conda_filters
from firthd.families.conda.names import KNOWN_SUBDIRS
from firthd.families.python.filters import check_filters as python_filters
from firthd.families.python.names import ANY
from firthd.families.python.names import PLATFORMS as OF_WHEELS
from firthd.families.r.filters import PLATFORMS as OF_R


def test_forms_offer_what_families_know() -> None:
    assert {
        MirrorType.CONDA: KNOWN_SUBDIRS,
        MirrorType.PYTHON: PLATFORMS[MirrorType.PYTHON],
        MirrorType.R: OF_R,
    } == PLATFORMS
    assert sorted(PLATFORMS[MirrorType.PYTHON]) == sorted({ANY, *OF_WHEELS})


def test_a_platform_that_nobody_knows_is_warned_of() -> None:
    assert conda_filters(Filters(subdirs=["linux-99"])) == [
        "no conda client knows the platform linux-99: is it spelled right?"
    ]
    assert python_filters(Filters(platforms=["linux-99"])) == [
        "no wheel is known for the platform linux-99: is it spelled right?"
    ]
