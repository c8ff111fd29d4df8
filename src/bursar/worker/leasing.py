"""Leasing: keeps the purse filled ahead of need, and gives back what lies idle.

Owns how much to ask for and when. Many leases travel in one transaction; requests that wait for the
same allowance wait for the same one. The size of a lease follows how fast it is spent, so that the
database hears of a busy allowance about once a second whatever the request rate. Must not decide
about requests (that is `admission`).
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import structlog

from bursar.core.errors import Unavailable
from bursar.store.database import UNAVAILABLE, Database, describe
from bursar.store.plane import leases, workers
from bursar.store.plane.leases import Want
from bursar.telemetry import Metrics
from bursar.worker.purse import Amounts, Purse, Slot

_log = structlog.get_logger("bursar.leasing")
_AHEAD_S = 2.0
_EXHAUSTED_MS = 250
_WAIT_S = 3.0
_MANY = 500
_RETRY_S = 1.0


class Leasing:
    """One worker's conversation with the store about leases."""

    def __init__(
        self,
        database: Database,
        purse: Purse,
        metrics: Metrics,
        *,
        worker_id: int,
        clock_ms: Callable[[], int],
    ) -> None:
        self._database = database
        self._purse = purse
        self._metrics = metrics
        self._worker_id = worker_id
        self._clock_ms = clock_ms
        self._demand: dict[Slot, list[int]] = {}
        self._waiting: list[asyncio.Future[None]] = []
        self._recalled: set[Slot] = set()
        # Slots of which the store may hold more for us than we know of.
        self._doubtful: set[Slot] = set()
        self._wake = asyncio.Event()

    def refill(self, slots: Iterable[Slot]) -> None:
        """Ask for more in the background."""
        for slot in slots:
            slot.is_refilling = True
            self._demand.setdefault(slot, [])
        self._wake.set()

    async def wait_for(self, short: Sequence[Slot], needs: Amounts) -> None:
        """Ask for what a request is short of and return when the store has answered.

        Raises Unavailable when it does not answer in time.
        """
        for slot in short:
            self._demand.setdefault(slot, []).append(needs[slot.index])
        await self._answered()

    async def reclaim(self, slots: Iterable[Slot]) -> None:
        """Return what is idle in these slots, after whatever is being asked for right now.

        Raises Unavailable when the store does not answer in time.
        """
        self._recalled.update(slots)
        await self._answered()

    async def _answered(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wake.set()
        try:
            async with asyncio.timeout(_WAIT_S):
                await future
        except TimeoutError as error:
            raise Unavailable(
                "ledger_unavailable",
                "Limits cannot be checked at the moment. Try again shortly.",
                retry_after_s=1,
            ) from error

    def recall(self, slots: Iterable[Slot]) -> None:
        """Return what is idle in these slots soon: a limit has changed."""
        self._recalled.update(slots)
        self._wake.set()

    async def run(self) -> None:
        """Serve demands until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            recalled, self._recalled = self._recalled, set()
            demand, self._demand = self._demand, {}
            waiting, self._waiting = self._waiting, []
            try:
                await self._reconcile()
                await self._give_back(recalled)
                await self._take({s: n for s, n in demand.items() if n or s not in recalled})
            except (*UNAVAILABLE, workers.Fenced) as error:
                _log.warning("leases_unavailable", error=describe(error))
                self._doubtful |= recalled | demand.keys()
                self._fail(demand, waiting)
                asyncio.get_running_loop().call_later(_RETRY_S, self._wake.set)
            else:
                for future in waiting:
                    if not future.done():
                        future.set_result(None)

    def doubt(self, slots: Iterable[Slot]) -> None:
        """Compare these slots' leases with the store soon: it may hold more for us."""
        self._doubtful.update(slots)
        self._wake.set()

    async def _reconcile(self) -> None:
        """Return what the store holds for this worker beyond what it knows of.

        After an outage nobody can say which transactions took place. Only what is too much is
        returned; if memory believes in more than there is, settlement finds out (NotCovered).
        """
        doubtful, self._doubtful = self._doubtful, set()
        if not doubtful:
            return
        try:
            async with self._database.write() as tx:
                for slot in sorted(doubtful, key=lambda each: each.ref):
                    lease = slot.lease
                    await leases.trim(
                        tx,
                        worker_id=self._worker_id,
                        ref=slot.ref,
                        window_start_ms=lease.start_ms,
                        known=lease.total,
                    )
        except BaseException:
            self._doubtful |= doubtful
            raise

    async def _give_back(self, slots: Iterable[Slot]) -> None:
        """Return what these slots have available, in one transaction."""
        returns = []
        for slot in slots:
            lease = slot.lease
            if lease.available:
                returns.append((slot, lease, lease.available))
                lease.available = 0
            slot.low_water = 0
            slot.is_refilling = False
        if not returns:
            return
        # Whether this happens may remain unknown; what did not is returned by `_reconcile`.
        back = [(slot.ref, lease.start_ms, n) for slot, lease, n in returns]
        await self._database.transact(
            partial(leases.give_back, worker_id=self._worker_id, returns=back)
        )

    async def _take(self, demand: dict[Slot, list[int]]) -> None:
        slots = list(demand)
        for start in range(0, len(slots), _MANY):
            part = slots[start : start + _MANY]
            now_ms = self._clock_ms()
            wants = [self._want(slot, demand[slot], now_ms) for slot in part]
            grants = await self._database.transact(
                partial(leases.take, worker_id=self._worker_id, wants=wants)
            )
            for slot, want in zip(part, wants, strict=True):
                self._receive(slot, want, grants.get(slot.ref), now_ms)
            self._metrics.lease_refills += 1

    def _want(self, slot: Slot, needs: list[int], now_ms: int) -> Want:
        lease = slot.current(now_ms)
        elapsed_s = max(0.05, (now_ms - slot.refilled_ms) / 1000)
        per_second = int(slot.spent / elapsed_s)
        largest = max(needs, default=0)
        target = int(per_second * _AHEAD_S) + 2 * slot.peak + 4 * largest
        missing = max(0, sum(needs) - lease.available)
        need = max(0, min(needs) - lease.available) if needs else 0
        return Want(slot.ref, lease.start_ms, max(1, need), missing, target)

    def _receive(self, slot: Slot, want: Want, grant: leases.Grant | None, now_ms: int) -> None:
        slot.is_refilling = False
        if grant is None:
            slot.exhausted_until_ms = now_ms + _EXHAUSTED_MS
            slot.exhausted_need = 0
            slot.low_water = 0
            return
        if slot.lease.start_ms == want.window_start_ms:
            slot.lease.available += grant.granted
        slot.learn(grant.allowance)
        slot.low_water = min(want.target, slot.lease.available) // 2
        slot.spent, slot.refilled_ms, slot.peak = 0, now_ms, slot.lease.held
        if (slot.limit is not None and grant.granted < want.demand) or not grant.granted:
            # The store had no more: until something changes, say so without asking again.
            slot.exhausted_until_ms = now_ms + _EXHAUSTED_MS
            # All that was free has been granted, or not even the least that was asked for is free:
            # then a smaller request may still be paid for.
            slot.exhausted_need = 1 if grant.granted else want.need
            slot.low_water = 0
        else:
            slot.exhausted_until_ms = 0

    def _fail(self, demand: dict[Slot, list[int]], waiting: Sequence[asyncio.Future[None]]) -> None:
        for slot in demand:
            slot.is_refilling = False
            slot.low_water = 0
        for future in waiting:
            if not future.done():
                future.set_exception(
                    Unavailable(
                        "ledger_unavailable",
                        "Limits cannot be checked at the moment. Try again shortly.",
                        retry_after_s=1,
                    )
                )
