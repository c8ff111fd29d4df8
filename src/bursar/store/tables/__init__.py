"""The tables, as SQLAlchemy Core sees them.

Owns names, types and keys of everything that is stored. Must not know queries or rules. Tenant
tables lead their primary key with `account_id`, so that they distribute by it unchanged.

Three conventions: money is `*_nanos` (nano-USD in 64 bits), time is `*_ms` (milliseconds since the
epoch, UTC), flags are integers 0 or 1. All of them are plain integers on both databases, because
STRICT tables of SQLite know neither BIGINT nor BOOLEAN nor TIMESTAMP, and because an integer has
no time zone, no rounding and no driver with an opinion.
"""

from typing import Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from bursar.store.tables.audit import audit, audit_heads
from bursar.store.tables.columns import Int, metadata
from bursar.store.tables.columns import integer as _int
from bursar.store.tables.columns import table as _table
from bursar.store.tables.columns import text as _text
from bursar.store.tables.exchanges import changes, idempotency
from bursar.store.tables.identities import challenges, identities, passkeys
from bursar.store.tables.metering import metered_events
from bursar.store.tables.people import (
    invitations,
    members,
    password_resets,
    recovery_codes,
    second_factors,
    sessions,
    sign_in_tries,
    signing_keys,
    users,
)

__all__ = [
    "Int",
    "accounts",
    "alerts",
    "allowances",
    "audit",
    "audit_heads",
    "challenges",
    "changes",
    "counters",
    "idempotency",
    "identities",
    "invitations",
    "keys",
    "leases",
    "limit_log",
    "members",
    "metadata",
    "metered_events",
    "passkeys",
    "password_resets",
    "plan_limits",
    "plans",
    "prices",
    "project_members",
    "projects",
    "recovery_codes",
    "second_factors",
    "sessions",
    "sign_in_tries",
    "signing_keys",
    "transfers",
    "usage_daily",
    "usage_events",
    "usage_hourly",
    "users",
    "workers",
]

counters: Final = _table(
    "counters",
    Column("name", Text, primary_key=True),
    _int("value"),
)

accounts: Final = _table(
    "accounts",
    Column("id", Int, primary_key=True, autoincrement=False),
    _text("name"),
    _text("status"),
    _text("time_zone"),
    _int("created_ms"),
    _int("plan_id", default=1),
    _text("currency", default="USD"),
    _text("features", default="{}"),
    CheckConstraint("status IN ('active', 'suspended', 'cancelled')", name="account_status"),
)

projects: Final = _table(
    "projects",
    _int("account_id"),
    _int("id"),
    _text("name"),
    _text("description", default=""),
    _text("labels", null=True),
    _int("created_ms"),
    _int("deleted_ms", null=True),
    PrimaryKeyConstraint("account_id", "id", name="projects_pk"),
)

project_members: Final = _table(
    "project_members",
    _int("account_id"),
    _int("project_id"),
    _int("user_id"),
    _int("created_ms"),
    PrimaryKeyConstraint("account_id", "project_id", "user_id", name="project_members_pk"),
)

# Lists and labels are JSON texts; NULL is no restriction. The previous secret works until its time.
keys: Final = _table(
    "keys",
    _int("account_id"),
    _int("id"),
    _int("user_id", null=True),
    _text("kind"),
    _text("name"),
    Column("secret_hash", LargeBinary, nullable=False),
    _text("prefix"),
    _text("last6"),
    _int("is_enabled", default=1),
    _int("created_ms"),
    _int("expires_ms", null=True),
    _int("deleted_ms", null=True),
    _int("project_id", null=True),
    _text("environment", default="live"),
    _text("description", default=""),
    _text("labels", null=True),
    _text("label_names", null=True),
    _text("models", null=True),
    _text("endpoints", null=True),
    _text("networks", null=True),
    Column("previous_hash", LargeBinary, nullable=True),
    _int("previous_until_ms", null=True),
    _int("rotated_ms", null=True),
    _int("leaked_ms", null=True),
    PrimaryKeyConstraint("account_id", "id", name="keys_pk"),
    Index("keys_secret_hash", "secret_hash"),
    Index("keys_previous_hash", "previous_hash"),
    Index("keys_project", "account_id", "project_id"),
)

allowances: Final = _table(
    "allowances",
    _int("account_id"),
    _text("scope"),
    _text("resource"),
    _text("window_name"),
    _text("model", default=""),
    _int("limit_amount", null=True),
    _int("used", default=0),
    _int("leased", default=0),
    _int("window_start_ms", default=0),
    _int("soft_amount", null=True),
    _text("origin", default="own"),
    _int("created_ms", default=0),
    PrimaryKeyConstraint(
        "account_id", "scope", "resource", "window_name", "model", name="allowances_pk"
    ),
    # A soft limit stops nobody: a job looks for those that are reached, among all allowances.
    Index(
        "allowances_soft",
        "account_id",
        sqlite_where=text("soft_amount IS NOT NULL"),
        postgresql_where=text("soft_amount IS NOT NULL"),
    ),
    CheckConstraint("used >= 0", name="allowance_used"),
    CheckConstraint("leased >= 0", name="allowance_leased"),
    CheckConstraint("limit_amount IS NULL OR limit_amount >= 0", name="allowance_limit"),
    # The last line of defence: no statement, however wrong, can take a wallet below zero.
    CheckConstraint(
        "scope <> 'wallet' OR (limit_amount IS NOT NULL AND used + leased <= limit_amount)",
        name="wallet_covers",
    ),
)

