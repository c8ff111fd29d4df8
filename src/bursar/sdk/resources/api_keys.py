"""API keys: those of your account, and the one that you call with."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal, NotRequired, TypeAlias, TypedDict

from bursar.sdk import results, values
from bursar.sdk.calls import Call, Page, nothing
from bursar.sdk.faces import AsyncResource, Resource, awaited, awaited_pages, sync, sync_pages
from bursar.sdk.resources.limits import Limit
from bursar.sdk.results import Listing, Moment, Result, SecretText, Usd
from bursar.sdk.values import UNSET, Unset, UsdIn

Environment: TypeAlias = Literal["live", "test"]
_KEYS = "/v1/account/keys"


class NewKey(TypedDict):
    """A key to make, as `create` takes it; `credit_limit` is in USD."""

    name: str
    credit_limit: NotRequired[UsdIn | None]
    expires_at: NotRequired[datetime | None]
    user_id: NotRequired[int | None]
    project_id: NotRequired[int | None]
    environment: NotRequired[Environment | None]
    description: NotRequired[str | None]
    labels: NotRequired[Mapping[str, str] | None]
    label_names: NotRequired[Sequence[str] | None]
    models: NotRequired[Sequence[str] | None]
    endpoints: NotRequired[Sequence[str] | None]
    networks: NotRequired[Sequence[str] | None]


class ApiKey(Result):
    """A key; `credit_limit` is in USD over its lifetime, None is unlimited.

    For `models` (patterns), `endpoints` and `networks` None is no restriction. `hint` is the
    beginning and the end of its secret. `spent_7_days` is what it spent today and in the six days
    before, in UTC; `limits` are its own, each with what is used in its present window.
    """

    id: int
    name: str
    created_at: Moment
    expires_at: Moment | None
    is_enabled: bool
    credit_limit: Usd | None
    user_id: int | None = None
    project_id: int | None = None
    environment: str = "live"
    description: str = ""
    hint: str | None = None
    labels: dict[str, str] = results.Field(default_factory=dict)
    label_names: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None
    endpoints: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None
    rotated_at: Moment | None = None
    previous_secret_until: Moment | None = None
    leaked_at: Moment | None = None
    last_used_at: Moment | None = None
    spent_7_days: Usd | None = None
    limits: tuple[Limit, ...] = ()


class NewApiKey(ApiKey):
    """A key that was just made or rotated. `key` is its secret, which is shown this once."""

    key: SecretText
    message: str


class OwnApiKey(Result):
    """The key that you call with, as it sees itself."""

    id: int
    name: str
    created_at: Moment
    expires_at: Moment | None
    limits: tuple[Limit, ...]


def _list(
    *,
    q: str | None = None,
    project_id: int | None = None,
    user_id: int | None = None,
    environment: Environment | None = None,
    is_enabled: bool | None = None,
    label: str | None = None,
    page_size: int | None = None,
) -> Call[Page[ApiKey]]:
    """Your account's keys, oldest first; `q` is searched for in names, `label` is `name=value`."""
    query = {
        "q": q,
        "project_id": project_id,
        "user_id": user_id,
        "environment": environment,
        "is_enabled": is_enabled,
        "label": label,
        "limit": page_size,
    }
    return Call("GET", _KEYS, results.read_page(ApiKey, "keys"), query)


def fields_of_new(
    name: str,
    *,
    credit_limit: UsdIn | None = None,
    expires_at: datetime | None = None,
    user_id: int | Unset | None = UNSET,
    project_id: int | None = None,
    environment: Environment | None = None,
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
    label_names: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    endpoints: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
) -> dict[str, object]:
    """Return what is sent of a key to make; raises InvalidArgument."""
    return values.given(user_id=user_id) | values.some(
        name=name,
        credit_limit=values.usd(credit_limit),
        expires_at=values.moment(expires_at),
        project_id=project_id,
        environment=environment,
        description=description,
        labels=labels,
        label_names=label_names,
        models=models,
        endpoints=endpoints,
        networks=networks,
    )


