"""The only place that lists the families this version serves."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from firth_protocol.types import Family
from firthd.families.base import FamilyRules, Formats, Pages, Recogniser
from firthd.families.policing import Policing


def families() -> Mapping[Family, FamilyRules]:
    """Return the families that are served; a mirror of a type that is absent here cannot be made yet.

    The import stands inside because worker processes import this package too, and must not pay for a family's network
    side.
    """
    from firthd.families.conda.family import CONDA
    from firthd.families.python.family import PYTHON
    from firthd.families.r.family import R

    return {Family.CONDA: CONDA, Family.PYTHON: PYTHON, Family.R: R}


def recognisers() -> Mapping[Family, Recogniser]:
    """Return how the sources of each family are told, of those too that are not served yet."""
    from firthd.families.conda.requests import RECOGNISER as CONDA
    from firthd.families.python.recognise import RECOGNISER as PYTHON
    from firthd.families.r.requests import RECOGNISER as R

    return {Family.R: R, Family.PYTHON: PYTHON, Family.CONDA: CONDA}


def load_formats(place: str) -> Formats:
    """Return the formats that "package.module:name" names: a worker process imports its one family, and no other."""
    return cast("Formats", _named(place))


def load_pages(place: str) -> Pages:
    """Return what makes the pages of a family's lazy parts."""
    return cast("Pages", _named(place))


def load_policing(place: str) -> Policing:
    """Return what policies ask of a family."""
    return cast("Policing", _named(place))


def _named(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
