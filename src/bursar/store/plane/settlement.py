"""Settlement: a batch of charges becomes usage rows, roll-ups and used allowances, exactly once.

Two ways through. `settle` is the fast one: every charge is covered by its worker's leases, the
batch is a handful of statements. `settle_one` is the careful one, for a single charge whose lease
is gone (the worker was fenced) or too small (the upstream sold more than was held): it charges as
far as the allowances go and books the rest as overrun. Both move the worker's sequence number in
the same transaction. Must not know why a batch is settled, or when.

A booked charge is one as its usage row has it: `cost_nanos` is what was charged, `excess_nanos`
what nobody could be charged for.
"""

from collections.abc import Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import structs
from sqlalchemy import insert

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.errors import InvariantViolated
from bursar.store import counters
from bursar.store.database import POSTGRESQL, WriteTx
from bursar.store.plane import leases, statements, workers
from bursar.store.plane.charges import Charge, Move, sum_moves
from bursar.store.tables import transfers

_encode = msgspec.json.Encoder().encode
# The columns of a usage row on SQLite, behind its worker.
_usage_row: Final = attrgetter(
    "account_id",
    "at_ms",
    "event_id",
    "key_id",
    "user_id",
    "project_id",
    "product",
    "endpoint",
    "model",
    "upstream",
    "outcome",
    "is_stream",
    "is_estimated",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "quantities",
    "price_id",
    "cost_nanos",
    "excess_nanos",
    "duration_ms",
    "first_byte_ms",
    "labels",
    "seq",
)
_Rows = list[tuple[Any, ...]]
COST, LIFETIME = "cost", "lifetime"


class NotCovered(Exception):
    """A charge of the batch is not covered by the worker's leases; settle them one by one."""


class Behind(Exception):
    """The ledger has settled less of this worker than it had acknowledged.

    A standby that took its place had not heard of everything. `settled` is what it knows; None: it
    does not know the worker.
    """

    def __init__(self, settled: int | None) -> None:
        super().__init__(f"the ledger is back at {settled}")
        self.settled = settled


async def settle(tx: WriteTx, *, worker_id: int, charges: Sequence[Charge]) -> bool:
    """Settle charges with consecutive sequence numbers in one transaction.

    Returns False when they had been settled before. Raises NotCovered, with nothing done, when a
    lease does not cover its charges, and Behind, as `settle_one` and `skip` do.
    """
    if any(charge.excess_nanos for charge in charges):
        raise NotCovered("a charge exceeds its hold")
    if not await _advance(tx, worker_id=worker_id, charges=charges):
        return False
    sums = sum_moves(charges)
    moves = [(*key, from_lease, used) for key, (from_lease, used) in sums.items()]
    held = [(worker_id, *move[:7]) for move in moves if move[6]]
    if tx.dialect == POSTGRESQL:
        await leases.lock(tx, refs=sorted({AllowanceRef(*key[:5]) for key in sums}))
        await _write_batch(tx, worker_id, charges, held, moves)
    else:
        _require_covered(await leases.run(tx, statements.SETTLE_LEASES, held), held)
        await leases.run(tx, statements.SETTLE_ALLOWANCES, moves)
        await _insert_usage(tx, worker_id, charges)
    return True


async def record(
    tx: WriteTx, *, worker_id: int, charges: Sequence[Charge], moves: Sequence[tuple[Any, ...]]
) -> None:
    """Write usage rows that no lease pays for, and count `moves` in allowances that are locked."""
    booked = [structs.replace(charge, excess_nanos=0) for charge in charges]
    if tx.dialect == POSTGRESQL:
        await _write_batch(tx, worker_id, booked, [], list(moves))
    else:
        await leases.run(tx, statements.SETTLE_ALLOWANCES, moves)
        await _insert_usage(tx, worker_id, booked)


async def settle_one(tx: WriteTx, *, worker_id: int, charge: Charge) -> tuple[bool, int]:
    """Settle one charge as far as its allowances go.

    Returns whether it was new, and the overrun in nano-USD that nobody could be charged for.
    """
    if not await _advance(tx, worker_id=worker_id, charges=[charge]):
        return False, 0
    rows = await leases.lock(tx, refs=sorted({_ref(charge, move) for move in charge.moves}))
    locked = {row.ref: row for row in rows}
    _require_known(charge, locked)
    held = {move: await _lease(tx, worker_id, charge, move) for move in charge.moves}
    asked = charge.cost_nanos + charge.excess_nanos
    charged = _affordable(charge, locked, held, asked)
    for move in charge.moves:
        used = charged if move.resource == COST else move.used
        await _move_one(tx, worker_id, charge, move, used, min(held[move], move.from_lease, used))
    overrun = asked - charged
    booked = structs.replace(charge, cost_nanos=charged, excess_nanos=overrun)
    await _insert_usage(tx, worker_id, [booked])
    if overrun:
        await _book_overrun(tx, charge, overrun)
    return True, overrun


async def skip(tx: WriteTx, *, worker_id: int, charge: Charge) -> bool:
    """Pass over a charge that was put into quarantine, so that those behind it can be settled."""
    return await _advance(tx, worker_id=worker_id, charges=[charge])


