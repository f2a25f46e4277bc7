"""What HTML is taken apart into: as browsers do where it is odd, in one pass where it is hostile."""

import time

import pytest

from firthd.families.base import Form
from firthd.families.python.html import links_of
from firthd.families.python.page import LIST
from firthd.families.python.requests import instead
from firthd.upstream.listing import names_in
from firthd.upstream.markup import ATTRIBUTES_MAX, Comment, End, Start, Text, pieces

UNITS = (
    "<", "<a ", "<a", "<!--", "<!", "<![", "<![CDATA[", "</", "</a", "<?", "&", "&#x", "&amp", "<a href=x>",
    "<a href='", '<a href="<', "<script>", "<title>a", "<a =", "<a\n", "<a a=a a", "<!--->--", "<!-- --!", "<a / ",
    "a=", "<style>",
)  # fmt: skip


@pytest.mark.parametrize("before", ["", "<a href=b-1.0.whl>", "<a ", "<!--"])
def test_no_page_takes_longer_than_its_length(before: str) -> None:
    began = time.process_time()
    for unit in UNITS:
        page = before + unit * ((16 << 10) // len(unit))
        links_of(page.encode())
        names_in(page, "http://example.org/")
        instead(LIST, Form("", accept="", in_folder=False), page.encode(), "text/html")
    assert time.process_time() - began < 2  # looked at again from each `<`, one of them takes longer


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("a < b<a>&lt;</a>", [Text("a < b"), Start("a", {}), Text("<"), End("a")]),
        ("<A HREF = 'x&amp;y' href=z b c=>t", [Start("a", {"href": "x&y", "b": None, "c": ""}), Text("t")]),
        ("<a href=x/>t<br/>", [Start("a", {"href": "x/"}), Text("t"), Start("br", {}), End("br")]),
        ("<!DOCTYPE html><!-- c --><?x?>t", [Comment(" c "), Text("t")]),
        ("<script>'<a href=x>'</SCRIPT >t", [Start("script", {}), End("script"), Text("t")]),
        ("<![CDATA[x]]>t</3></>", [Text("t")]),
        ("t<a href='no end>x</a>", [Text("t")]),
        ("t<!-- no end", [Text("t")]),
        ("t</a", [Text("t")]),
        ("<style>no end", [Start("style", {})]),
        (f"&#{'9' * 5000};", [Text(f"&#{'9' * 5000};")]),
    ],
)  # fmt: skip
def test_odd_markup_is_what_browsers_make_of_it(page: str, expected: list[Start | End | Comment | Text]) -> None:
    assert list(pieces(page)) == expected


def test_a_tag_keeps_no_more_attributes_than_it_may() -> None:
    (tag,) = pieces("<a " + " ".join(f"n{number}" for number in range(1000)) + ">")
    assert isinstance(tag, Start)
    assert len(tag.attributes) == ATTRIBUTES_MAX
