"""What every table is made of: the metadata that all belong to, and the types of columns.

Must not know any table. The conventions are told where the tables are.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text
from sqlalchemy.schema import SchemaItem

metadata: Final = MetaData()
Int: Final = BigInteger().with_variant(Integer(), "sqlite")


def integer(name: str, *, null: bool = False, default: int | None = None) -> Column[int]:
    """A column of 64-bit integers; not null, unless it is said."""
    server_default = None if default is None else str(default)
    return Column(name, Int, nullable=null, server_default=server_default)


def text(name: str, *, null: bool = False, default: str | None = None) -> Column[str]:
    """A column of texts; not null, unless it is said."""
    return Column(name, Text, nullable=null, server_default=default)


def table(name: str, *items: SchemaItem) -> Table:
    """A table, which SQLite checks as strictly as PostgreSQL does."""
    return Table(name, metadata, *items, sqlite_strict=True)
