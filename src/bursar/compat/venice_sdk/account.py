"""Summaries of an account."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from bursar.compat.venice_sdk.api_keys import APIKeysAPI, RateLimits
from bursar.compat.venice_sdk.billing import BillingAPI
from bursar.compat.venice_sdk.errors import UnauthorizedError

_NEAR: Final = 90


class AccountManager:
    """What a key may see of its account, put together."""

    def __init__(self, api_keys: APIKeysAPI, billing: BillingAPI) -> None:
        self._api_keys = api_keys
        self._billing = billing

    def get_account_summary(self) -> dict[str, Any]:
        """Keys, usage and rate limits; what it takes an admin key for is left out for others."""
        parts: dict[str, Callable[[], Any]] = {
            "api_keys": lambda: [_without_secret(asdict(key)) for key in self._api_keys.list()],
            "usage": lambda: asdict(self._billing.get_usage()),
            "rate_limits": lambda: asdict(self._api_keys.get_rate_limits()),
        }
        found: dict[str, Any] = {}
        refused: UnauthorizedError | None = None
        for name, ask in parts.items():
            try:
                found[name] = ask()
            except UnauthorizedError as error:
                refused = error
        if not found and refused is not None:
            raise refused
        return found

    def check_rate_limit_status(self) -> dict[str, Any]:
        """How near the limits of rate are: `status` is ok, near_limit or exceeded."""
        limits = self._api_keys.get_rate_limits()
        shares = {name: _share(limits, name, used) for name, used in limits.current_usage.items()}
        highest = max(shares, key=lambda name: shares[name], default=None)
        status, message = "ok", "All limits have room."
        if highest is not None and shares[highest] >= _NEAR:
            status = "exceeded" if shares[highest] >= 100 else "near_limit"
            message = f"{highest} is used to {shares[highest]} %."
        return {
            "status": status,
            "message": message,
            "current_usage": limits.current_usage,
            "limits": {
                name: value for name, value in asdict(limits).items() if name.endswith(_SPANS)
            },
        }


_SPANS: Final = ("_per_minute", "_per_hour", "_per_day")


def _share(limits: RateLimits, name: str, used: int) -> int:
    """How much is used, in per cent; of a window that Venice does not have, nothing."""
    limit = getattr(limits, name, None)
    if limit is None:
        return 0
    return 100 * used // limit if limit else 100


def _without_secret(key: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != "api_key"}
