"""Metered events, and what an account may use and is invoiced in.

Only adds: nothing has been metered but calls, and every account has the defaults.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0007"
down_revision: Final = "0006"

_INT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and a table."""
    op.add_column("accounts", _text("currency", default="USD"))
    op.add_column("accounts", _text("features", default="{}"))
    op.create_table(
        "metered_events",
        sa.Column("account_id", _INT, nullable=False),
        _text("event_id"),
        sa.Column("at_ms", _INT, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "event_id", name="metered_events_pk"),
        sqlite_strict=True,
    )


def _text(name: str, *, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default=default)
