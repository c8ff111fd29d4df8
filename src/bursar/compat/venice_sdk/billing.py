"""Usage and money. Whole numbers of usage and credits are thousandths of a USD."""

from dataclasses import dataclass
from typing import Any

from bursar.compat.venice_sdk.errors import BillingError, raising
from bursar.compat.venice_sdk.requests import Requests
from bursar.compat.venice_sdk.shapes import Balance, History, Totals


@dataclass
class UsageInfo:
    """What the account used in the present calendar month, in UTC."""

    total_usage: int
    current_period: str
    credits_remaining: int
    usage_by_model: dict[str, dict[str, Any]]
    billing_period_start: str | int | None = None
    billing_period_end: str | int | None = None


@dataclass
class ModelUsage:
    """What one model was used for."""

    model_id: str
    requests: int
    tokens: int
    cost: int


class BillingAPI:
    """Usage and money, for an admin key."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def get_usage(self) -> UsageInfo:
        """What was used this month, and what is left; raises BillingError, UnauthorizedError."""
        with raising(BillingError):
            # Without parameters and for any media type it is the totals.
            found = self._requests.get(History, "/billing/usage-history", accept="*/*").data
        if not isinstance(found, Totals):
            raise BillingError("This server has venice_totals turned off: ask for it to be on.")
        return UsageInfo(
            total_usage=found.total_usage,
            current_period=found.current_period,
            credits_remaining=found.credits_remaining,
            usage_by_model={name: used.fields() for name, used in found.usage_by_model.items()},
            billing_period_start=found.billing_period_start,
            billing_period_end=found.billing_period_end,
        )

    def get_usage_by_model(self) -> dict[str, ModelUsage]:
        """What was used this month, by model."""
        return {
            model: ModelUsage(model, used["requests"], used["tokens"], used["cost"])
            for model, used in self.get_usage().usage_by_model.items()
        }

    def get_billing_summary(self) -> dict[str, Any]:
        """The balance and what was spent, in USD, as decimals."""
        with raising(BillingError):
            return self._requests.get(Balance, "/billing/balance").fields()

    def get_credits_remaining(self) -> int:
        """What is left, in thousandths of a USD."""
        return self.get_usage().credits_remaining

    def get_total_usage(self) -> int:
        """What was used this month, in thousandths of a USD."""
        return self.get_usage().total_usage
