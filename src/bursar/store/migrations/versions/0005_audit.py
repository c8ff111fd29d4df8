"""The audit log: what was changed, by whom, in one chain an account.

Only adds. What happened before is in no log, and no chain has begun.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"

_INT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add tables, and the guards of what is never changed."""
    _table(
        "audit",
        _int("account_id"),
        _int("id"),
        _int("at_ms"),
        _text("action"),
        _text("target"),
        _text("actor"),
        _text("address"),
        _text("request_id"),
        _text("before", null=True),
        _text("after", null=True),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "id", name="audit_pk"),
    )
    op.create_index("audit_moment", "audit", ["account_id", "at_ms"])
    op.create_index("audit_target", "audit", ["account_id", "target", "id"])
    _table(
        "audit_heads",
        sa.Column("account_id", _INT, primary_key=True, autoincrement=False),
        _int("last_id"),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    if op.get_context().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def _guard_postgresql() -> None:
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION bursar_refuse_change()"
    )
    op.execute(
        "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION bursar_refuse_change()"
    )


def _guard_sqlite() -> None:
    for verb in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER audit_no_{verb} BEFORE {verb.upper()} ON audit BEGIN "
            "SELECT RAISE(ABORT, 'audit rows are never changed or deleted; "
            "corrections are new rows'); END"
        )


def _int(name: str) -> sa.Column[int]:
    return sa.Column(name, _INT, nullable=False)


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


def _table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    return op.create_table(name, *items, sqlite_strict=True)