async def _advance(tx: WriteTx, *, worker_id: int, charges: Sequence[Charge]) -> bool:
    first, last = charges[0].seq, charges[-1].seq
    if last - first + 1 != len(charges):
        raise InvariantViolated("sequence_gap", f"charges {first}..{last} have holes")
    if await workers.advance(tx, worker_id=worker_id, settled=first - 1, to=last):
        return True
    worker = await workers.find(tx, worker_id=worker_id)
    settled = None if worker is None else worker.settled_seq
    if settled is None or settled < first - 1:
        raise Behind(settled)
    if settled >= last:
        return False
    raise InvariantViolated(
        "sequence_gap", f"worker {worker_id}: settled {settled}, asked for {first}..{last}"
    )


async def _write_batch(
    tx: WriteTx, worker_id: int, booked: Sequence[Charge], held: _Rows, moves: _Rows
) -> None:
    documents = map(_encode, (booked, held, moves))
    answer: Any = (await tx.driver(statements.SETTLE_BATCH, (*documents, worker_id))).one()
    added, shrunk = answer
    _require_covered(shrunk, held)
    _require_new(added, booked)


def _require_covered(shrunk: int, held: _Rows) -> None:
    if shrunk != len(held):
        raise NotCovered("a lease is smaller than its charges")


def _require_new(added: int, booked: Sequence[Charge]) -> None:
    known = len(booked) - added
    if known:
        raise InvariantViolated("event_id_reused", f"{known} events were there already")


def _require_known(charge: Charge, locked: dict[AllowanceRef, Allowance]) -> None:
    """Refuse what has nobody to pay it: a key, say, that a restored backup does not know yet.

    Any other limit that is not there has nothing to count: it counts from when it is made.
    """
    payers = [move for move in charge.moves if (move.resource, move.window) == (COST, LIFETIME)]
    unknown = [ref.name for move in payers if (ref := _ref(charge, move)) not in locked]
    if unknown:
        raise InvariantViolated("allowance_unknown", f"there is no {', '.join(unknown)}")


async def _move_one(
    tx: WriteTx, worker_id: int, charge: Charge, move: Move, used: int, from_lease: int
) -> None:
    key = (charge.account_id, *_parts(move), move.window_start_ms)
    await leases.run(tx, statements.SETTLE_ALLOWANCES, [(*key, from_lease, used)])
    if from_lease:
        await leases.run(tx, statements.SETTLE_LEASES, [(worker_id, *key, from_lease)])


async def _lease(tx: WriteTx, worker_id: int, charge: Charge, move: Move) -> int:
    text = statements.FIND_LEASE[0 if tx.dialect == POSTGRESQL else 1]
    key = (charge.account_id, *_parts(move), worker_id, move.window_start_ms)
    return int((await tx.driver(text, key)).scalar() or 0)


def _affordable(
    charge: Charge,
    locked: dict[AllowanceRef, Allowance],
    held: dict[Move, int],
    asked: int,
) -> int:
    """The most of `asked` that every cost allowance of the charge can still pay."""
    charged = asked
    for move in charge.moves:
        row = locked.get(_ref(charge, move))
        if move.resource != COST or row is None or row.limit is None:
            continue
        if row.window_start_ms != move.window_start_ms:
            continue
        lease = min(held[move], move.from_lease)
        charged = min(charged, lease + max(0, row.limit - row.used - row.leased))
    return charged


async def _insert_usage(tx: WriteTx, worker_id: int, booked: Sequence[Charge]) -> None:
    if tx.dialect == POSTGRESQL:
        await _write_batch(tx, worker_id, booked, [], [])
        return
    _require_new(await _insert_many(tx, worker_id, booked), booked)
    await tx.driver(statements.ADD_HOURLY, (len(booked),))
    await tx.driver(statements.ADD_DAILY, (len(booked),))


async def _insert_many(tx: WriteTx, worker_id: int, booked: Sequence[Charge]) -> int:
    """Insert rows on SQLite, many at a time; return how many were new."""
    sizes = tuple(statements.INSERT_USAGE)
    added = 0
    for start in range(0, len(booked), sizes[-1]):
        part = booked[start : start + sizes[-1]]
        size = next(size for size in sizes if size >= len(part))
        missing = repeat(None, (size - len(part)) * statements.USAGE_COLUMNS)
        values = (worker_id, *chain.from_iterable(map(_usage_row, part)), *missing)
        added += (await tx.driver(statements.INSERT_USAGE[size], values)).rowcount
    return added


async def _book_overrun(tx: WriteTx, charge: Charge, overrun_nanos: int) -> None:
    await tx.execute(
        insert(transfers).values(
            account_id=charge.account_id,
            id=await counters.advance(tx, name="transfers"),
            at_ms=tx.now_ms,
            kind="overrun",
            source="operator",
            target="overrun",
            amount_nanos=overrun_nanos,
            note="usage beyond what the account could pay",
            actor="settlement",
            reference=charge.event_id,
        )
    )


def _ref(charge: Charge, move: Move) -> AllowanceRef:
    return AllowanceRef(charge.account_id, *_parts(move))


def _parts(move: Move) -> tuple[str, str, str, str]:
    return (move.scope, move.resource, move.window, move.model)
