"""The range parser and the validators, without a server."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from firthd.web.conditions import Content, Span, Verdict, http_date, judge, parse_range

SIZES = st.integers(0, 10_000)


def content(**fields: object) -> Content:
    values: dict[str, object] = {
        "size": 1000,
        "etag": '"abc"',
        "modified_ms": 1_777_500_000_500,
        "media_type": "application/json",
        "cache_control": "public, max-age=60",
    }
    return Content(**(values | fields))  # type: ignore[arg-type]  # the fields are the test's to say


@given(size=SIZES, first=st.integers(0, 20_000), last=st.none() | st.integers(0, 20_000))
def test_a_range_is_the_slice_that_python_would_take(size: int, first: int, last: int | None) -> None:
    data = bytes(index % 251 for index in range(size))
    result = parse_range(f"bytes={first}-{'' if last is None else last}", size)
    if last is not None and last < first:
        assert result is Verdict.WHOLE
    elif first >= size:
        assert result is Verdict.UNSATISFIABLE
    else:
        assert isinstance(result, Span)
        assert data[result.start : result.start + result.count] == data[first : None if last is None else last + 1]
        assert 0 < result.count <= size - result.start


@given(size=SIZES, length=st.integers(0, 20_000))
def test_a_suffix_is_the_end_of_the_file(size: int, length: int) -> None:
    result = parse_range(f"bytes=-{length}", size)
    if length == 0:
        assert result is Verdict.UNSATISFIABLE
    elif size == 0:
        assert result is Verdict.WHOLE
    else:
        assert isinstance(result, Span)
        assert (result.start + result.count, result.count) == (size, min(length, size))


@given(text=st.text() | st.from_regex(re.compile(r"bytes *= *[0-9,\- ]*"), fullmatch=True), size=SIZES)
@example("bytes=" + "9" * 5000 + "-", 10)  # more digits than int() takes
@example("bytes=٣-", 10)  # digits of another script are none here
def test_no_text_breaks_the_parser(text: str, size: int) -> None:
    result = parse_range(text, size)
    if isinstance(result, Span):
        assert 0 <= result.start < result.start + result.count <= size


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        ({}, Verdict.WHOLE),
        ({"If-None-Match": '"abc"'}, Verdict.NOT_MODIFIED),
        ({"If-None-Match": 'W/"abc"'}, Verdict.NOT_MODIFIED),
        ({"If-None-Match": '"x", "abc" , "y"'}, Verdict.NOT_MODIFIED),
        ({"If-None-Match": "*"}, Verdict.NOT_MODIFIED),
        ({"If-None-Match": "abc"}, Verdict.WHOLE),
        ({"If-None-Match": '"x"', "If-Modified-Since": http_date(1_777_500_000_500)}, Verdict.WHOLE),
        ({"If-Modified-Since": http_date(1_777_500_000_500)}, Verdict.NOT_MODIFIED),
        ({"If-Modified-Since": http_date(1_777_499_999_000)}, Verdict.WHOLE),
        ({"If-Modified-Since": "Sat, 99 Foo 99999 00:00:00 GMT"}, Verdict.WHOLE),
        ({"If-Match": 'W/"abc"'}, Verdict.PRECONDITION_FAILED),
        ({"If-Match": '"abc"', "If-None-Match": '"abc"'}, Verdict.NOT_MODIFIED),
        ({"Range": "bytes=0-9", "If-None-Match": '"abc"'}, Verdict.NOT_MODIFIED),
        ({"Range": "bytes=0-9"}, Span(0, 10)),
        ({"Range": "BYTES = 0-9"}, Span(0, 10)),
        ({"Range": "bytes=0-9", "If-Range": '"abc"'}, Span(0, 10)),
        ({"Range": "bytes=0-9", "If-Range": '"x"'}, Verdict.WHOLE),
        ({"Range": "bytes=0-9", "If-Range": http_date(1_777_500_000_000)}, Span(0, 10)),
    ],
)
def test_the_order_of_conditions(headers: dict[str, str], answer: Verdict | Span) -> None:
    assert judge(headers, content(), head=False) == answer


def test_head_has_no_ranges() -> None:
    assert judge({"Range": "bytes=0-9"}, content(), head=True) is Verdict.WHOLE


def test_what_has_no_tag_matches_none() -> None:
    untagged = content(etag=None, modified_ms=None)
    assert judge({"If-None-Match": '"abc"'}, untagged, head=False) is Verdict.WHOLE
    assert judge({"If-Modified-Since": http_date(1_777_500_000_500)}, untagged, head=False) is Verdict.WHOLE
    assert judge({"Range": "bytes=1-", "If-Range": '"abc"'}, untagged, head=False) is Verdict.WHOLE