plans: Final = _table(
    "plans",
    Column("id", Int, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
    _int("created_ms"),
)

# What each scope of a kind gets where nothing of its own is set, and the most that may be set.
plan_limits: Final = _table(
    "plan_limits",
    _int("plan_id"),
    _text("scope_kind"),
    _text("resource"),
    _text("window_name"),
    _text("model", default=""),
    _int("default_amount", null=True),
    _int("most_amount", null=True),
    PrimaryKeyConstraint(
        "plan_id", "scope_kind", "resource", "window_name", "model", name="plan_limits_pk"
    ),
)

# Refusals by a limit, one row for each second and limit.
limit_log: Final = _table(
    "limit_log",
    _int("account_id"),
    _int("at_ms"),
    _text("allowance"),
    _int("key_id"),
    _text("model"),
    _text("endpoint"),
    _int("status"),
    _text("resource"),
    _text("window_name"),
    _int("limit_amount", null=True),
    _int("count"),
    PrimaryKeyConstraint("account_id", "at_ms", "allowance", name="limit_log_pk"),
    Index("limit_log_at", "at_ms"),
)

# What somebody should look at; the same occurrence is told once.
alerts: Final = _table(
    "alerts",
    _int("account_id"),
    _int("id"),
    _int("at_ms"),
    _text("kind"),
    _text("subject"),
    _int("occurrence_ms"),
    _text("body"),
    PrimaryKeyConstraint("account_id", "id", name="alerts_pk"),
    Index("alerts_occurrence", "account_id", "kind", "subject", "occurrence_ms", unique=True),
)

workers: Final = _table(
    "workers",
    Column("id", Int, primary_key=True, autoincrement=False),
    _text("state"),
    _text("host"),
    _int("settled_seq", default=0),
    _int("started_ms"),
    _int("heartbeat_ms"),
    CheckConstraint("state IN ('live', 'closed')", name="worker_state"),
)

leases: Final = _table(
    "leases",
    _int("account_id"),
    _text("scope"),
    _text("resource"),
    _text("window_name"),
    _text("model", default=""),
    _int("worker_id"),
    _int("window_start_ms", default=0),
    _int("amount"),
    PrimaryKeyConstraint(
        "account_id",
        "scope",
        "resource",
        "window_name",
        "model",
        "worker_id",
        "window_start_ms",
        name="leases_pk",
    ),
    CheckConstraint("amount >= 0", name="lease_amount"),
    Index("leases_worker", "worker_id"),
)

transfers: Final = _table(
    "transfers",
    _int("account_id"),
    _int("id"),
    _int("at_ms"),
    _text("kind"),
    _text("source"),
    _text("target"),
    _int("amount_nanos"),
    _text("note", default=""),
    _text("actor", default=""),
    _text("reference", default=""),
    PrimaryKeyConstraint("account_id", "id", name="transfers_pk"),
    CheckConstraint("amount_nanos > 0", name="transfer_amount"),
    CheckConstraint("source <> target", name="transfer_ends"),
)

usage_events: Final = Table(
    "usage_events",
    metadata,
    _int("account_id"),
    _int("at_ms"),
    _text("event_id"),
    _int("key_id"),
    _int("user_id", null=True),
    _int("project_id", null=True),
    _text("product"),
    _text("endpoint"),
    _text("model"),
    _text("upstream"),
    _text("outcome"),
    _int("is_stream"),
    _int("is_estimated"),
    _int("input_tokens"),
    _int("cached_input_tokens"),
    _int("output_tokens"),
    _int("reasoning_tokens"),
    _text("quantities", null=True),
    _int("price_id"),
    _int("cost_nanos"),
    _int("overrun_nanos", default=0),
    _int("duration_ms"),
    _int("first_byte_ms"),
    _text("labels", null=True),
    _int("worker_id"),
    _int("seq"),
    PrimaryKeyConstraint("account_id", "at_ms", "event_id", name="usage_events_pk"),
    CheckConstraint("cost_nanos >= 0 AND overrun_nanos >= 0", name="usage_cost"),
    sqlite_strict=True,
    postgresql_partition_by="RANGE (at_ms)",
)


def _rollup(name: str, moment: str, *indexes: Index) -> Table:
    return _table(
        name,
        _int("account_id"),
        _int(moment),
        _int("key_id"),
        _int("project_id", default=0),
        _int("user_id", default=0),
        _text("model"),
        _text("endpoint"),
        _text("outcome"),
        _int("requests"),
        _int("input_tokens"),
        _int("cached_input_tokens"),
        _int("output_tokens"),
        _int("reasoning_tokens"),
        _int("cost_nanos"),
        _int("overrun_nanos"),
        _int("last_ms", default=0),
        PrimaryKeyConstraint(
            "account_id",
            moment,
            "key_id",
            "project_id",
            "user_id",
            "model",
            "endpoint",
            "outcome",
            name=f"{name}_pk",
        ),
        *indexes,
    )


usage_hourly: Final = _rollup("usage_hourly", "hour_ms")
usage_daily: Final = _rollup(
    "usage_daily", "day_ms", Index("usage_daily_key", "account_id", "key_id", "day_ms")
)

prices: Final = _table(
    "prices",
    Column("id", Int, primary_key=True, autoincrement=False),
    _text("model"),
    _text("product", default=""),
    _text("per_million"),
    _text("per_unit"),
    _text("tiers"),
    _int("is_free", default=0),
    _int("context_window", null=True),
    _int("max_output_tokens", null=True),
    _int("effective_ms"),
    _int("created_ms"),
    _text("source"),
    Index("prices_model", "model", "effective_ms"),
)
