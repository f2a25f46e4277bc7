"""The only place that makes SQL of the fields of a struct: the columns of a table, and what a SELECT names."""

from collections.abc import Iterable, Sequence
from types import NoneType
from typing import NamedTuple, get_args, get_type_hints

from msgspec import Raw, Struct

RAW = "raw"
"""The column with a record's own bytes: of a row of the state it lies in `artifact_record`, where no scan reads it."""

ALONG = "+"
"""How the name of a section begins whose files go along with others, such as what is said of a file beside it.

They are kept, checked and served as any other; what people count, list and download are the others.
"""

_SQL_TYPES = {int: "INTEGER", str: "TEXT", bytes: "BLOB", Raw: "BLOB"}


class Column(NamedTuple):
    """A column that a struct's field becomes."""

    name: str
    sql_type: str  # of a STRICT table
    nullable: bool

    @property
    def definition(self) -> str:
        """Return the column as CREATE TABLE takes it."""
        return f"{self.name} {self.sql_type}" + ("" if self.nullable else " NOT NULL")


def columns_of(record: type[Struct]) -> tuple[Column, ...]:
    """Return the columns of a struct, in the order of its fields; raises KeyError for a type that is no column's."""
    return tuple(_column(name, hint) for name, hint in get_type_hints(record).items())


def _column(name: str, hint: object) -> Column:
    kinds = set(get_args(hint) or (hint,))
    sql_types = {_SQL_TYPES[kind] for kind in kinds - {NoneType}}
    (sql_type,) = sql_types
    return Column(name, sql_type, NoneType in kinds)


def goes_along(section: str) -> bool:
    """Tell whether the files of a section only go along with others."""
    return section.startswith(ALONG)


def counted(table: str) -> str:
    """Return the SQL that tells whether a row of this alias is a file that people count."""
    return f"substr({table}.section, 1, 1) <> '{ALONG}'"


def in_the_row(columns: Sequence[Column]) -> list[str]:
    """Return the names of the columns that an artifact's own row has."""
    return [column.name for column in columns if column.name != RAW]


def selected(fields: Iterable[str], table: str, **elsewhere: str) -> str:
    """Return what a SELECT names so that its rows hold `fields` in order.

    They are columns of the alias `table`, but for those in `elsewhere`: field -> expression.
    """
    return ", ".join(f"{elsewhere[field]} AS {field}" if field in elsewhere else f"{table}.{field}" for field in fields)
