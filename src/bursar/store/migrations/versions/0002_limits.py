"""Limits, keys and projects: plans, budgets that only warn, what a key may reach, refusals.

Only adds: every row of the first schema keeps its meaning. A key that was there may reach whatever
it could, every account has the plan without limits, and every allowance is the account's own.
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"

_INT: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_COUNTERS: Final = ("projects", "plans", "alerts")


def upgrade() -> None:
    """Add columns, tables and the plan of those who have no other."""
    _extend_keys()
    _extend_allowances()
    for name in ("usage_hourly", "usage_daily"):
        op.add_column(name, _int("last_ms", default=0))
    op.create_index("usage_daily_key", "usage_daily", ["account_id", "key_id", "day_ms"])
    _make_projects()
    _make_plans()
    _make_limit_log()
    _make_alerts()
    counters = sa.table("counters", sa.column("name", sa.Text), sa.column("value", _INT))
    # The plan below has taken the first number.
    values = [{"name": name, "value": int(name == "plans")} for name in _COUNTERS]
    op.bulk_insert(counters, values)


def _extend_keys() -> None:
    for column in (
        _int("project_id", null=True),
        _text("environment", default="live"),
        _text("description", default=""),
        _text("labels", null=True),
        _text("label_names", null=True),
        _text("models", null=True),
        _text("endpoints", null=True),
        _text("networks", null=True),
        sa.Column("previous_hash", sa.LargeBinary, nullable=True),
        _int("previous_until_ms", null=True),
        _int("rotated_ms", null=True),
        _int("leaked_ms", null=True),
    ):
        op.add_column("keys", column)
    op.create_index("keys_previous_hash", "keys", ["previous_hash"])
    op.create_index("keys_project", "keys", ["account_id", "project_id"])


def _extend_allowances() -> None:
    for column in (
        _int("soft_amount", null=True),
        _text("origin", default="own"),
        _int("created_ms", default=0),
    ):
        op.add_column("allowances", column)
    is_soft = sa.text("soft_amount IS NOT NULL")
    op.create_index(
        "allowances_soft",
        "allowances",
        ["account_id"],
        sqlite_where=is_soft,
        postgresql_where=is_soft,
    )


def _make_projects() -> None:
    _table(
        "projects",
        _int("account_id"),
        _int("id"),
        _text("name"),
        _text("description", default=""),
        _text("labels", null=True),
        _int("created_ms"),
        _int("deleted_ms", null=True),
        sa.PrimaryKeyConstraint("account_id", "id", name="projects_pk"),
    )
    _table(
        "project_members",
        _int("account_id"),
        _int("project_id"),
        _int("user_id"),
        _int("created_ms"),
        sa.PrimaryKeyConstraint("account_id", "project_id", "user_id", name="project_members_pk"),
    )


def _make_plans() -> None:
    plans = _table(
        "plans",
        sa.Column("id", _INT, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        _int("created_ms"),
    )
    _table(
        "plan_limits",
        _int("plan_id"),
        _text("scope_kind"),
        _text("resource"),
        _text("window_name"),
        _text("model", default=""),
        _int("default_amount", null=True),
        _int("most_amount", null=True),
        sa.PrimaryKeyConstraint(
            "plan_id", "scope_kind", "resource", "window_name", "model", name="plan_limits_pk"
        ),
    )
    op.bulk_insert(plans, [{"id": 1, "name": "default", "created_ms": 0}])
    op.add_column("accounts", _int("plan_id", default=1))


def _make_limit_log() -> None:
    _table(
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
        sa.PrimaryKeyConstraint("account_id", "at_ms", "allowance", name="limit_log_pk"),
    )
    op.create_index("limit_log_at", "limit_log", ["at_ms"])


def _make_alerts() -> None:
    _table(
        "alerts",
        _int("account_id"),
        _int("id"),
        _int("at_ms"),
        _text("kind"),
        _text("subject"),
        _int("occurrence_ms"),
        _text("body"),
        sa.PrimaryKeyConstraint("account_id", "id", name="alerts_pk"),
    )
    occurrence = ["account_id", "kind", "subject", "occurrence_ms"]
    op.create_index("alerts_occurrence", "alerts", occurrence, unique=True)


def _int(name: str, *, null: bool = False, default: int | None = None) -> sa.Column[int]:
    server_default = None if default is None else str(default)
    return sa.Column(name, _INT, nullable=null, server_default=server_default)


def _text(name: str, *, null: bool = False, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null, server_default=default)


def _table(name: str, *items: sa.schema.SchemaItem) -> sa.Table:
    return op.create_table(name, *items, sqlite_strict=True)
