"""Analytics: what was used in a span of days, by day, model and key, and the largest day by day.

Owns what such a report covers. Days are those of UTC, as the roll-up keeps them. Must not know how
a report is shown.
"""

from dataclasses import dataclass
from typing import TypeVar

from bursar.core import windows
from bursar.core.errors import Invalid
from bursar.core.windows import Window
from bursar.store import keys, usage
from bursar.store.database import ReadTx
from bursar.store.usage import Days, Sum

DAY_MS = 86_400_000
MOST_DAYS = 90
_LARGEST = 8

K = TypeVar("K", int, str)


@dataclass(frozen=True, slots=True)
class Analytics:
    """A report: days from the first, models and keys from the dearest.

    `models_by_day` and `keys_by_day` are what the (at most eight) dearest cost in nano-USD, by the
    day's start and the model or the key's id. `names` has the names of keys.
    """

    by_day: list[tuple[int, Sum]]
    by_model: list[tuple[str, Sum]]
    by_key: list[tuple[int, Sum]]
    models_by_day: dict[tuple[int, str], int]
    keys_by_day: dict[tuple[int, int], int]
    names: dict[int, str]

    @property
    def top_models(self) -> list[str]:
        """The dearest models."""
        return [model for model, _ in self.by_model[:_LARGEST]]

    @property
    def top_keys(self) -> list[int]:
        """The ids of the dearest keys."""
        return [key_id for key_id, _ in self.by_key[:_LARGEST]]


@dataclass(frozen=True, slots=True)
class Totals:
    """What an account used in the calendar month (UTC) between these moments; dearest first."""

    from_ms: int
    to_ms: int
    total: Sum
    by_model: list[tuple[str, Sum]]


async def total_month(tx: ReadTx, *, account_id: int, now_ms: int) -> Totals:
    """Return what the account used in the month of `now_ms` so far."""
    month = windows.bounds(Window.MONTH, now_ms=now_ms)
    sums = await usage.sum_by_model(tx, account_id=account_id, from_ms=month.start_ms)
    parts = list(sums.values())
    total = Sum(
        requests=sum(part.requests for part in parts),
        cost_nanos=sum(part.cost_nanos for part in parts),
        input_tokens=sum(part.input_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
    )
    return Totals(month.start_ms, month.end_ms or month.start_ms, total, _by_cost(sums))


async def analyse(
    tx: ReadTx, *, account_id: int, from_ms: int, to_ms: int, key_id: int | None = None
) -> Analytics:
    """Return what the account, or one key of it, used on the days from `from_ms` up to `to_ms`.

    Raises Invalid (`invalid_range`) for a span that ends before it begins, or of over 90 days.
    """
    if not from_ms <= to_ms <= from_ms + MOST_DAYS * DAY_MS:
        message = f"The span must have at most {MOST_DAYS} days, and not end before it begins."
        raise Invalid("invalid_range", message, param="from")
    days = Days(to_ms, key_id)
    by_day = await usage.sum_by_day(tx, account_id=account_id, from_ms=from_ms, days=days)
    by_model = await usage.sum_by_model(tx, account_id=account_id, from_ms=from_ms, days=days)
    by_key = await usage.sum_by_key(tx, account_id=account_id, from_ms=from_ms, days=days)
    # What was used without a key has the id 0 in roll-ups.
    by_key.pop(0, None)
    models, key_rows = _by_cost(by_model), _by_cost(by_key)
    return Analytics(
        by_day=sorted(by_day.items()),
        by_model=models,
        by_key=key_rows,
        models_by_day=await usage.cost_of_models_by_day(
            tx,
            account_id=account_id,
            from_ms=from_ms,
            days=days,
            models=[model for model, _ in models[:_LARGEST]],
        ),
        keys_by_day=await usage.cost_of_keys_by_day(
            tx,
            account_id=account_id,
            from_ms=from_ms,
            days=days,
            key_ids=[key for key, _ in key_rows[:_LARGEST]],
        ),
        names=await keys.list_names(tx, account_id=account_id),
    )


def _by_cost(sums: dict[K, Sum]) -> list[tuple[K, Sum]]:
    return sorted(sums.items(), key=lambda item: (-item[1].cost_nanos, item[0]))
