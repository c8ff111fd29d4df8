"""What must be true, after every commit and after every step of a worker.

Owns the invariants, each with a name by which a broken one is reported, and the books that the
oracle keeps by itself: what upstreams sold, which charges were made, which may have been lost with
a machine. Reads the database by a connection of its own. Must not know how anything came about.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from bursar.core import windows
from bursar.core.allowances import AllowanceRef
from bursar.core.windows import Window
from bursar.store.plane.charges import Charge
from bursar.worker.plane import Worker
from bursar.worker.purse import Hold, Lease

# The names of what can break.
LIMIT: Final = "used and leased stay within the limit"
LEASED: Final = "leased is the sum of the workers' leases"
DEAD: Final = "closed workers have no leases"
COVERED: Final = "no worker believes in more than is leased to it"
HELD: Final = "every hold ends: what is held is what requests in flight hold"
ONCE: Final = "a charge is settled exactly once"
AMOUNT: Final = "a charge is settled for what was sold"
OVERRUN: Final = "nothing is given away while the lease is there"
TRANSFERS: Final = "transfers add up to nothing, and to the credit"
ROLLUPS: Final = "roll-ups and used allowances are the sums of the rows"
COUNTED: Final = "an allowance has what its window's rows say"
GIVEN: Final = "what a plan gives is what its accounts have"
LAST_CENT: Final = "all that is left can be spent"
REST: Final = "everything comes to rest"
CLEAN: Final = "the books prove clean"

_LeaseKey = tuple[int, AllowanceRef, int]


class Broken(AssertionError):
    """An invariant does not hold; `name` is which."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(f"{name}: {detail}")
        self.name = name


def require(holds: bool, name: str, detail: str) -> None:
    """Raise Broken unless it holds."""
    if not holds:
        raise Broken(name, detail)


@dataclass
class Sold:
    """One call that an upstream has sold: what, for how much, and what became of its charge."""

    event_id: str
    cost_nanos: int
    model: str
    has_excess: bool = False
    is_charged: bool = False
    may_be_lost: bool = False


class Use(NamedTuple):
    """What one usage row says: whose, and what it counts for."""

    account_id: int
    scopes: tuple[str, ...]
    cost: int
    at_ms: int
    model: str
    tokens: int

    def amount(self, ref: AllowanceRef) -> int:
        """How much of an allowance this is."""
        is_of = self.account_id == ref.account_id and ref.scope in self.scopes
        if not is_of or not fnmatchcase(self.model, ref.model or "*"):
            return 0
        return {"cost": self.cost, "tokens": self.tokens, "requests": 1}.get(ref.resource, 0)


class _Row(NamedTuple):
    """An allowance as it was stored."""

    used: int
    leased: int
    start_ms: int


@dataclass
class Books:
    """What has been seen in the database so far."""

    rows: dict[str, int] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    wallet_cost: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    key_cost: defaultdict[tuple[int, str], int] = field(default_factory=lambda: defaultdict(int))
    totals: list[int] = field(default_factory=lambda: [0, 0, 0])
    overrun: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    ends: defaultdict[tuple[int, str], int] = field(default_factory=lambda: defaultdict(int))
    seen: dict[AllowanceRef, _Row] = field(default_factory=dict)
    leases: dict[_LeaseKey, int] = field(default_factory=dict)
    settled: dict[int, int] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    last_row: int = 0
    last_transfer: int = 0


