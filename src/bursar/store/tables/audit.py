"""The tables of the audit log: its rows, and the end of each account's chain.

Owns their names, types and keys, in the conventions of all tables. Account 0 is the operator's.
"""

from typing import Final

from sqlalchemy import Column, Index, LargeBinary, PrimaryKeyConstraint

from bursar.store.tables.columns import Int, integer, table, text

# Rows count from 1 in each account, without gaps. `before` and `after` are the very texts that were
# hashed.
audit: Final = table(
    "audit",
    integer("account_id"),
    integer("id"),
    integer("at_ms"),
    text("action"),
    text("target"),
    text("actor"),
    text("address"),
    text("request_id"),
    text("before", null=True),
    text("after", null=True),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("account_id", "id", name="audit_pk"),
    Index("audit_moment", "account_id", "at_ms"),
    Index("audit_target", "account_id", "target", "id"),
)

audit_heads: Final = table(
    "audit_heads",
    Column("account_id", Int, primary_key=True, autoincrement=False),
    integer("last_id"),
    Column("hash", LargeBinary, nullable=False),
)
