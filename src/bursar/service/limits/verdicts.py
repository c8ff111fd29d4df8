"""Verdicts: whether limits would let a request through, and which of them would not.

Owns what follows from the ledger's figures alone: what is left decides for certain, what is leased
only perhaps, since servers return what they have idle. Must not know keys, prices or databases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bursar.core.allowances import Allowance, Resource
from bursar.core.refusals import ORDER, Deny, deny_by_limit, reason_of


@dataclass(frozen=True, slots=True)
class Standing:
    """What one allowance, in its present window, has for a request.

    `needs` is in the allowance's own unit, None where nobody can say; `resets_at_ms` None is never.
    """

    allowance: Allowance
    needs: int | None
    resets_at_ms: int | None
    next_resets_ms: tuple[int, ...] = ()

    @property
    def would_refuse(self) -> bool:
        """Whether less is left than the request needs."""
        left = self.allowance.left
        return left is not None and self.needs is not None and self.needs > left

    @property
    def is_held(self) -> bool:
        """Whether enough is left, but only with what is leased for other requests."""
        free = self.allowance.free
        is_short = free is not None and self.needs is not None and self.needs > free
        return is_short and not self.would_refuse


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer that a request would get: None lets it through.

    It is not certain where it depends on what other requests hold, or on what was not told.
    """

    refusal: Deny | None
    is_certain: bool = True


def judge(standings: Sequence[Standing], *, now_ms: int) -> Verdict:
    """Return what limits say to a request: of those that refuse, the one that admission names."""
    refusing = [each for each in standings if each.would_refuse]
    if not refusing:
        return Verdict(None, is_certain=not any(each.is_held for each in standings))
    first = min(refusing, key=lambda each: (_precedence(each), each.allowance.ref))
    allowance = first.allowance
    refusal = deny_by_limit(
        allowance.ref,
        limit=allowance.limit,
        left=allowance.left or 0,
        needed=first.needs or 0,
        resets_at_ms=first.resets_at_ms,
        now_ms=now_ms,
    )
    return Verdict(refusal)


def affordable_requests(standings: Sequence[Standing]) -> int | None:
    """Return how many such requests, one after the other, the present windows pay for in full.

    None where no limit ends them. Calls at once limit how many run, not how many there are.
    """
    counts = [
        each.allowance.left // each.needs
        for each in standings
        if each.needs
        and each.allowance.left is not None
        and each.allowance.ref.resource != Resource.CONCURRENCY
    ]
    if any(each.would_refuse for each in standings):
        return 0
    return min(counts, default=None)


def left_nanos(standings: Sequence[Standing]) -> int:
    """Return what the tightest limit of cost has left; 0 where there is none."""
    left = [s.allowance.left for s in standings if s.allowance.ref.resource == Resource.COST]
    return min((nanos for nanos in left if nanos is not None), default=0)


def _precedence(standing: Standing) -> int:
    allowance = standing.allowance
    reason = reason_of(allowance.ref.resource, needed=standing.needs or 0, left=allowance.left or 0)
    return ORDER[reason]
