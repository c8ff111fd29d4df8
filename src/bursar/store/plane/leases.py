"""Leases: slices of allowances, set aside for one worker.

Owns the statements that move `leased`. The size of a grant is decided by `core.allowances.take`
under the rows' locks; the statement that writes it is guarded all the same, so that a wrong
decision cannot overspend. Rows are always locked in the order of their key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, delete, exists, func, or_, select, tuple_

from bursar.core import allowances as rules
from bursar.core import windows
from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.errors import InvariantViolated
from bursar.core.windows import Window
from bursar.store.database import POSTGRESQL, Change, WriteTx
from bursar.store.plane import statements, workers
from bursar.store.plane.zones import CALENDAR
from bursar.store.tables import accounts, allowances, leases
from bursar.store.tables import workers as worker_rows

# The change feed's topic for "a worker is short of this allowance, and others have leases of it".
WANTED: Final = "wanted"
_REF_COLUMNS: Final = ("account_id", "scope", "resource", "window_name", "model")
# How long a window lasts at most, and how long calls that began in it may go on.
_DAY_MS: Final = 86_400_000
_LONGEST_MS: Final = {
    Window.MINUTE: 60_000,
    Window.HOUR: 3_600_000,
    Window.DAY: 2 * _DAY_MS,
    Window.WEEK: 8 * _DAY_MS,
    Window.MONTH: 32 * _DAY_MS,
}
_LATE_MS: Final = 3_600_000
_MOST_DELETED: Final = 5_000


@dataclass(frozen=True, slots=True)
class Want:
    """What a worker asks of one allowance, in the allowance's own unit.

    Less than `need` is useless; `demand` is wanted at once, `target` as a store for a while. With
    `tells` other workers are told if `demand` is not free and they have leases that may be idle.
    Without `is_stored` the allowance is a plan's default, which may have no row yet.
    """

    ref: AllowanceRef
    window_start_ms: int
    need: int
    demand: int
    target: int
    tells: bool = False
    is_stored: bool = True


@dataclass(frozen=True, slots=True)
class Grant:
    """What the worker got (0: not even `need` was free), and the allowance afterwards.

    Where that was less than its demand, `elsewhere` is what other workers have leased of it.
    """

    granted: int
    allowance: Allowance
    elsewhere: int = 0


async def take(tx: WriteTx, *, worker_id: int, wants: Sequence[Want]) -> dict[AllowanceRef, Grant]:
    """Lease from many allowances in one transaction.

    Allowances that do not exist, whose window has moved on, or that never have the window in the
    time zone of their account, are absent from the answer. Raises `workers.Fenced`.
    """
    await workers.renew(tx, worker_id=worker_id)
    wanted = {want.ref: want for want in wants}
    await make(tx, refs=sorted(want.ref for want in wants if not want.is_stored))
    rows = await lock(tx, refs=sorted(wanted))
    zones = await _list_zones(tx, rows=rows, wanted=wanted)
    grants: dict[AllowanceRef, Grant] = {}
    for row in rows:
        want = wanted[row.ref]
        if row.window_start_ms > want.window_start_ms or not _begins(want, zones):
            continue
        if row.ceiling is None:
            grants[row.ref] = Grant(0, row)
            continue
        rolled = rules.roll(row, want.window_start_ms)
        after, granted = rules.take(rolled, want.need, want.target, demand=want.demand)
        elsewhere = 0
        if granted < max(1, want.demand):
            elsewhere = await _leased_elsewhere(tx, worker_id=worker_id, want=want)
            if elsewhere and want.tells:
                tx.announce(WANTED, account_id=row.ref.account_id, subject=_ask(worker_id, row.ref))
        grants[row.ref] = Grant(granted, after, elsewhere)
    written = [grant for grant in grants.values() if grant.allowance.ceiling is not None]
    await _write(tx, worker_id=worker_id, grants=written)
    return grants


def read_wanted(change: Change) -> tuple[int, AllowanceRef]:
    """Who is short of what, from a change of the topic WANTED: a worker's id, an allowance."""
    asker, _, name = change.subject.partition(" ")
    scope, resource, window, *model = name.split("/", 3)
    return int(asker), AllowanceRef(change.account_id, scope, resource, window, *model)