def _create(
    name: str,
    *,
    credit_limit: UsdIn | None = None,
    expires_at: datetime | None = None,
    user_id: int | Unset | None = UNSET,
    project_id: int | None = None,
    environment: Environment | None = None,
    description: str | None = None,
    labels: Mapping[str, str] | None = None,
    label_names: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    endpoints: Sequence[str] | None = None,
    networks: Sequence[str] | None = None,
    idempotency_key: str | None = None,
) -> Call[NewApiKey]:
    """Make a key; its secret is in the answer's `key` and nowhere else.

    `credit_limit` is in USD. `models` are patterns of what it may call, `networks` where it may
    call from, `labels` go on its charges, `label_names` are those that a call may add.
    """
    body = fields_of_new(
        name,
        credit_limit=credit_limit,
        expires_at=expires_at,
        user_id=user_id,
        project_id=project_id,
        environment=environment,
        description=description,
        labels=labels,
        label_names=label_names,
        models=models,
        endpoints=endpoints,
        networks=networks,
    )
    return _post(_KEYS, body, idempotency_key)


def _create_many(
    keys: Sequence[NewKey], *, idempotency_key: str | None = None
) -> Call[Listing[NewApiKey]]:
    """Make up to 100 keys, all or none: each the fields that `create` takes."""
    made = [fields_of_new(**key) for key in keys]
    return Call(
        "POST",
        f"{_KEYS}/bulk",
        results.read_list(NewApiKey, "keys"),
        body={"keys": made},
        is_kept=True,
        idempotency_key=idempotency_key,
    )


def _get(key_id: int) -> Call[ApiKey]:
    """One key; raises NotFound."""
    return Call("GET", values.path(_KEYS, key_id), results.read(ApiKey))


def _update(
    key_id: int,
    *,
    name: str | Unset = UNSET,
    is_enabled: bool | Unset = UNSET,
    description: str | Unset = UNSET,
    credit_limit: UsdIn | Unset | None = UNSET,
    expires_at: datetime | Unset | None = UNSET,
    project_id: int | Unset | None = UNSET,
    labels: Mapping[str, str] | Unset | None = UNSET,
    label_names: Sequence[str] | Unset | None = UNSET,
    models: Sequence[str] | Unset | None = UNSET,
    endpoints: Sequence[str] | Unset | None = UNSET,
    networks: Sequence[str] | Unset | None = UNSET,
) -> Call[ApiKey]:
    """Change a key: what is not given stays, None lifts a limit, an expiry or a restriction."""
    body = values.given(
        name=name,
        is_enabled=is_enabled,
        description=description,
        credit_limit=values.usd(credit_limit),
        expires_at=values.moment(expires_at),
        project_id=project_id,
        labels=labels,
        label_names=label_names,
        models=models,
        endpoints=endpoints,
        networks=networks,
    )
    return Call("PATCH", values.path(_KEYS, key_id), results.read(ApiKey), body=body)


def _rotate(
    key_id: int, *, grace_s: int | None = None, idempotency_key: str | None = None
) -> Call[NewApiKey]:
    """Give a key another secret; the present one works for `grace_s` seconds more (a day)."""
    path = f"{values.path(_KEYS, key_id)}/rotate"
    return _post(path, values.some(grace_s=grace_s), idempotency_key)


def _delete(key_id: int) -> Call[None]:
    """Delete a key for good; raises NotFound."""
    return Call("DELETE", values.path(_KEYS, key_id), nothing)


def _current() -> Call[OwnApiKey]:
    """The key that you call with, and its limits; for inference keys."""
    return Call("GET", "/v1/key", results.read(OwnApiKey))


def _post(path: str, body: dict[str, object], key: str | None) -> Call[NewApiKey]:
    read = results.read(NewApiKey)
    return Call("POST", path, read, body=body, is_kept=True, idempotency_key=key)


class ApiKeys(Resource):
    """API keys."""

    list: Final = sync_pages(_list)
    create: Final = sync(_create)
    create_many: Final = sync(_create_many)
    get: Final = sync(_get)
    update: Final = sync(_update)
    rotate: Final = sync(_rotate)
    delete: Final = sync(_delete)
    current: Final = sync(_current)


class AsyncApiKeys(AsyncResource):
    """API keys."""

    list: Final = awaited_pages(_list)
    create: Final = awaited(_create)
    create_many: Final = awaited(_create_many)
    get: Final = awaited(_get)
    update: Final = awaited(_update)
    rotate: Final = awaited(_rotate)
    delete: Final = awaited(_delete)
    current: Final = awaited(_current)
