"""People: sign-in, sessions, second factors, invitations.

Only adds, but for the spelling of e-mail addresses: everybody keeps their memberships, and nobody
is signed in.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"

_INT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and tables."""
    op.add_column("users", _int("disabled_ms", null=True))
    op.add_column("members", _int("disabled_ms", null=True))
    op.create_index("members_user", "members", ["user_id"])
    # Addresses are looked up in their one spelling. Only first users are there so far.
    op.execute("UPDATE users SET email = lower(email)")
    _make_sessions()
    _make_factors()
    _make_letters()
    counters = sa.table("counters", sa.column("name", sa.Text), sa.column("value", _INT))
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in ("sessions", "invitations")])


def _make_sessions() -> None:
    _table(
        "sessions",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
        _int("user_id"),
        _int("account_id"),
        sa.Column("family_hash", sa.LargeBinary, nullable=False),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("previous_hash", sa.LargeBinary, nullable=True),
        _int("previous_until_ms", null=True),
        sa.Column("sealed_next", sa.LargeBinary, nullable=True),
        _text("device"),
        _text("address"),
        _int("created_ms"),
        _int("last_used_ms"),
        _int("expires_ms"),
        _int("ended_ms", null=True),
    )
    op.create_index("sessions_family", "sessions", ["family_hash"], unique=True)
    op.create_index("sessions_user", "sessions", ["user_id"])
    _table(
        "signing_keys",
        sa.Column("id", sa.Text, primary_key=True),
        _text("algorithm"),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sealed_private_key", sa.LargeBinary, nullable=False),
        _int("created_ms"),
    )
    _table(
        "sign_in_tries",
        sa.Column("bucket", sa.LargeBinary, primary_key=True),
        _int("start_ms"),
        _int("count"),
    )
    op.create_index("sign_in_tries_start", "sign_in_tries", ["start_ms"])


def _make_factors() -> None:
    _table(
        "second_factors",
        _int("user_id"),
        _text("kind"),
        sa.Column("sealed_secret", sa.LargeBinary, nullable=False),
        _int("created_ms"),
        _int("confirmed_ms", null=True),
        _int("last_step", default=0),
        sa.PrimaryKeyConstraint("user_id", "kind", name="second_factors_pk"),
    )
    _table(
        "recovery_codes",
        _int("user_id"),
        sa.Column("code_hash", sa.LargeBinary, nullable=False),
        _int("created_ms"),
        sa.PrimaryKeyConstraint("user_id", "code_hash", name="recovery_codes_pk"),
    )


def _make_letters() -> None:
    _table(
        "invitations",
        _int("account_id"),
        _int("id"),
        _text("email"),
        _text("role"),
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        _text("invited_by"),
        _int("created_ms"),
        _int("expires_ms"),
        sa.PrimaryKeyConstraint("account_id", "id", name="invitations_pk"),
    )
    op.create_index("invitations_token", "invitations", ["token_hash"])
    op.create_index("invitations_email", "invitations", ["account_id", "email"], unique=True)
    _table(
        "password_resets",
        sa.Column("token_hash", sa.LargeBinary, primary_key=True),
        _int("user_id"),
        _text("email"),
        _int("created_ms"),
        _int("expires_ms"),
    )
    op.create_index("password_resets_user", "password_resets", ["user_id"])


def _int(name: str, *, null: bool = False, default: int | None = None) -> sa.Column[int]:
    server_default = None if default is None else str(default)
    return sa.Column(name, _INT, nullable=null, server_default=server_default)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    return op.create_table(name, *items, sqlite_strict=True)
