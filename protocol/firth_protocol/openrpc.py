"""The only place that writes the method table down for others: the OpenRPC document and the reference table.

`python -m firth_protocol.openrpc` writes protocol/openrpc.json, the reference in protocol/README.md, man/firthctl.1.
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from firth_protocol import API
from firth_protocol.ctl import manual
from firth_protocol.describe import Field, fields_of, result_text
from firth_protocol.errors import every_error
from firth_protocol.methods import METHODS, Method

OPENRPC_VERSION = "1.3.2"
BEGIN = "<!-- reference: written by python -m firth_protocol.openrpc -->"
END = "<!-- end of the reference -->"

_TEMPLATE = "#/components/schemas/{name}"


def document(methods: Mapping[str, Method] = METHODS) -> dict[str, Any]:
    """Return the table as an OpenRPC document (spec.open-rpc.org), its types as JSON Schema 2020-12."""
    rows = list(methods.values())
    kinds = [row.params for row in rows] + [row.result for row in rows]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    results = schemas[len(rows) :]
    inputs = {row.params.__name__: components[row.params.__name__] for row in rows}
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {
            "title": "firthd",
            "version": str(API),
            "description": "JSON-RPC 2.0 over HTTP on the daemon's Unix socket, POST /rpc. Parameters by name only.",
        },
        "methods": [
            _method(row, inputs[row.params.__name__].get("properties", {}), result)
            for row, result in zip(rows, results, strict=True)
        ],
        "components": {
            "schemas": {name: components[name] for name in sorted(components) if name not in inputs},
            "errors": {
                error.kind: {"code": error.code, "message": (error.__doc__ or error.kind).splitlines()[0]}
                for error in every_error()
            },
        },
    }


def text() -> bytes:
    """Return the document as it is committed: JSON, two spaces, one line end."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2) + b"\n"


def reference(methods: Mapping[str, Method] = METHODS) -> str:
    """Return the reference as Markdown: one row a method; required parameters first, `?` marks the others."""
    lines = ["| method | role | parameters | result | |", "|---|---|---|---|---|"]
    for row in methods.values():
        fields = sorted(fields_of(row.params), key=lambda field: not field.required)
        given = ", ".join(field.name if field.required else f"{field.name}?" for field in fields) or "none"
        lines.append(f"| `{row.name}` | {row.role} | {given} | {result_text(row.result)} | {row.summary} |")
    return "\n".join(lines)


def with_reference(readme: str) -> str:
    """Return the README with the reference between its two marks; raise ValueError when they are not there."""
    pattern = re.compile(f"({re.escape(BEGIN)}\n).*?({re.escape(END)})", re.DOTALL)
    if not pattern.search(readme):
        raise ValueError(f"the README lacks the lines {BEGIN} and {END}")
    return pattern.sub(lambda found: f"{found[1]}{reference()}\n{found[2]}", readme)


def _method(row: Method, properties: Mapping[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": row.name,
        "summary": row.summary,
        "paramStructure": "by-name",
        "params": [_param(field, properties[field.name]) for field in fields_of(row.params)],
        "result": {"name": "result", "schema": result},
        "errors": [{"$ref": f"#/components/errors/{error.kind}"} for error in row.errors],
        "x-role": row.role,
        "x-channel": row.scope,
        "x-changes": row.changes,
        "x-since": row.since,
    }


def _param(field: Field, schema: dict[str, Any]) -> dict[str, Any]:
    described = {"description": field.description} if field.description else {}
    return {"name": field.name, **described, "required": field.required, "schema": schema}


def main() -> None:
    """Write the three files where the protocol's sources lie."""
    folder = Path(__file__).resolve().parents[1]
    readme = folder / "README.md"
    if not readme.exists():
        sys.exit(f"{folder} holds no README.md: this writes into the sources, not into an installed package")
    (folder / "openrpc.json").write_bytes(text())
    (folder.parent / "man" / "firthctl.1").write_text(manual.page(), encoding="utf-8")
    readme.write_text(with_reference(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
