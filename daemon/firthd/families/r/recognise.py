"""The only place that tells a CRAN-like repository by what it answers."""

import re

from firthd.families.base import Form, Recogniser

_field = re.compile(rb"\s*[A-Za-z][A-Za-z0-9/_.-]*:").match


def recognise(form: Form, start: bytes, content_type: str) -> bool:
    """Tell whether an answer is a PACKAGES file: stanzas of `Field: value` (R manual)."""
    return _field(start) is not None


RECOGNISER = Recogniser(kind="a CRAN root", tell_tales=(Form("src/contrib/PACKAGES"),), recognise=recognise)