async def give_back(
    tx: WriteTx, *, worker_id: int, returns: Sequence[tuple[AllowanceRef, int, int]]
) -> None:
    """Return idle parts of leases: (allowance, start of the window in ms, amount).

    Raises `workers.Fenced`: what a closed worker had has been returned, and a second time it would
    be taken out of the leases of others.
    """
    await workers.renew(tx, worker_id=worker_id)
    await _return(tx, worker_id=worker_id, returns=returns)


async def trim(
    tx: WriteTx,
    *,
    worker_id: int,
    ref: AllowanceRef,
    window_start_ms: int,
    known: Callable[[int], int],
) -> int:
    """Return what a lease holds beyond what `known` says, which is asked under the row's lock.

    It is told how far this worker's charges are settled: what those have taken out of the lease is
    not in it any more, whether or not the worker has heard of that.

    Returns the amount; 0 when the lease is not larger than what its worker knows of.
    """
    await workers.renew(tx, worker_id=worker_id)
    await lock(tx, refs=[ref])
    key = (*_key(ref), worker_id, window_start_ms)
    settled = await workers.get_settled_seq(tx, worker_id=worker_id)
    row = (await tx.driver(_text(tx, statements.FIND_LEASE), key)).scalar()
    surplus = int(row or 0) - known(settled)
    if surplus > 0:
        await _return(tx, worker_id=worker_id, returns=[(ref, window_start_ms, surplus)])
    return max(0, surplus)


async def release_all(tx: WriteTx, *, worker_id: int) -> int:
    """Return everything that a closed worker still holds; how many leases that were."""
    rows: Any = await tx.driver(_text(tx, statements.WORKER_LEASES), (worker_id,))
    held = [
        (AllowanceRef(account_id, scope, resource, window, model), int(start), int(amount))
        for account_id, scope, resource, window, model, start, amount in rows
    ]
    await _return(tx, worker_id=worker_id, returns=held)
    await tx.driver(_text(tx, statements.DELETE_LEASES), (worker_id,))
    return len(held)


async def delete_ended(tx: WriteTx) -> int:
    """Forget leases of windows that their allowances have left an hour ago; how many, at most 5000.

    Nobody can spend them any more. What a call in flight for longer still has of one is settled
    without it.
    """
    c = leases.c
    has_ended = [
        and_(c.window_name == window, c.window_start_ms < tx.now_ms - longest_ms - _LATE_MS)
        for window, longest_ms in _LONGEST_MS.items()
    ]
    has_moved = exists().where(
        *(allowances.c[name] == c[name] for name in _REF_COLUMNS),
        allowances.c.window_start_ms > c.window_start_ms,
    )
    key = tuple(leases.primary_key)
    ended = select(*key).where(or_(*has_ended), has_moved).limit(_MOST_DELETED)
    return (await tx.execute(delete(leases).where(tuple_(*key).in_(ended)))).rowcount


async def lock(tx: WriteTx, *, refs: Sequence[AllowanceRef]) -> list[Allowance]:
    """Read allowances and keep others from changing them until commit; unknown ones are absent."""
    if not refs:
        return []
    if tx.dialect == POSTGRESQL:
        columns = tuple(list(column) for column in zip(*map(_key, refs), strict=True))
        rows = await tx.driver(statements.LOCK_ALLOWANCES[0], columns)
        return [_allowance(row) for row in rows]
    found = []
    for ref in refs:
        row = (await tx.driver(statements.LOCK_ALLOWANCES[1], _key(ref))).one_or_none()
        if row is not None:
            found.append(_allowance(row))
    return found


async def make(tx: WriteTx, *, refs: Sequence[AllowanceRef]) -> None:
    """Give plans' defaults their rows; before any allowance is locked, as whoever changes plans."""
    if not refs:
        return
    if tx.dialect == POSTGRESQL:
        # A statement of its own: what it waits for must be visible to the next one.
        await tx.driver(statements.HOLD_PLANS, (sorted({ref.account_id for ref in refs}),))
    await run(tx, statements.MAKE_ALLOWANCES, [(*_key(ref), tx.now_ms) for ref in refs])


