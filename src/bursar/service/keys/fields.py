"""What people may set on a key: each field's rule, and what a caller may pass on.

Owns the step from what was given to what is stored. Must not know secrets or limits.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, cast

from bursar.core import permissions, text
from bursar.core.errors import Forbidden, Invalid, NotFound
from bursar.core.permissions import ENDPOINTS, MOST_LABELS, Environment, Rights
from bursar.service.access import Principal
from bursar.store.database import WriteTx
from bursar.store.keys import KeyRow, KeyValues, encode_list
from bursar.store.tenants import projects, users

_MAX_LIFETIME_MS: Final = 100 * 365 * 86_400_000
_DESCRIPTION_LENGTH: Final = 1_000
_MOST_ITEMS: Final = 100
# Who may do things for others; everybody else only for themselves.
_TRUSTED_ROLES: Final = frozenset(("owner", "admin"))


class Unchanged(Enum):
    """The value of a field that a change leaves alone, where None means something else."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySettings:
    """What a key may reach and how its calls are told apart; None is no restriction.

    `models` are patterns, `networks` addresses or networks. `labels` go with every call, and
    `label_names` are those that a caller may add (None: none).
    """

    project_id: int | None = None
    environment: str = Environment.LIVE
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    label_names: Sequence[str] | None = None
    models: Sequence[str] | None = None
    endpoints: Sequence[str] | None = None
    networks: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """What to change of a key: None leaves a name or a state alone, and lifts everything else.

    `credit_limit_nanos` is not below 0. A key's environment and user never change.
    """

    name: str | None = None
    description: str | None = None
    is_enabled: bool | None = None
    credit_limit_nanos: int | Unchanged | None = UNCHANGED
    expires_ms: int | Unchanged | None = UNCHANGED
    project_id: int | Unchanged | None = UNCHANGED
    labels: Mapping[str, str] | Unchanged | None = UNCHANGED
    label_names: Sequence[str] | Unchanged | None = UNCHANGED
    models: Sequence[str] | Unchanged | None = UNCHANGED
    endpoints: Sequence[str] | Unchanged | None = UNCHANGED
    networks: Sequence[str] | Unchanged | None = UNCHANGED


def new_values(
    *, name: str, expires_ms: int | None, settings: KeySettings, now_ms: int
) -> KeyValues:
    """Return the columns of a key to make; raises Invalid for the field at fault."""
    if settings.environment not in set(Environment):
        message = f"An environment is one of: {', '.join(Environment)}."
        raise Invalid("invalid_value", message, param="environment")
    check_expiry(expires_ms, now_ms=now_ms)
    lists = {column: clean(getattr(settings, column)) for column, clean in _LISTS.items()}
    values = {
        "name": text.clean_name(name),
        "expires_ms": expires_ms,
        "project_id": settings.project_id,
        "environment": settings.environment,
        "description": clean_description(settings.description),
        **lists,
    }
    return cast("KeyValues", values)


def changed_values(change: KeyChange, *, now_ms: int) -> KeyValues:
    """Return the columns that a change replaces; raises Invalid for the field at fault."""
    values: dict[str, Any] = {}
    if change.name is not None:
        values["name"] = text.clean_name(change.name)
    if change.description is not None:
        values["description"] = clean_description(change.description)
    if change.is_enabled is not None:
        values["is_enabled"] = int(change.is_enabled)
    if not isinstance(change.expires_ms, Unchanged):
        check_expiry(change.expires_ms, now_ms=now_ms)
        values["expires_ms"] = change.expires_ms
    if not isinstance(change.project_id, Unchanged):
        values["project_id"] = change.project_id
    for column, clean in _LISTS.items():
        value = getattr(change, column)
        if not isinstance(value, Unchanged):
            values[column] = clean(value)
    return cast("KeyValues", values)


def check_limit(limit_nanos: int | None) -> None:
    """Raise Invalid (`invalid_amount`) for a limit below 0."""
    if limit_nanos is not None and limit_nanos < 0:
        raise Invalid("invalid_amount", "A limit must not be negative.", param="credit_limit")


def check_expiry(expires_ms: int | None, *, now_ms: int) -> None:
    """Raise Invalid (`invalid_expiry`) for a moment that is not ahead, or too far."""
    if expires_ms is not None and not now_ms < expires_ms < now_ms + _MAX_LIFETIME_MS:
        message = "An expiry must be in the future, and less than 100 years away."
        raise Invalid("invalid_expiry", message, param="expires_at")


def clean_description(value: str) -> str:
    """Return a description, which may be empty; raises Invalid as names do."""
    if not value.strip():
        return ""
    return text.clean_name(value, max_len=_DESCRIPTION_LENGTH, param="description")


