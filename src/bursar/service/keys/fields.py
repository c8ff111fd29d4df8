"""What people may set on a key: each field's rule.

Owns the step from what was given to what is stored. Must not know secrets, limits, nor who asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, cast

from bursar.core import permissions, text
from bursar.core.errors import Invalid
from bursar.core.permissions import ENDPOINTS, MOST_LABELS, Environment
from bursar.store.keys import KeyValues, encode_list

_MAX_LIFETIME_MS: Final = 100 * 365 * 86_400_000
_DESCRIPTION_LENGTH: Final = 1_000
_MOST_ITEMS: Final = 100


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