async def _list_zones(
    tx: WriteTx, *, rows: Sequence[Allowance], wanted: Mapping[AllowanceRef, Want]
) -> dict[int, str]:
    """The time zones of accounts of which some allowance is about to enter another day or so.

    Asked under the allowances' locks, for a worker may not have heard yet that an account moved.
    """
    moving = {
        row.ref.account_id
        for row in rows
        if row.ref.window in CALENDAR and row.window_start_ms < wanted[row.ref].window_start_ms
    }
    if not moving:
        return {}
    query = select(accounts.c.id, accounts.c.time_zone).where(accounts.c.id.in_(moving))
    return {row.id: row.time_zone for row in await tx.execute(query)}


def _begins(want: Want, zones: Mapping[int, str]) -> bool:
    """Whether such a window begins then, where the account lives (if that was asked)."""
    zone = zones.get(want.ref.account_id)
    if zone is None or want.ref.window not in CALENDAR:
        return True
    start_ms = want.window_start_ms
    found = windows.bounds(Window(want.ref.window), now_ms=start_ms, zone=zone)
    return found.start_ms == start_ms


async def _return(
    tx: WriteTx, *, worker_id: int, returns: Sequence[tuple[AllowanceRef, int, int]]
) -> None:
    ordered = sorted(returns)
    await lock(tx, refs=[ref for ref, _, _ in ordered])
    rows = [(*_key(ref), start, amount) for ref, start, amount in ordered]
    await run(tx, statements.RETURN_ALLOWANCES, rows)
    await run(tx, statements.RETURN_LEASES, [(worker_id, *row) for row in rows])


async def _leased_elsewhere(tx: WriteTx, *, worker_id: int, want: Want) -> int:
    """What living workers but this one have leased of the allowance's present window."""
    c = leases.c
    query = (
        select(func.coalesce(func.sum(c.amount), 0))
        .join_from(leases, worker_rows, worker_rows.c.id == c.worker_id)
        .where(
            c.account_id == want.ref.account_id,
            c.scope == want.ref.scope,
            c.resource == want.ref.resource,
            c.window_name == want.ref.window,
            c.model == want.ref.model,
            c.window_start_ms == want.window_start_ms,
            c.worker_id != worker_id,
            worker_rows.c.state == workers.LIVE,
        )
    )
    return int((await tx.execute(query)).scalar_one())


def _ask(worker_id: int, ref: AllowanceRef) -> str:
    return f"{worker_id} {ref.name}"


async def _write(tx: WriteTx, *, worker_id: int, grants: Sequence[Grant]) -> None:
    rows = [
        (*_key(grant.allowance.ref), grant.allowance.window_start_ms, grant.granted)
        for grant in grants
    ]
    written = await run(tx, statements.GRANT_ALLOWANCES, rows)
    if written != len(rows):
        raise InvariantViolated("lease_guard", f"{len(rows) - written} leases broke their guard")
    held = [(worker_id, *row) for row in rows if row[-1] > 0]
    await run(tx, statements.GRANT_LEASES, held)


async def run(tx: WriteTx, texts: tuple[str, str], rows: Sequence[tuple[object, ...]]) -> int:
    """One statement over many rows: arrays on PostgreSQL, once a row on SQLite."""
    if not rows:
        return 0
    if tx.dialect == POSTGRESQL:
        columns = tuple(list(column) for column in zip(*rows, strict=True))
        return (await tx.driver(texts[0], columns)).rowcount
    return (await tx.driver(texts[1], list(rows))).rowcount


def _text(tx: WriteTx, texts: tuple[str, str]) -> str:
    return texts[0] if tx.dialect == POSTGRESQL else texts[1]


def _key(ref: AllowanceRef) -> tuple[int, str, str, str, str]:
    return (ref.account_id, ref.scope, ref.resource, ref.window, ref.model)


def _allowance(row: Sequence[Any]) -> Allowance:
    ref = AllowanceRef(*row[:5])
    return Allowance(ref, *row[5:])