def rights_of(row: KeyRow) -> Rights:
    """What a key may do."""
    return Rights(
        environment=row.environment,
        project_id=row.project_id,
        models=row.models,
        endpoints=row.endpoints,
        expires_ms=row.expires_ms,
    )


def check_rights(
    by: Principal | None, given: Rights, *, only: Collection[str] | None = None
) -> None:
    """Raise Forbidden (`exceeds_own_rights`) where a key would get more than its maker has.

    In these fields, or in any. Nobody (`by` None) is the operator, who has everything.
    """
    excess = None if by is None else permissions.find_excess(by.rights, given, only=only)
    if excess is not None:
        raise exceeds(excess)


async def check_user(
    tx: WriteTx, *, account_id: int, by: Principal | None, user_id: int | None
) -> None:
    """Require that the user is the account's, and the caller's to make a key for.

    Owners and admins make keys for any member and for nobody in particular, everybody else for
    themselves. Raises NotFound, and Forbidden (`exceeds_own_rights`).
    """
    if by is not None and user_id == by.user_id:
        return
    if user_id is not None:
        if await users.find_role(tx, account_id=account_id, user_id=user_id) is None:
            raise _unknown("user_id")
    if not await is_trusted(tx, account_id=account_id, by=by):
        raise exceeds("user_id")


async def check_project(
    tx: WriteTx, *, account_id: int, by: Principal | None, project_id: int | None
) -> None:
    """Require that the project is the account's, and the caller's to put a key into.

    Owners and admins do so with any project, everybody else with those that they belong to. Raises
    NotFound, and Forbidden (`exceeds_own_rights`).
    """
    if project_id is None:
        return
    if not await projects.lock_project(tx, account_id=account_id, project_id=project_id):
        raise _unknown("project_id")
    if await is_trusted(tx, account_id=account_id, by=by):
        return
    user_id = 0 if by is None or by.user_id is None else by.user_id
    if not await projects.is_member(
        tx, account_id=account_id, project_id=project_id, user_id=user_id
    ):
        raise exceeds("project_id")


async def require_own(tx: WriteTx, *, by: Principal | None, row: KeyRow) -> None:
    """Require that the key is the caller's, or the caller one who may do things for others.

    Raises Forbidden (`insufficient_role`).
    """
    if by is not None and by.user_id is not None and row.user_id == by.user_id:
        return
    if not await is_trusted(tx, account_id=row.account_id, by=by):
        message = "Your role in this account allows this for your own keys only."
        raise Forbidden("insufficient_role", message)


async def is_trusted(tx: WriteTx, *, account_id: int, by: Principal | None) -> bool:
    """Whether the caller may do things for others: owners, admins, and keys that act for nobody."""
    if by is None or by.user_id is None:
        return True
    role = await users.find_role(tx, account_id=account_id, user_id=by.user_id)
    return role in _TRUSTED_ROLES


def exceeds(param: str) -> Forbidden:
    """The refusal of giving a key more than its maker has."""
    message = "A key cannot be given more than the key that asks for it has."
    return Forbidden("exceeds_own_rights", message, param=param)


def _unknown(param: str) -> NotFound:
    return NotFound("not_found", "There is nothing here, or it is not yours.", param=param)


def _labels(value: Mapping[str, str] | None) -> str | None:
    return permissions.encode_labels(permissions.clean_labels(value)) if value else None


def _label_names(value: Sequence[str] | None) -> str | None:
    if not value:
        return None
    if len(value) > MOST_LABELS:
        raise Invalid("invalid_label", f"At most {MOST_LABELS} labels.", param="label_names")
    names = [permissions.clean_label_name(name, param="label_names") for name in value]
    return encode_list(list(dict.fromkeys(names)))


def _list(clean: Callable[[str], str], param: str, most: int) -> Callable[..., str | None]:
    def encode(value: Sequence[str] | None) -> str | None:
        if value is None:
            return None
        if not 1 <= len(value) <= most:
            # An empty list means everything to some and nothing to others.
            message = f"Give 1 to {most} of them, or null for no restriction."
            raise Invalid("invalid_value", message, param=param)
        return encode_list(list(dict.fromkeys(clean(item) for item in value)))

    return encode


_LISTS: Final[Mapping[str, Callable[..., str | None]]] = {
    "labels": _labels,
    "label_names": _label_names,
    "models": _list(permissions.clean_pattern, "models", _MOST_ITEMS),
    "endpoints": _list(permissions.clean_endpoint, "endpoints", len(ENDPOINTS)),
    "networks": _list(permissions.clean_network, "networks", _MOST_ITEMS),
}
