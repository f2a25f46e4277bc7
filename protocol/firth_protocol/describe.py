"""The only place that reads the table's structs for people: each field's type in words, default and meaning."""

from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct, inspect

from firth_protocol.methods import METHODS, Method
from firth_protocol.types import MAX_INT, Page, TextPage

_COMPOUND = (inspect.StructType, inspect.ListType, inspect.DictType, inspect.AnyType)


class Field(Struct, frozen=True, kw_only=True):
    """One field of a struct. `kind` is its type without null; `default` is JSON text, None when there is none."""

    name: str
    kind: inspect.Type
    type_text: str
    nullable: bool
    required: bool
    default: str | None
    description: str

    @property
    def struct(self) -> type[Struct] | None:
        """Return the struct that the field holds or may hold, if there is one."""
        members = self.kind.types if isinstance(self.kind, inspect.UnionType) else (self.kind,)
        return next((member.cls for member in members if isinstance(member, inspect.StructType)), None)

    @property
    def scalar(self) -> bool:
        """Tell whether the field holds one value: no list, no object."""
        members = self.kind.types if isinstance(self.kind, inspect.UnionType) else (self.kind,)
        return not any(isinstance(member, _COMPOUND) for member in members)

    @property
    def takes_number(self) -> bool:
        """Tell whether a whole number is one of the field's values."""
        members = self.kind.types if isinstance(self.kind, inspect.UnionType) else (self.kind,)
        return any(isinstance(member, inspect.IntType) for member in members)

    @property
    def inner(self) -> type[Struct] | None:
        """Return the struct that the field holds, alone or in a list, if there is one."""
        members = self.kind.types if isinstance(self.kind, inspect.UnionType) else (self.kind,)
        items = (_bare(member.item_type) if isinstance(member, inspect.ListType) else member for member in members)
        return next((item.cls for item in items if isinstance(item, inspect.StructType)), None)

    @property
    def values(self) -> list[str]:
        """Return the values of an enumeration, or true and false; nothing for other types."""
        if isinstance(self.kind, inspect.EnumType):
            return [str(member.value) for member in self.kind.cls]
        return ["true", "false"] if isinstance(self.kind, inspect.BoolType) else []


def fields_of(struct: type[Struct]) -> list[Field]:
    """Return the fields of a struct in order."""
    return [_field(field) for field in _struct(inspect.type_info(struct)).fields]


def item_of(result: Any) -> type[Struct] | None:
    """Return the struct of which a paged result is a list, or None when the result is no page."""
    info = inspect.type_info(result)
    if not isinstance(info, inspect.StructType) or not _is_page(info.cls):
        return None
    for field in info.fields:
        if field.encode_name == "items" and isinstance(field.type, inspect.ListType):
            kind = _bare(field.type.item_type)
            return kind.cls if isinstance(kind, inspect.StructType) else None
    return None


def listed_in(result: Any) -> tuple[str, type[Struct]] | None:
    """Return under which name a result holds a page of a list, and the struct of its items; None when it holds none."""
    item = item_of(result)
    if item is not None:
        return "items", item
    kind = struct_of(result)
    fields = {field.name: field for field in fields_of(kind)} if kind is not None else {}
    held = fields.get("rows")
    if held is None or held.inner is None or "next_cursor" not in fields:
        return None
    return held.name, held.inner


def struct_of(result: Any) -> type[Struct] | None:
    """Return the struct that a result is, None for a page and for what is no struct."""
    info = inspect.type_info(result)
    return info.cls if isinstance(info, inspect.StructType) and not _is_page(info.cls) else None


def getter_of(method: Method) -> Method | None:
    """Return the method that shows what `method` edits, None where it edits nothing by revision."""
    if not any(field.name == "revision" and field.required for field in fields_of(method.params)):
        return None
    return METHODS.get(f"{method.name.partition('.')[0]}.get")


def fixed_after_creation(method: Method, name: str) -> bool:
    """Tell whether `name` is a property that is given at creation, is shown, and cannot be edited by `method`."""
    create, get = (METHODS.get(f"{method.name.partition('.')[0]}.{verb}") for verb in ("create", "get"))
    if not method.name.endswith(".update") or create is None or get is None or name in method.params.__struct_fields__:
        return False
    shown = struct_of(get.result)
    return name in create.params.__struct_fields__ and shown is not None and name in shown.__struct_fields__


def result_text(result: Any) -> str:
    """Return a result's type in words."""
    item = item_of(result)
    if item is not None:
        return f"a page of {item.__name__}"
    info = inspect.type_info(result)
    return info.cls.__name__ if isinstance(info, inspect.StructType) else _type_text(info)


def _is_page(kind: Any) -> bool:
    return getattr(kind, "__origin__", kind) in (Page, TextPage)


def _struct(info: inspect.Type) -> inspect.StructType:
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{info} is no struct")
    return info


def _field(field: inspect.Field) -> Field:
    kind = _bare(field.type)
    return Field(
        name=field.encode_name,
        kind=kind,
        type_text=_type_text(field.type),
        nullable=_nullable(field.type),
        required=field.required,
        default=_default(field),
        description=_description(field.type),
    )


def _default(field: inspect.Field) -> str | None:
    if field.default is not NODEFAULT:
        return msgspec.json.encode(field.default).decode()
    if field.default_factory is not NODEFAULT:
        return msgspec.json.encode(field.default_factory()).decode()
    return None


def _bare(kind: inspect.Type) -> inspect.Type:
    """Return the type without its description, and without null when one type is left then."""
    if isinstance(kind, inspect.Metadata):
        return _bare(kind.type)
    if isinstance(kind, inspect.UnionType):
        members = [member for member in kind.types if not isinstance(member, inspect.NoneType)]
        return _bare(members[0]) if len(members) == 1 else inspect.UnionType(tuple(_bare(m) for m in members))
    return kind


def _nullable(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _nullable(kind.type)
    return isinstance(kind, inspect.UnionType) and kind.includes_none


def _description(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.Metadata):
        return str((kind.extra_json_schema or {}).get("description", "")) or _description(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next((text for member in kind.types if (text := _description(member))), "")
    return ""


def _type_text(kind: inspect.Type) -> str:
    match kind:
        case inspect.Metadata():
            return _type_text(kind.type)
        case inspect.UnionType():
            return " or ".join(_type_text(member) for member in kind.types)
        case inspect.EnumType():
            return "|".join(str(member.value) for member in kind.cls)
        case inspect.StructType():
            return "{" + ", ".join(field.encode_name for field in kind.fields) + "}"
        case inspect.ListType():
            return f"list of {_type_text(kind.item_type)}"
        case inspect.DictType():
            return "object"
        case inspect.IntType() | inspect.FloatType():
            return ("integer" if isinstance(kind, inspect.IntType) else "number") + _bounds(kind)
        case inspect.BoolType():
            return "true|false"
        case inspect.NoneType():
            return "null"
        case inspect.StrType():
            return "text"
        case _:
            return "any JSON"


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    most = None if kind.le == MAX_INT else kind.le  # what the state can hold is no bound that people think of
    if kind.ge is not None and most is not None:
        return f" {kind.ge}..{most}"
    signs = ((kind.ge, ">="), (kind.gt, ">"), (most, "<="), (kind.lt, "<"))
    return "".join(f" {sign} {bound}" for bound, sign in signs if bound is not None)
