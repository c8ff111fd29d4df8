"""Keys, and what rate limits say."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from bursar.compat.venice_sdk.errors import APIKeyError, raising
from bursar.compat.venice_sdk.requests import Requests
from bursar.compat.venice_sdk.shapes import Key, Keys, OneKey, Rates
from bursar.sdk.errors import InvalidArgument, NotFound
from bursar.sdk.resources.limits import Limit

# What the dialect says where there is no limit.
UNLIMITED: Final = 2**53 - 1
_INFERENCE: Final = "bsk_"
_LONGEST_LOG: Final = 1_000


@dataclass
class APIKey:
    """A key. `permissions["type"]` is ADMIN or INFERENCE, `api_key` the secret of a new one."""

    id: str
    name: str
    description: str | None = None
    created_at: str | int | None = None
    last_used: str | int | None = None
    is_active: bool = True
    permissions: dict[str, Any] = field(default_factory=dict)
    rate_limits: dict[str, Any] | None = None
    api_key: str | None = field(default=None, repr=False)


@dataclass
class RateLimits:
    """The limits that count every model's calls; without one, it is `UNLIMITED`.

    `current_usage` has what is used of those that are set, by their names here.
    """

    requests_per_minute: int
    requests_per_hour: int
    requests_per_day: int
    tokens_per_minute: int
    tokens_per_hour: int
    tokens_per_day: int
    current_usage: dict[str, int] = field(default_factory=dict)
    reset_time: datetime | None = None
    error_rate_limit: int | None = None


@dataclass
class RateLimitLog:
    """A refusal by a limit; it took no time worth measuring, and no tokens."""

    timestamp: datetime
    endpoint: str
    status_code: int
    response_time: float
    tokens_used: int
    error_type: str | None


Logs: TypeAlias = list[RateLimitLog]


class APIKeysAPI:
    """Keys, for an admin key; and the rate limits of any."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def list(self) -> list[APIKey]:
        """Every key of the account; raises APIKeyError and UnauthorizedError."""
        with raising(APIKeyError):
            return [_key(each) for each in self._requests.get(Keys, "/api_keys").data]

    def get(self, key_id: str) -> APIKey | None:
        """One key, None if there is none of that id."""
        with raising(APIKeyError):
            try:
                return _key(self._requests.get(OneKey, "/api_keys", key_id).data)
            except (InvalidArgument, NotFound):
                return None

    def create(
        self,
        name: str,
        permissions: Iterable[str] | None = None,
        expires_in_days: int | None = None,
    ) -> APIKey:
        """Make a key: an admin one if `admin` is among the permissions; its secret is `api_key`."""
        is_admin = "admin" in {each.lower() for each in permissions or ()}
        body: dict[str, object] = {
            "apiKeyType": "ADMIN" if is_admin else "INFERENCE",
            "description": name,
        }
        if expires_in_days is not None:
            ends = datetime.now(UTC) + timedelta(days=expires_in_days)
            body["expiresAt"] = ends.isoformat(timespec="seconds").replace("+00:00", "Z")
        with raising(APIKeyError):
            return _key(self._requests.post(OneKey, "/api_keys", body).data)

    def delete(self, key_id: str) -> bool:
        """Delete a key: whether there was one."""
        with raising(APIKeyError):
            try:
                return bool(key_id) and self._requests.delete("/api_keys", id=key_id)
            except NotFound:
                return False

    def update(
        self, key_id: str, name: str | None = None, permissions: Iterable[str] | None = None
    ) -> APIKey | None:
        """Raises APIKeyError, as documented; `bursar.Bursar` changes keys."""
        raise APIKeyError(
            f"Updating the key {key_id} is not supported by this client: use "
            "bursar.Bursar().api_keys.update."
        )

    def get_rate_limits(self) -> RateLimits:
        """What applies to the key that asks, whatever the model."""
        with raising(APIKeyError):
            shown = self._requests.get(Rates, "/api_keys/rate_limits").data
            used = self._used()
        most: dict[str, int] = {}
        for model in shown.rateLimits:
            for limit in model.rateLimits:
                # A model's own limit is below what applies to all.
                most[limit.type] = max(most.get(limit.type, 0), limit.amount)
        return RateLimits(
            requests_per_minute=most.get("RPM", UNLIMITED),
            requests_per_hour=most.get("RPH", UNLIMITED),
            requests_per_day=most.get("RPD", UNLIMITED),
            tokens_per_minute=most.get("TPM", UNLIMITED),
            tokens_per_hour=most.get("TPH", UNLIMITED),
            tokens_per_day=most.get("TPD", UNLIMITED),
            current_usage=used,
            reset_time=shown.nextEpochBegins,
        )

    def get_rate_limits_log(self, limit: int | None = None) -> Logs:
        """The last refusals by limits of rate, newest first."""
        most = _LONGEST_LOG if limit is None else limit
        found: list[RateLimitLog] = []
        with raising(APIKeyError):
            for each in self._requests.bursar.limits.log():
                if len(found) >= most:
                    break
                if each.status == 429:
                    kind = f"{each.resource}_per_{each.window}"
                    found.append(RateLimitLog(each.at, each.endpoint, each.status, 0.0, 0, kind))
        return found

    def _used(self) -> dict[str, int]:
        """What is used of limits of requests and tokens, the most where several are alike."""
        bursar = self._requests.bursar
        if (bursar.options.api_key or "").startswith(_INFERENCE):
            limits: Iterable[Limit] = bursar.api_keys.current().limits
        else:
            limits = bursar.limits.list(scope="account")
        found: dict[str, int] = {}
        for limit in limits:
            if limit.resource in ("requests", "tokens") and limit.model is None:
                name = f"{limit.resource}_per_{limit.window}"
                found[name] = max(found.get(name, 0), int(limit.used))
        return found


def _key(shown: Key) -> APIKey:
    return APIKey(
        id=shown.id,
        name=shown.description,
        description=shown.description,
        created_at=shown.createdAt,
        last_used=shown.lastUsedAt,
        is_active=shown.is_active,
        permissions={"type": shown.apiKeyType},
        rate_limits=shown.consumptionLimits or shown.consumptionLimit,
        api_key=shown.apiKey,
    )
