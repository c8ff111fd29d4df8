"""The first schema: who may call, what they may spend, what they spent.

Written out, not derived from `tables.metadata`: a migration says what it did on the day it was
made, whatever the tables become later. A test compares the two.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

_INT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_COUNTERS: Final = ("accounts", "users", "keys", "transfers", "prices", "workers", "changes")
_APPEND_ONLY: Final = ("transfers", "usage_events")


def upgrade() -> None:
    """Make every table, the counters' rows and the guards of what is never changed."""
    _make_people()
    _make_keys()
    _make_allowances()
    _make_ledger()
    _make_usage()
    _make_rollup("usage_hourly", "hour_ms")
    _make_rollup("usage_daily", "day_ms")
    _make_prices()
    _make_plumbing()
    if op.get_context().dialect.name == "postgresql":
        _guard_postgresql()
    else:
        _guard_sqlite()


def _make_people() -> None:
    _table(
        "accounts",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
        _text("name"),
        _text("status"),
        _text("time_zone"),
        _int("created_ms"),
        sa.CheckConstraint("status IN ('active', 'suspended', 'cancelled')", name="account_status"),
    )
    _table(
        "users",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
        sa.Column("email", sa.Text, nullable=False, unique=True),
        _text("name"),
        _text("password_hash"),
        _int("created_ms"),
    )
    _table(
        "members",
        _int("account_id"),
        _int("user_id"),
        _text("role"),
        _int("created_ms"),
        sa.PrimaryKeyConstraint("account_id", "user_id", name="members_pk"),
        sa.CheckConstraint("role IN ('owner', 'admin', 'member', 'viewer')", name="member_role"),
    )


def _make_keys() -> None:
    _table(
        "keys",
        _int("account_id"),
        _int("id"),
        _int("user_id", null=True),
        _text("kind"),
        _text("name"),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        _text("prefix"),
        _text("last6"),
        _int("is_enabled", default=1),
        _int("created_ms"),
        _int("expires_ms", null=True),
        _int("deleted_ms", null=True),
        sa.PrimaryKeyConstraint("account_id", "id", name="keys_pk"),
    )
    op.create_index("keys_secret_hash", "keys", ["secret_hash"])


def _make_allowances() -> None:
    allowance = ("account_id", "scope", "resource", "window_name", "model")
    _table(
        "allowances",
        *_allowance_columns(),
        _int("limit_amount", null=True),
        _int("used", default=0),
        _int("leased", default=0),
        _int("window_start_ms", default=0),
        sa.PrimaryKeyConstraint(*allowance, name="allowances_pk"),
        sa.CheckConstraint("used >= 0", name="allowance_used"),
        sa.CheckConstraint("leased >= 0", name="allowance_leased"),
        sa.CheckConstraint("limit_amount IS NULL OR limit_amount >= 0", name="allowance_limit"),
        sa.CheckConstraint(
            "scope <> 'wallet' OR (limit_amount IS NOT NULL AND used + leased <= limit_amount)",
            name="wallet_covers",
        ),
    )
    _table(
        "workers",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
        _text("state"),
        _text("host"),
        _int("settled_seq", default=0),
        _int("started_ms"),
        _int("heartbeat_ms"),
        sa.CheckConstraint("state IN ('live', 'closed')", name="worker_state"),
    )
    _table(
        "leases",
        *_allowance_columns(),
        _int("worker_id"),
        _int("window_start_ms", default=0),
        _int("amount"),
        sa.PrimaryKeyConstraint(*allowance, "worker_id", "window_start_ms", name="leases_pk"),
        sa.CheckConstraint("amount >= 0", name="lease_amount"),
    )
    op.create_index("leases_worker", "leases", ["worker_id"])


def _make_ledger() -> None:
    _table(
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
        sa.PrimaryKeyConstraint("account_id", "id", name="transfers_pk"),
        sa.CheckConstraint("amount_nanos > 0", name="transfer_amount"),
        sa.CheckConstraint("source <> target", name="transfer_ends"),
    )


def _make_usage() -> None:
    op.create_table(
        "usage_events",
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
        sa.PrimaryKeyConstraint("account_id", "at_ms", "event_id", name="usage_events_pk"),
        sa.CheckConstraint("cost_nanos >= 0 AND overrun_nanos >= 0", name="usage_cost"),
        sqlite_strict=True,
        postgresql_partition_by="RANGE (at_ms)",
    )


def _make_rollup(name: str, moment: str) -> None:
    cell = ("account_id", moment, "key_id", "project_id", "user_id", "model", "endpoint", "outcome")
    _table(
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
        sa.PrimaryKeyConstraint(*cell, name=f"{name}_pk"),
    )


def _make_prices() -> None:
    _table(
        "prices",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
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
    )
    op.create_index("prices_model", "prices", ["model", "effective_ms"])


def _make_plumbing() -> None:
    _table(
        "idempotency",
        _int("account_id"),
        sa.Column("scope_hash", sa.LargeBinary, nullable=False),
        sa.Column("request_hash", sa.LargeBinary, nullable=False),
        _int("status", null=True),
        sa.Column("sealed_body", sa.LargeBinary, nullable=True),
        _int("created_ms"),
        sa.PrimaryKeyConstraint("account_id", "scope_hash", name="idempotency_pk"),
    )
    op.create_index("idempotency_created", "idempotency", ["created_ms"])
    _table(
        "changes",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
        _int("at_ms"),
        _text("topic"),
        _int("account_id"),
        _text("subject"),
    )
    counters = _table(
        "counters",
        sa.Column("name", sa.Text, primary_key=True),
        _int("value"),
    )
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in _COUNTERS])


def _guard_postgresql() -> None:
    # Rows that arrive in a month without a partition of its own still have a place.
    op.execute("CREATE TABLE usage_events_default PARTITION OF usage_events DEFAULT")
    op.execute(
        """
        CREATE FUNCTION bursar_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% rows are never changed or deleted; corrections are new rows',
                TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    for table in _APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION bursar_refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION bursar_refuse_change()"
        )


def _guard_sqlite() -> None:
    for table in _APPEND_ONLY:
        for verb in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb.upper()} ON {table} BEGIN "
                f"SELECT RAISE(ABORT, '{table} rows are never changed or deleted; "
                "corrections are new rows'); END"
            )


def _allowance_columns() -> tuple[sa.Column[int] | sa.Column[str], ...]:
    return (
        _int("account_id"),
        _text("scope"),
        _text("resource"),
        _text("window_name"),
        _text("model", default=""),
    )


def _int(name: str, *, null: bool = False, default: int | None = None) -> sa.Column[int]:
    server_default = None if default is None else str(default)
    return sa.Column(name, _INT, nullable=null, server_default=server_default)


def _text(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null, server_default=default)


def _table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    return op.create_table(name, *items, sqlite_strict=True)
