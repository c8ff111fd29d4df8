"""The tables of what proves who somebody is besides a password: passkeys and sign-in services.

Owns their names, types and keys, in the conventions of all tables. A passkey's row has its public
half alone. A challenge is there for minutes and for one use.
"""

from typing import Final

from sqlalchemy import Column, Index, LargeBinary

from bursar.store.tables.columns import Int, integer, table, text

passkeys: Final = table(
    "passkeys",
    Column("id", Int, primary_key=True, autoincrement=False),
    integer("user_id"),
    Column("credential_id", LargeBinary, nullable=False),
    Column("user_handle", LargeBinary, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    integer("sign_count"),
    text("name"),
    text("transports"),
    integer("is_synced"),
    integer("created_ms"),
    integer("last_used_ms", null=True),
    Index("passkeys_credential", "credential_id", unique=True),
    Index("passkeys_user", "user_id"),
)

# What somebody must answer: a passkey, or a sign-in service for them. What is to be remembered
# until they do is sealed.
challenges: Final = table(
    "challenges",
    Column("challenge_hash", LargeBinary, primary_key=True),
    text("purpose"),
    Column("sealed", LargeBinary, nullable=False),
    integer("expires_ms"),
    Index("challenges_expiry", "expires_ms"),
)

# Who somebody is at a sign-in service: its issuer and its name for them, which it never gives to
# another.
identities: Final = table(
    "identities",
    Column("id", Int, primary_key=True, autoincrement=False),
    text("issuer"),
    text("subject"),
    integer("user_id"),
    text("provider"),
    text("email"),
    integer("created_ms"),
    integer("last_used_ms"),
    Index("identities_subject", "issuer", "subject", unique=True),
    Index("identities_user", "user_id"),
)
