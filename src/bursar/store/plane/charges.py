"""The record of one charge, as it stands in a journal and travels to the ledger.

Owns the layout. Must not know how a charge came about. Encoded as an array: fields may be added at
the end, with a default, and never move, because a journal may be read by a newer program.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec


class Move(NamedTuple):
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


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Charge]).decode


def pack(charges: Sequence[Charge]) -> bytes:
    """The charges in a quarter of the memory that they take as objects."""
    return _encode(charges)


def unpack(packed: bytes) -> list[Charge]:
    """The charges that `pack` was given."""
    return _decode(packed)


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
    # The first six columns of a move, behind its account, are its key; plain tuples and lists
    # here, because this runs for every charge.
    sums: dict[tuple[int | str, ...], list[int]] = {}
    for charge in charges:
        account_id = charge.account_id
        for move in charge.moves:
            key = (account_id, *move[:5])
            found = sums.get(key)
            if found is None:
                sums[key] = [move[5], move[6]]
            else:
                found[0] += move[5]
                found[1] += move[6]
    return {MoveKey._make(key): (leased, used) for key, (leased, used) in sorted(sums.items())}
