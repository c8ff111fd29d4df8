"""Keys on the wire: their shapes and fields.

Owns the forms, of which the first six fields of a key are NagaAI's to the letter. Must not know
rules; `service.keys` does.
"""

from typing import Final, Literal

from typing_extensions import TypedDict

from bursar.api.limits import allowances
from bursar.api.limits.allowances import LimitShape
from bursar.core.money import format_usd
from bursar.edge.body import Model
from bursar.edge.fields import (
    IdIn,
    Moment,
    MomentIn,
    Usd,
    UsdNumber,
    UsdNumberIn,
    format_moment,
    usd_number,
)
from bursar.service.keys import DEFAULT_GRACE_S, UNCHANGED, KeyChange, KeySettings, Wanted
from bursar.service.keys.views import KeyView

SHOWN_ONCE: Final = "Store this key securely. It will not be shown again."


class KeyShape(TypedDict):
    """A key; `credit_limit` is in USD over its lifetime, null is unlimited.

    For `models` (patterns), `endpoints` and `networks` null is no restriction. `labels` go with
    each of its calls, `label_names` are those that a call may add. `hint` is the beginning and the
    end of its secret; until `previous_secret_until` the one before the last rotation works too.
    `spent_7_days` is what it spent today and in the six days before, in UTC. `limits` are its own,
    each with what is used in its present window.
    """

    id: int
    name: str
    created_at: Moment
    expires_at: Moment | None
    is_enabled: bool
    credit_limit: UsdNumber
    user_id: int | None
    project_id: int | None
    environment: str
    description: str
    hint: str
    labels: dict[str, str]
    label_names: list[str]
    models: list[str] | None
    endpoints: list[str] | None
    networks: list[str] | None
    rotated_at: Moment | None
    previous_secret_until: Moment | None
    leaked_at: Moment | None
    last_used_at: Moment | None
    spent_7_days: Usd
    limits: list[LimitShape]


class NewKeyShape(KeyShape):
    """A key that was just made or rotated, with its secret."""

    key: str
    message: str


class _PageShape(TypedDict, total=False):
    next_cursor: str | None


class KeyListShape(_PageShape):
    """Keys, oldest first; in pages there is `next_cursor`, which is null on the last one."""

    keys: list[KeyShape]


class NewKeyListShape(TypedDict):
    """Keys that were just made, in the order in which they were asked for."""

    keys: list[NewKeyShape]


class OwnKeyShape(TypedDict):
    """A key as it sees itself."""

    id: int
    name: str
    created_at: Moment
    expires_at: Moment | None
    limits: list[LimitShape]


class NewKeyFields(Model):
    """A key to make; null or absent is unlimited, never expires, or may reach everything.

    Without `user_id` it acts for whom the key that makes it acts for.
    """

    name: str
    credit_limit: UsdNumberIn | None = None
    expires_at: MomentIn | None = None
    user_id: IdIn | None = None
    project_id: IdIn | None = None
    environment: Literal["live", "test"] = "live"
    description: str | None = None
    labels: dict[str, str] | None = None
    label_names: list[str] | None = None
    models: list[str] | None = None
    endpoints: list[str] | None = None
    networks: list[str] | None = None


class AnyNewKeyFields(NewKeyFields):
    """A key to make in any account, of either kind that an account can have."""

    kind: Literal["inference", "provisioning"] = "inference"


class NewKeyListFields(Model):
    """Up to 100 keys to make, all or none."""

    keys: list[NewKeyFields]


class KeyFields(Model):
    """What to change of a key: absent leaves alone, null lifts (but leaves the first three)."""

    name: str | None = None
    description: str | None = None
    is_enabled: bool | None = None
    credit_limit: UsdNumberIn | None = None
    expires_at: MomentIn | None = None
    project_id: IdIn | None = None
    labels: dict[str, str] | None = None
    label_names: list[str] | None = None
    models: list[str] | None = None
    endpoints: list[str] | None = None
    networks: list[str] | None = None


class RotationFields(Model):
    """How long the present secret works beside the new one: 0 seconds to 30 days."""

    grace_s: int = DEFAULT_GRACE_S


def wanted(new: NewKeyFields, *, user_id: int | None) -> Wanted:
    """The key that is asked for; `user_id` is whom it acts for unless it says otherwise."""
    return Wanted(
        name=new.name,
        user_id=new.user_id if "user_id" in new.model_fields_set else user_id,
        credit_limit_nanos=new.credit_limit,
        expires_ms=new.expires_at,
        settings=KeySettings(
            project_id=new.project_id,
            environment=new.environment,
            description=new.description or "",
            labels=new.labels or {},
            label_names=new.label_names,
            models=new.models,
            endpoints=new.endpoints,
            networks=new.networks,
        ),
    )


def change(fields: KeyFields) -> KeyChange:
    """The change that is asked for."""
    given = fields.model_fields_set
    return KeyChange(
        name=fields.name,
        description=fields.description,
        is_enabled=fields.is_enabled,
        credit_limit_nanos=fields.credit_limit if "credit_limit" in given else UNCHANGED,
        expires_ms=fields.expires_at if "expires_at" in given else UNCHANGED,
        project_id=fields.project_id if "project_id" in given else UNCHANGED,
        labels=fields.labels if "labels" in given else UNCHANGED,
        label_names=fields.label_names if "label_names" in given else UNCHANGED,
        models=fields.models if "models" in given else UNCHANGED,
        endpoints=fields.endpoints if "endpoints" in given else UNCHANGED,
        networks=fields.networks if "networks" in given else UNCHANGED,
    )


def shape(view: KeyView) -> KeyShape:
    """A key as JSON has it."""
    row = view.row
    return KeyShape(
        id=row.id,
        name=row.name,
        created_at=format_moment(row.created_ms - row.created_ms % 1000),
        expires_at=_moment(row.expires_ms),
        is_enabled=row.is_enabled,
        credit_limit=usd_number(row.credit_limit_nanos),
        user_id=row.user_id,
        project_id=row.project_id,
        environment=row.environment,
        description=row.description,
        hint=f"{row.prefix}…{row.last6}",
        labels=dict(row.labels),
        label_names=list(row.label_names or ()),
        models=_list(row.models),
        endpoints=_list(row.endpoints),
        networks=_list(row.networks),
        rotated_at=_moment(row.rotated_ms),
        previous_secret_until=_moment(view.previous_until_ms),
        leaked_at=_moment(row.leaked_ms),
        last_used_at=_moment(view.last_used_ms),
        spent_7_days=format_usd(view.spent_nanos),
        limits=[allowances.shape(limit) for limit in view.limits],
    )


def new_shape(view: KeyView, secret: str) -> NewKeyShape:
    """A key with its secret as JSON has it."""
    return NewKeyShape(**shape(view), key=secret, message=SHOWN_ONCE)


def _moment(at_ms: int | None) -> Moment | None:
    return None if at_ms is None else format_moment(at_ms)


def _list(items: tuple[str, ...] | None) -> list[str] | None:
    return None if items is None else list(items)