class Oracle:
    """Sees every commit and every step, and raises Broken."""

    def __init__(self, path: Path) -> None:
        self.sold: dict[str, Sold] = {}
        # Each worker's open holds, and the name that it had when it granted them.
        self.holds: dict[Worker, dict[Hold, int]] = {}
        self.books = Books()
        self._database = sqlite3.connect(path, isolation_level=None)

    def close(self) -> None:
        """Read no more."""
        self._database.close()

    def lose(self, charges: Iterable[Charge]) -> None:
        """These charges went with a machine: they may be there, and need not."""
        for charge in charges:
            self.sold[charge.event_id].may_be_lost = True

    # ── after every commit ──────────────────────────────────────────────────────────────────────

    def after_commit(self, _by: str) -> None:
        """Check everything that is stored."""
        read = self._database.execute
        read("BEGIN")
        try:
            self._read_workers()
            self._read_rows()
            self._check_allowances()
            self._check_plans()
            self._check_transfers()
            self._check_sums()
        finally:
            read("COMMIT")

    def _read_workers(self) -> None:
        books = self.books
        before = books.settled
        rows = self._database.execute("SELECT id, state, settled_seq FROM workers").fetchall()
        books.states = {worker: state for worker, state, _ in rows}
        books.settled = {worker: seq for worker, _, seq in rows}
        for worker, seq in before.items():
            now = books.settled.get(worker, -1)
            require(now >= seq, ONCE, f"worker {worker} went back from charge {seq} to {now}")

    def _read_rows(self) -> None:
        books = self.books
        query = (
            "SELECT rowid, account_id, key_id, event_id, cost_nanos, overrun_nanos, worker_id,"
            " at_ms, model, input_tokens + output_tokens"
            " FROM usage_events WHERE rowid > ? ORDER BY rowid"
        )
        for rowid, account, key, event, cost, overrun, worker, *what in self._database.execute(
            query, (books.last_row,)
        ):
            books.last_row = rowid
            books.uses.append(Use(account, ("wallet", "account", f"key:{key}"), cost, *what))
            require(event not in books.rows, ONCE, f"{event} was settled before")
            sold = self.sold.get(event)
            if sold is None:
                raise Broken(ONCE, f"{event} is charged, and nobody sold it")
            books.rows[event] = cost
            require(
                cost + overrun == sold.cost_nanos,
                AMOUNT,
                f"{event}: {cost} and {overrun}, sold {sold.cost_nanos}",
            )
            is_live = books.states.get(worker) == "live"
            require(
                not overrun or sold.has_excess or not is_live,
                OVERRUN,
                f"{event} of living worker {worker} has an overrun of {overrun}",
            )
            books.wallet_cost[account] += cost
            books.key_cost[account, f"key:{key}"] += cost
            books.totals = [books.totals[0] + 1, books.totals[1] + cost, books.totals[2] + overrun]
            if overrun:
                books.overrun[event] += overrun

    def _check_allowances(self) -> None:
        held: defaultdict[tuple[AllowanceRef, int], int] = defaultdict(int)
        books = self.books
        books.leases = {}
        for worker, start, amount, *key in self._database.execute(
            "SELECT worker_id, window_start_ms, amount, account_id, scope, resource, window_name,"
            " model FROM leases"
        ):
            ref = AllowanceRef(*key)
            books.leases[worker, ref, start] = amount
            held[ref, start] += amount
            is_live = books.states.get(worker) == "live"
            require(is_live or not amount, DEAD, f"worker {worker} has {amount} of {ref.name}")
        for limit, used, leased, start, *key in self._database.execute(
            "SELECT limit_amount, used, leased, window_start_ms, account_id, scope, resource,"
            " window_name, model FROM allowances"
        ):
            ref = AllowanceRef(*key)
            require(min(used, leased) >= 0, LIMIT, f"{ref.name}: used {used}, leased {leased}")
            have = held[ref, start]
            require(leased == have, LEASED, f"{ref.name}: leased {leased}, leases {have}")
            self._check_limit(ref, limit, _Row(used, leased, start))
            if ref.window == "lifetime" and ref.resource == "cost":
                cost = (
                    books.wallet_cost[ref.account_id]
                    if ref.scope == "wallet"
                    else books.key_cost[ref.account_id, ref.scope]
                )
                if ref.scope == "wallet" or ref.scope.startswith("key:"):
                    require(used == cost, ROLLUPS, f"{ref.name}: used {used}, rows {cost}")

    def _check_limit(self, ref: AllowanceRef, limit: int | None, row: _Row) -> None:
        """Above its limit an allowance is only because that was lowered, and then it only sinks.

        Rates are counted as things happened, so a worker that others gave up may lift their use
        beyond the limit; but nothing more of them is leased then.
        """
        last = self.books.seen.get(ref, _Row(0, 0, row.start_ms))
        self.books.seen[ref] = row
        if limit is None:
            return
        if last.start_ms != row.start_ms:
            last = _Row(0, 0, row.start_ms)
        now, most = row.used + row.leased, max(limit, last.used + last.leased)
        is_strict = ref.resource == "cost"
        require(
            now <= most or (not is_strict and row.leased <= last.leased),
            LIMIT,
            f"{ref.name}: used {row.used} and leased {row.leased} of {limit}",
        )

    def _check_plans(self) -> None:
        query = (
            "SELECT a.scope, a.resource, a.limit_amount,"
            " coalesce(l.default_amount, l.most_amount) AS given"
            " FROM allowances a JOIN accounts o ON o.id = a.account_id"
            " LEFT JOIN plan_limits l ON l.plan_id = o.plan_id AND l.resource = a.resource"
            " AND l.window_name = a.window_name AND l.model = a.model"
            " AND a.scope || ':' LIKE l.scope_kind || ':%'"
            " WHERE a.origin = 'plan' AND a.limit_amount IS NOT given"
        )
        for scope, resource, limit, given in self._database.execute(query):
            raise Broken(GIVEN, f"{scope}/{resource}: {limit}, its plan gives {given}")

    def _check_transfers(self) -> None:
        books = self.books
        query = (
            "SELECT rowid, account_id, kind, source, target, amount_nanos, reference"
            " FROM transfers WHERE rowid > ? ORDER BY rowid"
        )
        for rowid, account, kind, source, target, amount, reference in self._database.execute(
            query, (books.last_transfer,)
        ):
            books.last_transfer = rowid
            books.ends[account, source] -= amount
            books.ends[account, target] += amount
            if kind == "overrun":
                books.overrun[reference] -= amount
        require(not sum(books.ends.values()), TRANSFERS, "sources and targets differ")
        require(not any(books.overrun.values()), TRANSFERS, "overrun is not what the rows say")
        for account, limit in self._database.execute(
            "SELECT account_id, limit_amount FROM allowances WHERE scope = 'wallet'"
        ):
            credit = books.ends[account, "wallet"]
            require(limit == credit, TRANSFERS, f"wallet {account}: {limit}, transfers {credit}")

    def _check_sums(self) -> None:
        for table in ("usage_hourly", "usage_daily"):
            found = self._database.execute(
                "SELECT coalesce(sum(requests), 0), coalesce(sum(cost_nanos), 0),"
                f" coalesce(sum(overrun_nanos), 0) FROM {table}"
            ).fetchone()
            totals = self.books.totals
            require(list(found) == totals, ROLLUPS, f"{table}: {found}, rows {totals}")

    # ── after every step of a worker ────────────────────────────────────────────────────────────

    def after_step(self, worker: Worker) -> None:
        """Check what a worker has in memory against itself and against what is stored."""
        worker_id = worker.worker_id
        is_live = self.books.states.get(worker_id) == "live"
        for lease, ref in self.leases_of(worker):
            available, held, pending = lease.available, lease.held, lease.pending
            if not (available or held or pending):
                continue
            if available < 0 or held < 0 or pending < 0:
                raise Broken(COVERED, f"{ref.name}: {_show(lease)}")
            if is_live:
                have = self.books.leases.get((worker_id, ref, lease.start_ms), 0)
                if available + held + pending > have:
                    self._check_covered(worker, ref, lease, have)

    def after_hold(self, worker: Worker) -> None:
        """Check that leases hold exactly what the open holds say."""
        held: defaultdict[Lease, int] = defaultdict(int)
        for hold in self.holds.get(worker, ()):
            if not hold.is_ended:
                for slot, lease in hold._parts:
                    if lease is not None:
                        held[lease] += hold._needs[slot.index]
        for lease, ref in self.leases_of(worker):
            require(
                lease.held == held[lease], HELD, f"{ref.name}: {_show(lease)}, holds {held[lease]}"
            )

    def _check_covered(self, worker: Worker, ref: AllowanceRef, lease: Lease, have: int) -> None:
        settled = self.books.settled[worker.worker_id]
        on_its_way = sum(
            amount
            for item in worker.settlement.queue
            if item.charge.seq <= settled
            for part, amount in item.parts
            if part is lease
        )
        believed = lease.total() - on_its_way
        require(
            believed <= have,
            COVERED,
            f"worker {worker.worker_id}, {ref.name}: {_show(lease)}, leased {have}",
        )

    def leases_of(self, worker: Worker) -> Iterator[tuple[Lease, AllowanceRef]]:
        """Every lease that this worker spends from, under its present name."""
        for slot in worker.purse.slots.values():
            yield slot.lease, slot.ref
        for hold, worker_id in self.holds.get(worker, {}).items():
            for slot, lease in hold._parts if worker_id == worker.worker_id else ():
                if lease is not None and lease is not slot.lease:
                    yield lease, slot.ref

    # ── at the end ──────────────────────────────────────────────────────────────────────────────

    def require_charged(self) -> None:
        """Check that every charge was settled, once, for what was sold."""
        for sold in self.sold.values():
            is_there = sold.event_id in self.books.rows
            require(
                is_there or sold.may_be_lost or not sold.is_charged,
                ONCE,
                f"{sold.event_id} was charged {sold.cost_nanos}, and is not in the books",
            )

    def require_counted(self) -> None:
        """Check that every allowance has what was used in its window, whoever made it and when.

        Each was in force from the beginning, but may have got its row by its first lease.
        """
        for ref, row in self.books.seen.items():
            end_ms = windows.bounds(Window(ref.window), now_ms=row.start_ms).end_ms or 2**63
            uses = [use for use in self.books.uses if row.start_ms <= use.at_ms < end_ms]
            expected = sum(use.amount(ref) for use in uses)
            require(row.used == expected, COUNTED, f"{ref.name}: {row.used}, rows {expected}")

    def require_returned(self) -> None:
        """Check that no lease is left."""
        left = {key: amount for key, amount in self.books.leases.items() if amount}
        require(not left, REST, f"leases are left: {left}")


def _show(lease: Lease) -> str:
    return f"available {lease.available}, held {lease.held}, pending {lease.pending}"
