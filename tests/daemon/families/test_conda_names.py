import pytest
from hypothesis import given
from hypothesis import strategies as st
from rattler import Subdir

from firthd.families.conda.names import (
    KNOWN_SUBDIRS,
    filename_problem,
    safe_filename,
    valid_filename,
    valid_subdir,
)

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+!=~-"


@pytest.mark.parametrize(
    "filename",
    [
        "numpy-2.1.3-py312h58c1407_0.conda",
        "_libgcc_mutex-0.1-conda_forge.tar.bz2",
        "__anaconda_core_depends-2018.12-py37_0.tar.bz2",
        "7zip-19.00-h2d74725_2.conda",
        "ddd-1!2.0+loc-0.conda",
        "R-base-4.2-H_UPPER.conda",
        "a" * 205 + ".conda",
    ],
)
def test_names_of_real_channels_are_taken(filename: str) -> None:
    assert valid_filename(filename)


@pytest.mark.parametrize(
    "filename",
    [
        "",
        ".conda",
        ".tar.bz2",
        "a-1-0.zip",
        "a-1-0.conda.exe",
        "a" * 206 + ".conda",
        "../a-1-0.conda",
        "..conda",
        "a..b-1-0.conda",
        "/etc/a-1-0.conda",
        "a/b-1-0.conda",
        "a\\b-1-0.conda",
        "-rf-1-0.conda",
        ".hidden-1-0.conda",
        "a-1-0.conda\n",
        "a\x00-1-0.conda",
        "a\x1b[31m-1-0.conda",
        "a%2fb-1-0.conda",
        "a b-1-0.conda",
        "a:b-1-0.conda",
        "a?x-1-0.conda",
        "<b>-1-0.conda",
        "a'--1-0.conda",
        "\u202eadnoc-1-0.conda",
        "ä-1-0.conda",
        "a-1-0.whl",
    ],
)
def test_hostile_names_are_refused_without_repeating_them(filename: str) -> None:
    problem = filename_problem(filename)
    assert problem is not None
    assert problem.isprintable()
    assert not valid_filename(filename)


@given(st.text() | st.text(ALPHABET + "/\\%\x00\n", max_size=230), st.sampled_from([".conda", ".tar.bz2", ""]))
def test_whatever_is_taken_is_one_safe_segment_of_a_path(stem: str, extension: str) -> None:
    filename = stem + extension
    if not valid_filename(filename):
        return
    assert set(filename) <= set(ALPHABET)
    assert ".." not in filename
    assert filename[0] not in ".-"
    assert len(filename) <= 211
    assert filename.endswith((".conda", ".tar.bz2"))


@given(st.text(ALPHABET.replace(".", ""), min_size=1, max_size=200).filter(lambda stem: stem[0] not in "-+!=~"))
def test_a_harmless_name_is_never_refused(stem: str) -> None:
    assert valid_filename(f"{stem}.conda")


@given(st.text(max_size=140), st.text(max_size=140), st.text(max_size=140))
def test_a_records_own_words_are_judged_too(name: str, version: str, build: str) -> None:
    try:
        taken = safe_filename("a-1-0.conda", name, version, build)
    except ValueError:
        return
    assert taken == "a-1-0.conda"
    for word in (name, version, build):
        assert set(word) <= set(ALPHABET)
        assert len(word) <= 128
    assert name
    assert version


def test_the_file_name_need_not_agree_with_the_record() -> None:
    assert safe_filename("odd-1-0.conda", "numpy", "1!2.0+local", "") == "odd-1-0.conda"
    for words in (("", "1", "0"), ("a/b", "1", "0"), ("a", "", "0"), ("a", "1\n", "0"), ("a", "1", "<script>")):
        with pytest.raises(ValueError):
            safe_filename("odd-1-0.conda", *words)


@pytest.mark.parametrize("filename", ["odd.conda", "odd-1.conda", "odd_1_0.tar.bz2"])
def test_a_name_that_clients_cannot_split_is_refused(filename: str) -> None:
    with pytest.raises(ValueError, match="two dashes"):
        safe_filename(filename, "odd", "1", "0")


def test_another_extension_must_be_asked_for() -> None:
    assert valid_filename("a-1-py3-none-any.whl", (".whl",))
    assert not valid_filename("a-1-0.conda", (".whl",))


@pytest.mark.parametrize("subdir", [*KNOWN_SUBDIRS, "linux-64"])
def test_every_known_subdir_is_one(subdir: str) -> None:
    assert valid_subdir(subdir)


@pytest.mark.parametrize(
    "subdir", ["", "linux", "Linux-64", "a-b-c", "../a-b", "a-b\n", "a_b-c", f"{'a' * 31}-b", "å-64"]
)
def test_what_is_no_subdir(subdir: str) -> None:
    assert not valid_subdir(subdir)


def test_known_subdirs_are_those_of_the_ecosystem_once_each() -> None:
    assert len(set(KNOWN_SUBDIRS)) == len(KNOWN_SUBDIRS)
    assert KNOWN_SUBDIRS[0] == "noarch"
    for subdir in KNOWN_SUBDIRS:
        assert str(Subdir(subdir)) == subdir
