"""The only place that lists the families this version serves."""

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from firth_protocol.types import Family
from firthd.families.base import FamilyRules, Formats


def families() -> Mapping[Family, FamilyRules]:
    """Return the families that are served; a mirror of a type that is absent here cannot be made yet.

    The import stands inside because worker processes import this package too, and must not pay for a family's network
    side.
    """
    from firthd.families.conda.family import CONDA

    return {Family.CONDA: CONDA}


def load_formats(place: str) -> Formats:
    """Return the formats that "package.module:name" names: a worker process imports its one family, and no other."""
    module, _, name = place.partition(":")
    return cast("Formats", getattr(import_module(module), name))
