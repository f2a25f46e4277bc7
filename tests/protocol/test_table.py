"""The method table itself, what is generated from it, and the README's reference."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from firth_protocol import openrpc
from firth_protocol.ctl import manual
from firth_protocol.describe import fields_of, item_of, result_text
from firth_protocol.errors import FirthError, every_error, from_wire
from firth_protocol.methods import METHODS, MirrorCreate, MirrorUpdate, Params, ScopeBy
from firth_protocol.types import Channel, Role

FOLDER = Path(openrpc.__file__).parents[1]


@pytest.mark.parametrize("method", list(METHODS.values()), ids=list(METHODS))
def test_each_row_holds_together(method: Any) -> None:
    names = {field.name: field for field in fields_of(method.params)}
    assert issubclass(method.params, Params)
    assert method.role is not Role.NONE
    if method.scope is ScopeBy.CHANNEL:
        assert names["channel"].required
    if method.scope is ScopeBy.NEW_CHANNEL:
        assert names["name"].required
    if method.scope is ScopeBy.MIRROR:
        assert "mirror" in names
    if method.scope is ScopeBy.RUN:
        assert names["run"].required
    if item_of(method.result) is not None:
        assert {"limit", "cursor"} <= set(names)
    if method.changes:
        assert "dry_run" in names
    assert method.summary[0].isupper()
    assert not method.summary.endswith(".")


def test_the_committed_document_is_that_of_the_table() -> None:
    assert (FOLDER / "openrpc.json").read_bytes() == openrpc.text(), "run python -m firth_protocol.openrpc"


def test_the_readme_lists_the_methods_of_the_table() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert openrpc.with_reference(readme) == readme, "run python -m firth_protocol.openrpc"
    for name in METHODS:
        assert f"| `{name}` |" in readme


def test_the_manual_page_is_that_of_the_table() -> None:
    page = FOLDER.parent / "man" / "firthctl.1"
    assert page.read_text(encoding="utf-8") == manual.page(), "run python -m firth_protocol.openrpc"
    for name, row in METHODS.items():
        section = manual.page().split(f".SS {name}\n")[1].split("\n.SS ")[0]
        assert all(f".BR {field.name} " in section for field in fields_of(row.params))


def test_the_readme_lists_the_errors_of_the_tree() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    for error in every_error():
        assert f"| {error.code} | `{error.kind}` |" in readme


def test_a_readme_without_its_marks_is_told() -> None:
    with pytest.raises(ValueError, match="the README lacks the lines"):
        openrpc.with_reference("# nothing here")


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        here = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return here.union(*(references(item) for item in value.values()))
    return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()


def test_the_document_refers_to_what_it_holds_only() -> None:
    document = json.loads(openrpc.text())
    held = {f"#/components/{kind}/{name}" for kind in ("schemas", "errors") for name in document["components"][kind]}
    assert references(document) <= held
    assert {row["name"] for row in document["methods"]} == set(METHODS)


def test_the_document_says_what_a_parameter_is() -> None:
    row = next(row for row in openrpc.document()["methods"] if row["name"] == "mirror.create")
    params = {param["name"]: param for param in row["params"]}
    assert params["channel"]["required"]
    assert params["channel"]["schema"]["type"] == "string"
    assert not params["schedule"]["required"]
    assert params["schedule"]["schema"]["default"] == "0 0 1 * *"
    assert "#/components/schemas/MirrorType" in references(params["type"]["schema"])
    assert (row["x-role"], row["x-changes"], row["x-channel"]) == ("manager", True, "channel")
    assert {"$ref": "#/components/errors/upstream"} in row["errors"]


def test_fields_are_told_in_words() -> None:
    told = {
        field.name: (field.type_text, field.required, field.nullable, field.default)
        for field in fields_of(MirrorCreate)
    }
    assert told["channel"] == ("text", True, False, None)
    assert told["type"] == ("conda|python|r", True, False, None)
    assert told["mode"] == ("passive|active", False, False, '"passive"')
    assert told["ca_file"] == ("text or null", False, True, "null")
    assert told["run_now"] == ("true|false", False, False, "false")
    update = {field.name: field for field in fields_of(MirrorUpdate)}
    assert (update["mirror"].type_text, update["revision"].type_text) == ("integer >= 1 or text", "integer >= 1")
    assert (update["proxy"].default, update["proxy"].nullable) == (None, True)


def test_results_are_told_in_words() -> None:
    assert item_of(METHODS["channel.list"].result) is Channel
    assert item_of(METHODS["channel.get"].result) is None
    assert result_text(METHODS["channel.list"].result) == "a page of Channel"
    assert result_text(METHODS["rpc.discover"].result) == "object"


@pytest.mark.parametrize("error", every_error())
def test_errors_survive_the_wire(error: type[FirthError]) -> None:
    sent = error("it went wrong", hint="do this", channel="main", run=None)
    came = from_wire(msgspec.json.decode(msgspec.json.encode(sent.wire())))
    assert type(came) is error
    assert (came.message, came.hint, came.data) == ("it went wrong", "do this", {"channel": "main"})


def test_an_error_of_a_newer_daemon_is_still_an_error() -> None:
    came = from_wire({"code": -32099, "message": "odd", "data": {"kind": "brand_new", "hint": "h"}})
    assert (type(came), came.message, came.hint) == (FirthError, "odd", "h")
    assert type(from_wire({"code": -32001, "message": "x"})).__name__ == "NotFound"
