"""Metered charges: what was used without being held beforehand, charged in one transaction.

Owns the step from reported use to usage rows and used allowances, exactly once an event id. No
worker leases for it: each charge takes what is free under the locks of its allowances' rows, so
that it can take no more than is left beside all leases. Limits of cost refuse; those of requests
and tokens count what has happened already. The usage rows belong to no worker (`METER`), and are
numbered by none. Must not know prices, or who reports.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import select

from bursar.core import allowances as rules
from bursar.core import permissions, windows
from bursar.core.allowances import Allowance, AllowanceRef, Resource
from bursar.core.errors import InvariantViolated
from bursar.core.windows import Bounds, Window
from bursar.store.database import WriteTx
from bursar.store.metering import events
from bursar.store.plane import leases, settlement, statements
from bursar.store.plane.charges import Charge
from bursar.store.tables import accounts

# The worker of usage rows that no worker has settled.
METER: Final = 0


class Short(NamedTuple):
    """A charge needs more of an allowance than is free; `resets_at_ms` None: it never resets."""

    allowance: Allowance
    needed: int
    resets_at_ms: int | None

    @property
    def is_leased(self) -> bool:
        """Whether there would be enough if nothing were leased."""
        return self.needed <= (self.allowance.left or 0)


class Outcomes(NamedTuple):
    """What became of charges, by their places: those that are new, known before, not covered.

    Nothing became of those behind one that was waited for.
    """

    charged: list[int]
    known: list[int]
    short: list[tuple[int, Short]]


async def charge(
    tx: WriteTx,
    *,
    account_id: int,
    charges: Sequence[Charge],
    limits: Mapping[int, Sequence[Allowance]],
    waits: bool = False,
) -> Outcomes:
    """Charge what one account has used, each event id once, in this order.

    `limits` are the allowances of each key of the charges, as far as they are known; what they have
    free is read under their locks. A charge that some limit does not cover changes nothing. With
    `waits`, none is charged behind one that only leases stand in the way of, since it might take
    what that one is waiting for.
    """
    wanted = {each.ref: each for of_key in limits.values() for each in of_key}
    unmade = sorted(ref for ref, each in wanted.items() if not each.is_stored)
    await leases.make(tx, refs=unmade)
    rows = await leases.lock(tx, refs=sorted(wanted))
    books = _Books(rows, zone=await _find_zone(tx, account_id=account_id))
    ids = [each.event_id for each in charges]
    known = await events.list_known(tx, account_id=account_id, event_ids=ids)
    found = Outcomes([], [], [])
    for place, each in enumerate(charges):
        if each.event_id in known:
            found.known.append(place)
            continue
        short = books.take(each, limits[each.key_id])
        if short is not None:
            found.short.append((place, short))
            if waits and short.is_leased:
                break
            continue
        known.add(each.event_id)
        found.charged.append(place)
    if found.charged:
        charged = [charges[place] for place in found.charged]
        await leases.run(tx, statements.GRANT_ALLOWANCES, books.list_rolled())
        await events.insert_ids(tx, charges=charged)
        await settlement.record(tx, worker_id=METER, charges=charged, moves=books.list_moves())
    return found


async def _find_zone(tx: WriteTx, *, account_id: int) -> str:
    """The account's zone; asked under its allowances' locks, since moving it takes those too."""
    query = select(accounts.c.time_zone).where(accounts.c.id == account_id)
    zone: str = (await tx.execute(query)).scalar_one()
    return zone


class _Books:
    """The locked rows, as they are after the charges that were taken so far."""

    def __init__(self, rows: Sequence[Allowance], *, zone: str) -> None:
        self._before = {row.ref: row for row in rows}
        self._rows = dict(self._before)
        self._zone = zone
        self._bounds: dict[str, list[Bounds]] = {}

    def take(self, charge: Charge, limits: Sequence[Allowance]) -> Short | None:
        """Count a charge in all its allowances, or say which one has too little for it."""
        after: list[Allowance] = []
        for ref in (each.ref for each in limits if _applies(each.ref, charge)):
            row = self._rows.get(ref)
            if row is None:
                # Without these two nobody pays; any other limit counts from when it is made.
                if ref.resource == Resource.COST and ref.window == Window.LIFETIME:
                    raise InvariantViolated("allowance_unknown", f"there is no {ref.name}")
                continue
            window = self._window(ref.window, charge.at_ms)
            if row.window_start_ms > window.start_ms:
                # The window has ended: this counts as usage, and in longer ones.
                continue
            rolled = rules.roll(row, window.start_ms)
            amount = _amount(ref, charge)
            if ref.resource == Resource.COST and rolled.free is not None and amount > rolled.free:
                return Short(rolled, amount, window.end_ms)
            after.append(rules.settle(rolled, 0, amount))
        self._rows.update((row.ref, row) for row in after)
        return None

    def list_rolled(self) -> list[tuple[object, ...]]:
        """Rows that entered another window, as `GRANT_ALLOWANCES` takes them, nothing granted."""
        return [
            (*_key(ref), row.window_start_ms, 0)
            for ref, row in sorted(self._rows.items())
            if self._has_rolled(row)
        ]

    def list_moves(self) -> list[tuple[object, ...]]:
        """What is added to used, as settlement takes it, nothing of it out of leases."""
        moves: list[tuple[object, ...]] = []
        for ref, row in sorted(self._rows.items()):
            used = row.used - (0 if self._has_rolled(row) else self._before[ref].used)
            if used:
                moves.append((*_key(ref), row.window_start_ms, 0, used))
        return moves

    def _has_rolled(self, row: Allowance) -> bool:
        return row.window_start_ms != self._before[row.ref].window_start_ms

    def _window(self, name: str, at_ms: int) -> Bounds:
        known = self._bounds.setdefault(name, [])
        for each in known:
            if each.start_ms <= at_ms and (each.end_ms is None or at_ms < each.end_ms):
                return each
        found = windows.bounds(Window(name), now_ms=at_ms, zone=self._zone)
        known.append(found)
        return found


def _applies(ref: AllowanceRef, charge: Charge) -> bool:
    if ref.resource == Resource.CONCURRENCY:
        return False
    return not ref.model or permissions.matches(ref.model, charge.model)


def _amount(ref: AllowanceRef, charge: Charge) -> int:
    if ref.resource == Resource.COST:
        return charge.cost_nanos
    return 1 if ref.resource == Resource.REQUESTS else charge.input_tokens + charge.output_tokens


def _key(ref: AllowanceRef) -> tuple[int, str, str, str, str]:
    return (ref.account_id, ref.scope, ref.resource, ref.window, ref.model)
