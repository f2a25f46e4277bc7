"""The only place that tells a Python index by what it answers (PEP 503, PEP 629, PEP 691)."""

from firthd.families.base import Form, Recogniser

JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
PAGES = ("text/html", "application/xhtml+xml")
ACCEPT = f"{JSON}, {HTML};q=0.2, text/html;q=0.1"


def recognise(form: Form, start: bytes, content_type: str) -> bool:
    """Tell whether an answer is a Python index's list of projects."""
    if content_type in {JSON, HTML}:
        return True
    if content_type not in PAGES:
        return False
    # PEP 503 asks for anchors and nothing more; PEP 629 adds the version as <meta name="pypi:repository-version">.
    text = start.lower()
    return b"pypi:repository-version" in text or (form.path == "simple/" and b"<a " in text)


RECOGNISER = Recogniser(
    kind="a Python index", tell_tales=(Form("", ACCEPT), Form("simple/", ACCEPT)), recognise=recognise
)
