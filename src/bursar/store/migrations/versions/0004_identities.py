"""Other proofs of who somebody is: passkeys, and sign-in services.

Only adds: nobody has either, and every membership is one that no service gave.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"

_INT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a column and tables."""
    op.add_column("members", sa.Column("provider", sa.Text, nullable=True))
    _make_passkeys()
    _make_identities()
    counters = sa.table("counters", sa.column("name", sa.Text), sa.column("value", _INT))
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in ("passkeys", "identities")])


def _make_passkeys() -> None:
    _table(
        "passkeys",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
        _int("user_id"),
        _bytes("credential_id"),
        _bytes("user_handle"),
        _bytes("public_key"),
        _int("sign_count"),
        _text("name"),
        _text("transports"),
        _int("is_synced"),
        _int("created_ms"),
        _int("last_used_ms", null=True),
    )
    op.create_index("passkeys_credential", "passkeys", ["credential_id"], unique=True)
    op.create_index("passkeys_user", "passkeys", ["user_id"])
    _table(
        "challenges",
        sa.Column("challenge_hash", sa.LargeBinary, primary_key=True),
        _text("purpose"),
        _bytes("sealed"),
        _int("expires_ms"),
    )
    op.create_index("challenges_expiry", "challenges", ["expires_ms"])


def _make_identities() -> None:
    _table(
        "identities",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
        _text("issuer"),
        _text("subject"),
        _int("user_id"),
        _text("provider"),
        _text("email"),
        _int("created_ms"),
        _int("last_used_ms"),
    )
    op.create_index("identities_subject", "identities", ["issuer", "subject"], unique=True)
    op.create_index("identities_user", "identities", ["user_id"])


def _int(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, _INT, nullable=null)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    return op.create_table(name, *items, sqlite_strict=True)
