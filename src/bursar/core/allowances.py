"""Allowances: how much of one resource one scope may use in one window.

Owns the rules of taking, settling and giving back as pure steps on one row; the store's
statements do the same in SQL and are tested against this model. Must not know databases,
workers or time beyond the start of a window.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from bursar.core.errors import InvariantViolated
from bursar.core.money import MAX_NANOS
from bursar.core.windows import Window

OWN, PLAN = "own", "plan"


class Resource(StrEnum):
    """What an allowance limits: nano-USD, requests, tokens, or calls at once."""

    COST = "cost"
    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True, order=True)
class AllowanceRef:
    """Which allowance: `scope` is "wallet", "account", "project:9", "user:5" or "key:12".

    `model` "" means every model. Refs sort in the order in which rows are locked.
    """

    account_id: int
    scope: str
    resource: str
    window: str
    model: str = ""

    @property
    def name(self) -> str:
        """The public name, unique in its account: "key:12/cost/lifetime" (and "/model")."""
        name = f"{self.scope}/{self.resource}/{self.window}"
        return f"{name}/{self.model}" if self.model else name


@dataclass(frozen=True, slots=True)
class Allowance:
    """One row: `limit` None is unlimited; `used` is settled, `leased` is set aside.

    `soft` is where somebody is told, and nobody refused. `origin` is OWN for what people have set
    and PLAN for a default of the account's plan, whose row is made by its first lease: until then
    it is not `is_stored`.
    """

    ref: AllowanceRef
    limit: int | None
    used: int
    leased: int
    window_start_ms: int
    soft: int | None = None
    origin: str = OWN
    is_stored: bool = True

    @property
    def left(self) -> int | None:
        """What people are shown: limit less used, never below 0; None if unlimited."""
        return None if self.limit is None else max(0, self.limit - self.used)

    @property
    def free(self) -> int | None:
        """What can still be leased: limit less used and leased, never below 0; None likewise."""
        return None if self.limit is None else _free(self)

    @property
    def ceiling(self) -> int | None:
        """What leases are granted up to; None: none are needed, and what is used is only counted.

        Leases are also what a window moves on by, and what a soft limit is noticed by. So what has
        one or the other is leased, without a limit up to all that there can be.
        """
        if self.limit is not None:
            return self.limit
        is_counted = self.soft is None and self.ref.window == Window.LIFETIME
        return None if is_counted else MAX_NANOS


def take(
    a: Allowance, need: int, want: int, *, demand: int = 0, partial: bool = False
) -> tuple[Allowance, int]:
    """Lease at least `need` and at best `want`; return the row after it and the amount.

    `demand` is what waiting requests ask for together: it is granted as far as it is free. A
    lease beyond that is at most an eighth of what is free, so leases shrink towards the end
    and the last unit can be spent. Less free than `need`: 0, or with `partial` all of it.
    """
    _require(need >= 0 and want >= 0 and demand >= 0, a, "a lease cannot be negative")
    free = _free(a)
    if free < need:
        granted = free if partial else 0
    else:
        granted = min(free, max(need, demand, min(want, free // 8)))
    return _checked(replace(a, leased=a.leased + granted)), granted


def settle(a: Allowance, from_lease: int, used: int) -> Allowance:
    """End `from_lease` of a lease with what was truly used.

    Use of tokens may exceed its lease, because those holds are estimates. Cost may exceed it
    only into free allowance: it never lifts used and leased past the limit.
    """
    _require(0 <= from_lease <= a.leased, a, "more is settled than is leased")
    _require(used >= 0, a, "a use cannot be negative")
    after = replace(a, used=a.used + used, leased=a.leased - from_lease)
    if a.ref.resource == Resource.COST and a.limit is not None:
        ceiling = max(a.limit, a.used + a.leased)
        _require(after.used + after.leased <= ceiling, a, "cost would exceed its limit")
    return _checked(after)


def give_back(a: Allowance, amount: int) -> Allowance:
    """Return `amount` of a lease unused."""
    _require(0 <= amount <= a.leased, a, "more is given back than is leased")
    return _checked(replace(a, leased=a.leased - amount))


def roll(a: Allowance, window_start_ms: int) -> Allowance:
    """Enter the window that starts then: nothing used, and old leases count no longer.

    An earlier or the same start changes nothing, so a clock that steps back grants nothing.
    """
    if window_start_ms <= a.window_start_ms:
        return a
    return _checked(replace(a, used=0, leased=0, window_start_ms=window_start_ms))


def with_limit(a: Allowance, limit: int | None) -> Allowance:
    """Change the limit. Below what is used and leased, nothing is granted until it sinks."""
    return _checked(replace(a, limit=limit))


def check(a: Allowance) -> None:
    """Raise InvariantViolated unless every number of the row can be true."""
    _require(a.used >= 0, a, "used is negative")
    _require(a.leased >= 0, a, "leased is negative")
    _require(a.used + a.leased <= MAX_NANOS, a, "the row does not fit its columns")
    _require(a.limit is None or 0 <= a.limit <= MAX_NANOS, a, "the limit is out of range")


def _free(a: Allowance) -> int:
    limit = MAX_NANOS if a.limit is None else a.limit
    return max(0, limit - a.used - a.leased)


def _checked(a: Allowance) -> Allowance:
    check(a)
    return a


def _require(holds: bool, a: Allowance, problem: str) -> None:
    if not holds:
        raise InvariantViolated(
            "invariant_violated", f"Allowance {a.ref.name}: {problem}.", detail=repr(a)
        )
