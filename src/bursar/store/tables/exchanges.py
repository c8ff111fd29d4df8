"""The tables of what goes back and forth: answers that may be asked for again, and the change feed.

Owns their names, types and keys, in the conventions of all tables.
"""

from typing import Final

from sqlalchemy import Column, Index, LargeBinary, PrimaryKeyConstraint

from bursar.store.tables.columns import Int, integer, table, text

idempotency: Final = table(
    "idempotency",
    integer("account_id"),
    Column("scope_hash", LargeBinary, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    integer("status", null=True),
    Column("sealed_body", LargeBinary, nullable=True),
    integer("created_ms"),
    PrimaryKeyConstraint("account_id", "scope_hash", name="idempotency_pk"),
    Index("idempotency_created", "created_ms"),
)

changes: Final = table(
    "changes",
    Column("id", Int, primary_key=True, autoincrement=False),
    integer("at_ms"),
    text("topic"),
    integer("account_id"),
    text("subject"),
)
