"""Leasing: keeps the purse filled ahead of need, and gives back what lies idle.

Owns how much to ask for and when. Many leases travel in one transaction; requests that wait for the
same allowance wait for the same one. The size of a lease follows how fast it is spent, so that the
database hears of a busy allowance about once a second whatever the request rate. Must not decide
about requests (that is `admission`).
"""

import asyncio
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial

import structlog

from bursar import failpoints
from bursar.core.allowances import AllowanceRef
from bursar.core.errors import Unavailable
from bursar.store.database import UNAVAILABLE, Database, describe
from bursar.store.plane import leases, workers
from bursar.store.plane.leases import Want
from bursar.telemetry import Metrics
from bursar.worker.purse import Amounts, Lease, Purse, Slot
from bursar.worker.recalls import Demand, Recalls

_log = structlog.get_logger("bursar.leasing")
_AHEAD_S = 2.0
_EXHAUSTED_MS = 250
# As long when others were asked in vain: they may have something idle again.
_RECALLED_MS = 500
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
        settled_of: Callable[[Lease, int], int],
    ) -> None:
        self._database = database
        self._purse = purse
        self._metrics = metrics
        self._worker_id = worker_id
        self._clock_ms = clock_ms
        self._settled_of = settled_of
        self._demand = Demand()
        # What the store is being asked for right now.
        self._asked = Demand()
        self._is_over = False
        self._recalls = Recalls(worker_id=worker_id, ask=self._ask_again)
        # Slots of which all but so much goes back.
        self._recalled: dict[Slot, int] = {}
        # Slots of which the store may hold more for us than we know of.
        self._doubtful: set[Slot] = set()
        self._wake = asyncio.Event()

    def refill(self, slots: Iterable[Slot]) -> None:
        """Ask for more in the background."""
        if self._is_over:
            return
        for slot in slots:
            slot.is_refilling = True
            self._demand.needs.setdefault(slot, [])
        self._wake.set()

    async def wait_for(self, short: Sequence[Slot], needs: Amounts) -> None:
        """Ask for what a request is short of and return when the store has answered.

        Where it had too little and others were asked for what they have idle, with those who wait
        for that. Raises Unavailable when the store does not answer in time, and `workers.Fenced`
        when this worker has been closed.
        """
        self._require_going_on()
        future = self._recalls.join(short, needs)
        if future is None:
            future = self._demand.add(short, needs)
            self._wake.set()
        await _answered(future)

    async def reclaim(self, slots: Iterable[Slot]) -> None:
        """Return what is idle in these slots, after whatever is being asked for right now.

        Raises Unavailable when the store does not answer in time, and `workers.Fenced`.
        """
        self._require_going_on()
        self.recall(slots)
        await _answered(self._demand.wait())

    def recall(self, slots: Iterable[Slot]) -> None:
        """Return what is idle in these slots soon: a limit has changed."""
        self._recalled |= dict.fromkeys(slots, 0)
        self._wake.set()

    def yield_to(self, asker: int, ref: AllowanceRef) -> None:
        """Return what is idle in this allowance's slot soon: another worker is short of it."""
        slot = self._purse.slots.get(ref)
        if slot is None or asker == self._worker_id:
            return
        # What is known of the store is about to be out of date.
        slot.exhausted_until_ms = 0
        kept = self._recalls.yields(slot, asker=asker)
        self._recalled[slot] = min(kept, self._recalled.get(slot, kept))
        self._wake.set()

    async def run(self) -> None:
        """Serve demands until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            recalled, self._recalled = self._recalled, {}
            demand, self._demand = self._demand, Demand()
            self._asked = demand
            try:
                await self._reconcile()
                await self._give_back(recalled)
                await self._take(demand, but=recalled)
            except workers.Fenced as error:
                # Nothing is asked under this name again: whoever waits does so under the next one.
                self._fail(demand, error)
            except UNAVAILABLE as error:
                _log.warning("leases_unavailable", error=describe(error))
                self._doubtful |= recalled.keys() | demand.needs.keys()
                self._fail(demand, unavailable())
                asyncio.get_running_loop().call_later(_RETRY_S, self._wake.set)
            else:
                demand.answer()
                # They hold what has come for them before anything is returned again.
                await asyncio.sleep(0)

    def end(self) -> None:
        """Ask for nothing more under this name, once `run` has ended: the next one has the purse.

        Whoever waits is told `workers.Fenced`, as whoever comes.
        """
        self._is_over = True
        for demand in (self._asked, self._demand):
            self._fail(demand, _over())

    def _require_going_on(self) -> None:
        if self._is_over:
            raise _over()

    def _ask_again(self, demand: Demand) -> None:
        if self._is_over:
            demand.answer(_over())
            return
        self._demand.merge(demand)
        self._wake.set()

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
                    await leases.trim(
                        tx,
                        worker_id=self._worker_id,
                        ref=slot.ref,
                        window_start_ms=slot.lease.start_ms,
                        known=partial(self._known, slot.lease),
                    )
        except BaseException:
            self._doubtful |= doubtful
            raise

    def _known(self, lease: Lease, settled_seq: int) -> int:
        return lease.total() - self._settled_of(lease, settled_seq)

    async def _give_back(self, recalled: Mapping[Slot, int]) -> None:
        """Return what these slots have available but for what is kept, in one transaction."""
        returns = []
        for slot, kept in recalled.items():
            lease = slot.lease
            if lease.available > kept:
                returns.append((slot, lease, lease.available - kept))
                lease.available = kept
                # That the store had no more was true only while it was here.
                slot.exhausted_until_ms = 0
            slot.low_water = 0
            slot.is_refilling = False
        if not returns:
            return
        # Whether this happens may remain unknown; what did not is returned by `_reconcile`.
        back = [(slot.ref, lease.start_ms, n) for slot, lease, n in returns]
        await self._database.transact(
            partial(leases.give_back, worker_id=self._worker_id, returns=back)
        )

    async def _take(self, demand: Demand, *, but: Container[Slot]) -> None:
        """Ask for what is needed, and for what is low unless it has just been returned."""
        slots = [slot for slot, needs in demand.needs.items() if needs or slot not in but]
        for start in range(0, len(slots), _MANY):
            part = slots[start : start + _MANY]
            now_ms = self._clock_ms()
            wants = [self._want(slot, demand.needs[slot], now_ms) for slot in part]
            grants = await self._database.transact(
                partial(leases.take, worker_id=self._worker_id, wants=wants)
            )
            for slot, want in zip(part, wants, strict=True):
                self._receive(slot, want, grants.get(slot.ref), demand, now_ms)
            self._metrics.lease_refills += 1

    def _want(self, slot: Slot, needs: list[int], now_ms: int) -> Want:
        lease = slot.current(now_ms)
        elapsed_s = max(0.05, (now_ms - slot.refilled_ms) / 1000)
        per_second = int(slot.spent / elapsed_s)
        largest = max(needs, default=0)
        target = int(per_second * _AHEAD_S) + 2 * slot.peak + 4 * largest
        if self._recalls.is_modest(slot):
            target = 0
        missing = max(0, sum(needs) - lease.available)
        need = max(0, min(needs) - lease.available) if needs else 0
        tells = missing > 0 and self._recalls.tells(slot)
        return Want(slot.ref, lease.start_ms, max(1, need), missing, target, tells, slot.is_stored)

    @failpoints.before("lease.granted")
    def _receive(
        self, slot: Slot, want: Want, grant: leases.Grant | None, demand: Demand, now_ms: int
    ) -> None:
        slot.is_refilling = False
        slot.low_water = 0
        if grant is None:
            self._exhaust(slot, _EXHAUSTED_MS, 0, now_ms)
            return
        if slot.lease.start_ms == want.window_start_ms:
            slot.lease.available += grant.granted
        slot.learn(grant.allowance)
        slot.spent, slot.refilled_ms, slot.peak = 0, now_ms, slot.lease.held
        is_enough = not slot.is_leased or grant.granted >= want.demand
        if grant.granted and is_enough:
            slot.low_water = min(want.target, slot.lease.available) // 2
            slot.exhausted_until_ms = 0
            self._recalls.end(slot)
        elif grant.elsewhere and not want.demand:
            # What is here is enough for whoever waits; others may have more of it idle.
            if demand.needs[slot]:
                self._recalls.end(slot)
        elif grant.elsewhere and self._recalls.goes_on(slot, demand):
            # Others may have it idle: nobody can say yet that it is not to be had.
            return
        else:
            # All that was free has been granted, or not even the least that was asked for is free:
            # then a smaller request may still be paid for.
            need = 1 if grant.granted else want.need
            self._exhaust(slot, _RECALLED_MS if grant.elsewhere else _EXHAUSTED_MS, need, now_ms)

    def _exhaust(self, slot: Slot, for_ms: int, need: int, now_ms: int) -> None:
        """The store has no more: until something changes, say so without asking again."""
        slot.exhausted_until_ms = now_ms + for_ms
        slot.exhausted_need = need
        self._recalls.end(slot)

    def _fail(self, demand: Demand, error: Exception) -> None:
        for slot in demand.needs:
            slot.is_refilling = False
            slot.low_water = 0
            # Nobody asks for those who wait with a recall but the answer that has not come.
            self._recalls.end(slot)
        demand.answer(error)


def _over() -> workers.Fenced:
    return workers.Fenced("this worker goes on under another name")


async def _answered(future: asyncio.Future[None]) -> None:
    try:
        async with asyncio.timeout(_WAIT_S):
            await future
    except TimeoutError as error:
        raise unavailable() from error


def unavailable() -> Unavailable:
    """The refusal of a request for which the store could not be asked."""
    return Unavailable(
        "ledger_unavailable",
        "Limits cannot be checked at the moment. Try again shortly.",
        retry_after_s=1,
    )
