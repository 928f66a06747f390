"""What a table of ours is: its columns, the statements that read and write it, and the record that holds a row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeVar

import msgspec
from psycopg import Connection, Cursor, sql
from psycopg.types.json import Jsonb
from psycopg.types.string import BytesBinaryDumper

SCHEMA = "babylon_training"
#: The default of a column that PostgreSQL numbers by itself.
IDENTITY = "identity"
_R = TypeVar("_R")


@dataclass(frozen=True)
class Column:
    """A column of ours.

    Attributes:
        type: PostgreSQL's name of the type, such as `int4` or `text[]`.
        meaning: one sentence; the reference, the UI and the database's comments show it.
        null: whether the value may be missing; always so in a view.
        default: the SQL expression, `IDENTITY`, or empty for none.
        holds: for an array with an element per sample, the sample's attribute that it holds.
    """

    type: str
    meaning: str
    null: bool = False
    default: str = ""
    holds: str = ""


@dataclass(frozen=True)
class Table:
    """A table or view of ours: what a row is, and its columns in order."""

    name: str
    meaning: str
    columns: Mapping[str, Column]
    view: bool = False
    schema: str = SCHEMA

    def row(self, record: type[_R]) -> type[_R]:
        """Decorate the dataclass that holds a row.

        Raises:
            TypeError: its fields are not the table's columns.
        """
        differ = {item.name for item in fields(record)} ^ set(self.columns)  # type: ignore[arg-type]
        if differ:
            raise TypeError(f"{record.__name__} and the table {self.name} differ in {', '.join(sorted(differ))}")
        return record

    @cached_property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    def select(self, rest: str, *columns: str) -> sql.Composed:
        """`SELECT <columns, default all> FROM <table> <rest>`; `rest` is trusted SQL with placeholders."""
        listed = sql.SQL(", ").join(map(sql.Identifier, columns or self.columns))
        return sql.SQL("SELECT {} FROM {} ").format(listed, self.identifier) + sql.SQL(rest)

    def delete(self, rest: str) -> sql.Composed:
        """`DELETE FROM <table> <rest>`."""
        return sql.SQL("DELETE FROM {} ").format(self.identifier) + sql.SQL(rest)

    def insert(self, columns: Iterable[str], rest: str = "") -> sql.Composed:
        """`INSERT INTO <table> (<columns>) VALUES (%(<column>)s, ...) <rest>`."""
        names = list(columns)
        return sql.SQL("INSERT INTO {} ({}) VALUES ({}) {}").format(
            self.identifier,
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(map(sql.Placeholder, names)),
            sql.SQL(rest),
        )

    def copy(
        self,
        conn: Connection[Any],
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        as_they_are: Collection[str] = (),
    ) -> None:
        """Add rows by binary COPY, in the caller's transaction; columns left out take their defaults.

        Columns that come `as_they_are` have bytes in PostgreSQL's binary form of their type already.
        """
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            self.identifier, sql.SQL(", ").join(map(sql.Identifier, columns))
        )
        with conn.cursor() as cursor:
            # The driver's own choice for bytea is one in Python that takes its wrapper of bytes as well: three times
            # the cost of handing bytes over.
            cursor.adapters.register_dumper(bytes, BytesBinaryDumper)
            self._copy(cursor, statement, columns, rows, as_they_are)

    def _copy(
        self,
        cursor: Cursor[Any],
        statement: sql.Composed,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        as_they_are: Collection[str],
    ) -> None:
        with cursor.copy(statement) as copy:
            copy.set_types(["bytea" if name in as_they_are else self.columns[name].type for name in columns])
            for row in rows:
                copy.write_row(row)


def json_value(value: Any) -> Jsonb | None:
    """A value for a jsonb column. Numbers that are not finite become null; numpy's scalars are taken as Python's."""
    return None if value is None else Jsonb(value, dumps=_dump_json)


def _dump_json(value: Any) -> bytes:
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise NotImplementedError(f"no JSON form for {type(value).__name__}")
