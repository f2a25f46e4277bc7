"""What a mirror of a conda channel may leave out."""

import pytest

from firth_protocol.errors import Invalid
from firth_protocol.types import Filters
from firthd.families.conda.filters import check_filters, only


def test_noarch_is_always_taken() -> None:
    assert only(Filters()) is None
    assert only(Filters(subdirs=["linux-64"])) == frozenset({"noarch", "linux-64"})


@pytest.mark.parametrize(
    ("subdirs", "place"), [([], "$.filters.subdirs"), (["noarch", "Linux"], "[1]"), ([".."], "[0]")]
)
def test_what_no_channel_can_have_is_refused_with_its_place(subdirs: list[str], place: str) -> None:
    with pytest.raises(Invalid) as told:
        check_filters(Filters(subdirs=subdirs))
    assert str(told.value.data["path"]).endswith(place)


def test_a_platform_that_no_client_knows_is_warned_about() -> None:
    assert check_filters(Filters(subdirs=["linux-64", "noarch"])) == []
    (warning,) = check_filters(Filters(subdirs=["linux-64", "linux-99"]))
    assert "linux-99" in warning
