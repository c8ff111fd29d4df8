"""Names that an account gives its people, and sessions that keys are traded for.

Only adds: everybody is called what they call themselves, and every session is a person's.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"

_INT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns."""
    op.add_column("members", sa.Column("name", sa.Text, nullable=True))
    op.add_column("invitations", sa.Column("name", sa.Text, nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("key_id", _INT, nullable=True))
    op.create_index("sessions_key", "sessions", ["account_id", "key_id"])
