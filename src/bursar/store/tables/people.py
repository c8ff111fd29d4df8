"""The tables of people: who they are, where they belong, and how they sign in.

Owns their names, types and keys, in the conventions of all tables. Of what people know or carry,
only hashes are stored; what must be read again is sealed under the installation's own secret.
"""

from typing import Final

from sqlalchemy import CheckConstraint, Column, Index, LargeBinary, PrimaryKeyConstraint, Text

from bursar.store.tables.columns import Int, integer, table, text

users: Final = table(
    "users",
    Column("id", Int, primary_key=True, autoincrement=False),
    Column("email", Text, nullable=False, unique=True),
    text("name"),
    text("password_hash"),
    integer("created_ms"),
    integer("disabled_ms", null=True),
)

members: Final = table(
    "members",
    integer("account_id"),
    integer("user_id"),
    text("role"),
    integer("created_ms"),
    integer("disabled_ms", null=True),
    # The sign-in service that gave this membership, and may take it; null for one by invitation.
    text("provider", null=True),
    # What the account calls them, where it is not what they call themselves.
    text("name", null=True),
    PrimaryKeyConstraint("account_id", "user_id", name="members_pk"),
    CheckConstraint("role IN ('owner', 'admin', 'member', 'viewer')", name="member_role"),
    Index("members_user", "user_id"),
)

# A family of refresh tokens: all that came out of one sign-in. The next token is sealed under the
# one before it, so that a lost answer can be given again and nobody else can read it. One that a
# key was traded for is the key's alone: its user is 0.
sessions: Final = table(
    "sessions",
    Column("id", Int, primary_key=True, autoincrement=False),
    integer("user_id"),
    integer("account_id"),
    Column("family_hash", LargeBinary, nullable=False),
    Column("token_hash", LargeBinary, nullable=False),
    Column("previous_hash", LargeBinary, nullable=True),
    integer("previous_until_ms", null=True),
    Column("sealed_next", LargeBinary, nullable=True),
    text("device"),
    text("address"),
    integer("created_ms"),
    integer("last_used_ms"),
    integer("expires_ms"),
    integer("ended_ms", null=True),
    integer("key_id", null=True),
    Index("sessions_family", "family_hash", unique=True),
    Index("sessions_user", "user_id"),
    Index("sessions_key", "account_id", "key_id"),
)

signing_keys: Final = table(
    "signing_keys",
    Column("id", Text, primary_key=True),
    text("algorithm"),
    Column("public_key", LargeBinary, nullable=False),
    Column("sealed_private_key", LargeBinary, nullable=False),
    integer("created_ms"),
)

second_factors: Final = table(
    "second_factors",
    integer("user_id"),
    text("kind"),
    Column("sealed_secret", LargeBinary, nullable=False),
    integer("created_ms"),
    integer("confirmed_ms", null=True),
    integer("last_step", default=0),
    PrimaryKeyConstraint("user_id", "kind", name="second_factors_pk"),
)

recovery_codes: Final = table(
    "recovery_codes",
    integer("user_id"),
    Column("code_hash", LargeBinary, nullable=False),
    integer("created_ms"),
    PrimaryKeyConstraint("user_id", "code_hash", name="recovery_codes_pk"),
)

invitations: Final = table(
    "invitations",
    integer("account_id"),
    integer("id"),
    text("email"),
    text("role"),
    Column("token_hash", LargeBinary, nullable=False),
    text("invited_by"),
    integer("created_ms"),
    integer("expires_ms"),
    text("name", default=""),
    PrimaryKeyConstraint("account_id", "id", name="invitations_pk"),
    Index("invitations_token", "token_hash"),
    Index("invitations_email", "account_id", "email", unique=True),
)

password_resets: Final = table(
    "password_resets",
    Column("token_hash", LargeBinary, primary_key=True),
    integer("user_id"),
    text("email"),
    integer("created_ms"),
    integer("expires_ms"),
    Index("password_resets_user", "user_id"),
)

# How often something was tried lately: a person from an address, an address, a person.
sign_in_tries: Final = table(
    "sign_in_tries",
    Column("bucket", LargeBinary, primary_key=True),
    integer("start_ms"),
    integer("count"),
    Index("sign_in_tries_start", "start_ms"),
)
