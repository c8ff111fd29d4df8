"""What the Venice dialect answers, as far as the client reads it.

Owns what makes an answer one of the dialect's: another program's is no list without keys and no
balance of nothing. Must not know what the client makes of it.
"""

from typing import Any

from bursar.sdk.results import Moment, Result, SecretText, Usd


class Key(Result):
    """A key; `api_key` is the secret of a new one."""

    id: str
    description: str
    apiKeyType: str  # noqa: N815 - the wire's names
    createdAt: str | int | None = None  # noqa: N815
    lastUsedAt: str | int | None = None  # noqa: N815
    is_active: bool = True
    consumptionLimits: dict[str, Any] | None = None  # noqa: N815
    consumptionLimit: dict[str, Any] | None = None  # noqa: N815
    apiKey: SecretText | None = None  # noqa: N815


class Keys(Result):
    """Every key."""

    data: tuple[Key, ...]


class OneKey(Result):
    """One key."""

    data: Key


class Deletion(Result):
    """Whether a key was deleted."""

    success: bool


class Rate(Result):
    """A limit of a model's calls: `type` is as `RPM`."""

    type: str
    amount: int


class ModelRates(Result):
    """The limits of one model's calls."""

    rateLimits: tuple[Rate, ...]  # noqa: N815


class AllRates(Result):
    """The limits of every model's calls."""

    rateLimits: tuple[ModelRates, ...]  # noqa: N815
    nextEpochBegins: Moment  # noqa: N815


class Rates(Result):
    """What applies to the key that asks."""

    data: AllRates


class ModelTotals(Result):
    """What one model was used for, `cost` in thousandths of a USD."""

    requests: int
    tokens: int
    cost: int


class Totals(Result):
    """What was used in a month, in thousandths of a USD."""

    total_usage: int
    current_period: str
    credits_remaining: int
    usage_by_model: dict[str, ModelTotals]
    billing_period_start: str | int | None
    billing_period_end: str | int | None


class History(Result):
    """The totals, or where the server has them turned off the list of what was used."""

    data: Totals | tuple[dict[str, Any], ...]


class Balance(Result):
    """The account's money, in USD."""

    current_balance: Usd
    total_spent: Usd
