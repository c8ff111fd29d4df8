"""The record of one charge, as it stands in a journal and travels to the ledger.

Owns the layout. Must not know how a charge came about. Encoded as an array: fields may be added at
the end, with a default, and never move, because a journal may be read by a newer program.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec


class Move(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one charge does to one allowance.

    `from_lease` leaves the worker's lease, `used` is added to what the window has used. They differ
    where the allowance is unlimited (nothing was leased) or an estimate is corrected (tokens).
    """

    scope: str
    resource: str
    window: str
    model: str
    window_start_ms: int
    from_lease: int
    used: int


class Charge(msgspec.Struct, array_like=True, gc=False):
    """What happened in one request and what it costs.

    `cost_nanos` is covered by leases already; `excess_nanos` is what the upstream reported beyond
    the hold, charged as far as the allowances go when the charge is settled.
    """

    seq: int
    event_id: str
    at_ms: int
    account_id: int
    key_id: int
    user_id: int | None
    project_id: int | None
    product: str
    endpoint: str
    model: str
    upstream: str
    outcome: str
    is_stream: int
    is_estimated: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    quantities: str | None
    price_id: int
    cost_nanos: int
    excess_nanos: int
    duration_ms: int
    first_byte_ms: int
    labels: str | None
    moves: list[Move]


class MoveKey(NamedTuple):
    """Which allowance's window a sum of moves belongs to; sorts in the order of locking."""

    account_id: int
    scope: str
    resource: str
    window: str
    model: str
    window_start_ms: int


def sum_moves(charges: Iterable[Charge]) -> dict[MoveKey, tuple[int, int]]:
    """The charges' moves, summed by allowance and window, in the order of locking."""
    sums: dict[MoveKey, tuple[int, int]] = {}
    for charge in charges:
        account_id = charge.account_id
        for move in charge.moves:
            key = MoveKey(
                account_id,
                move.scope,
                move.resource,
                move.window,
                move.model,
                move.window_start_ms,
            )
            leased, used = sums.get(key, (0, 0))
            sums[key] = (leased + move.from_lease, used + move.used)
    return dict(sorted(sums.items()))
