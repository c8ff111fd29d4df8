"""Settlement: charges travel from memory and journal to the ledger, in batches, exactly once.

Owns the queue, its group commit and its retries. A batch that the database refuses is tried charge
by charge; a charge that it still refuses goes to quarantine, with an alarm, and those behind it go
on. Nothing is ever dropped. Must not know how a charge came about.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

import msgspec
import structlog

from bursar import failpoints
from bursar.store.database import POSTGRESQL, REFUSED, UNAVAILABLE, Database, WriteTx, describe
from bursar.store.plane import settlement as ledger
from bursar.store.plane import workers
from bursar.store.plane.charges import Charge, pack, unpack
from bursar.telemetry import Metrics
from bursar.worker.journal import Journal, JournalFull
from bursar.worker.purse import Lease, paid

_log = structlog.get_logger("bursar.settlement")
_KEPT_MS = 10_000
_MOST_KEPT = 20_000
_RETRY_S = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Settled(msgspec.Struct, frozen=True, gc=False):
    """A charge on its way and the leases that its cost is still pending in."""

    charge: Charge
    parts: Sequence[tuple[Lease, int]]


class Settlement:
    """One worker's queue of charges and the loop that empties it into the ledger."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        metrics: Metrics,
        *,
        worker_id: int,
        quarantine: Callable[[Charge, str], None],
        reclaim: Callable[[Charge], Awaitable[None]],
        doubt: Callable[[Charge], None],
        batch: int,
        linger_s: float,
    ) -> None:
        self._database = database
        self._journal = journal
        self._metrics = metrics
        self._worker_id = worker_id
        self._quarantine = quarantine
        self._reclaim = reclaim
        self._doubt = doubt
        self._batch = batch
        self._linger_s = linger_s
        self.queue: deque[Settled] = deque()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._last_seq = 0
        self._settled_seq = 0
        self.is_storage_full = False
        # Settled lately, and when: what a standby that takes over may not have heard of.
        # Packed, because many charges as objects would push everything else out of the caches.
        self._kept: deque[tuple[int, int, bytes]] = deque()
        self._kept_charges = 0

    @property
    def backlog(self) -> int:
        """Charges that are not settled yet."""
        return len(self.queue)

    @property
    def oldest_ms(self) -> int | None:
        """When the oldest unsettled charge was made; None when all are settled."""
        return self.queue[0].charge.at_ms if self.queue else None

    def settled_of(self, lease: Lease, seq: int) -> int:
        """How much of what this lease has pending is settled, if charges are settled up to `seq`.

        The store may be further than this worker has heard.
        """
        total = 0
        for item in self.queue:
            if item.charge.seq > seq:
                break
            total += sum(amount for part, amount in item.parts if part is lease)
        return total

    def submit(self, charge: Charge, parts: Sequence[tuple[Lease, int]]) -> None:
        """Take a charge over: number it, write it to the journal, queue it. Never fails.

        A charge that the disk will not take is settled from memory all the same; the worker stops
        admitting until the journal accepts one again.
        """
        self._last_seq += 1
        charge.seq = self._last_seq
        try:
            self._journal.append(charge)
            self.is_storage_full = False
        except JournalFull as error:
            if not self.is_storage_full:
                _log.error("journal_full", error=str(error))
            self.is_storage_full = True
        self.queue.append(Settled(charge, parts))
        if len(self.queue) == 1:
            self._wake.set()
        elif len(self.queue) >= self._batch:
            self._full.set()

    async def flush(self) -> None:
        """Return once every charge submitted before the call is settled."""
        if self._settled_seq >= self._last_seq:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._last_seq, future))
        self._full.set()
        await future

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            await self._wake.wait()
            await self._gather()
            batch = list(islice(self.queue, self._batch))
            await self._settle(batch)
            if not self.queue:
                self._wake.clear()

    async def _gather(self) -> None:
        """Linger for more charges, unless a batch is full or somebody waits."""
        if len(self.queue) >= self._batch or self._waiting:
            return
        self._full.clear()
        try:
            async with asyncio.timeout(self._linger_s):
                await self._full.wait()
        except TimeoutError:
            return

    async def _settle(self, batch: Sequence[Settled]) -> None:
        attempt = 0
        while True:
            try:
                await self._try(batch)
            except ledger.NotCovered:
                return await self._settle_singly(batch)
            except ledger.Behind as error:
                await self._settle_again(error.settled, before=batch[0].charge.seq)
            except REFUSED as error:
                _log.warning("batch_refused", error=describe(error), charges=len(batch))
                return await self._settle_singly(batch)
            except UNAVAILABLE as error:
                attempt = await self._pause(attempt, error)
            else:
                return self._done(batch)

    @failpoints.after("batch.committed")
    async def _try(self, batch: Sequence[Settled]) -> None:
        charges = [item.charge for item in batch]
        async with self._database.write() as tx:
            await self._apply(tx, charges)

    @failpoints.after("batch.applied")
    async def _apply(self, tx: WriteTx, charges: Sequence[Charge]) -> None:
        await ledger.settle(tx, worker_id=self._worker_id, charges=charges)

    async def settle_again(self) -> None:
        """Settle once more what a database that went back has lost; not while `run` runs.

        Only what was settled lately is still known: the rest is counted as lost.
        """
        attempt = 0
        while True:
            try:
                return await self._compare()
            except UNAVAILABLE as error:
                attempt = await self._pause(attempt, error)

    async def _compare(self) -> None:
        async with self._database.read() as tx:
            worker = await workers.find(tx, worker_id=self._worker_id)
        settled = None if worker is None else worker.settled_seq
        if settled is None or settled < self._settled_seq:
            await self._settle_again(settled, before=self._settled_seq + 1)

    async def _settle_again(self, settled: int | None, *, before: int) -> None:
        if settled is None:
            settled = 0
            async with self._database.write() as tx:
                await workers.insert_former(tx, worker_id=self._worker_id, host="")
        kept = (charge for _, _, packed in self._kept for charge in unpack(packed))
        again = [charge for charge in kept if settled < charge.seq < before]
        first = again[0].seq if again else before
        lost = first - settled - 1
        self._metrics.lost += lost
        _log.error("ledger_went_back", settled_again=len(again), lost=lost)
        if lost:
            async with self._database.write() as tx:
                await workers.advance(tx, worker_id=self._worker_id, settled=settled, to=first - 1)
        for charge in again:
            attempt = 0
            while not await self._try_single(Settled(charge, ())):
                attempt = await self._pause(attempt, None)

    def _keep(self, batch: Sequence[Settled]) -> None:
        """Remember what was settled for as long as a standby may be behind."""
        now_ms = time.monotonic_ns() // 1_000_000
        self._kept.append((now_ms, len(batch), pack([item.charge for item in batch])))
        self._kept_charges += len(batch)
        while self._kept[0][0] < now_ms - _KEPT_MS or self._kept_charges > _MOST_KEPT:
            self._kept_charges -= self._kept.popleft()[1]

    async def _settle_singly(self, batch: Sequence[Settled]) -> None:
        for item in batch:
            attempt = 0
            while not await self._try_single(item):
                attempt = await self._pause(attempt, None)
            self._done([item])
            self._doubt(item.charge)

    async def _try_single(self, item: Settled) -> bool:
        """Settle one charge or put it into quarantine; False when it should be tried again."""
        try:
            if item.charge.excess_nanos:
                # What lies idle in this worker's own leases can pay before anybody loses money.
                await self._reclaim(item.charge)
            async with self._database.write() as tx:
                is_new, overrun = await ledger.settle_one(
                    tx, worker_id=self._worker_id, charge=item.charge
                )
        except REFUSED as error:
            return await self._set_aside(item, describe(error))
        except UNAVAILABLE as error:
            _log.warning("settlement_failed", error=describe(error))
            return False
        if overrun and is_new:
            self._metrics.overrun_nanos += overrun
            _log.warning("overrun", event_id=item.charge.event_id, overrun_nanos=overrun)
        return True

    async def _set_aside(self, item: Settled, why: str) -> bool:
        self._quarantine(item.charge, why)
        self._metrics.quarantined += 1
        _log.error("charge_quarantined", event_id=item.charge.event_id, why=why)
        try:
            async with self._database.write() as tx:
                await ledger.skip(tx, worker_id=self._worker_id, charge=item.charge)
        except UNAVAILABLE as error:
            _log.warning("settlement_failed", error=describe(error))
            return False
        return True

    async def _pause(self, attempt: int, error: BaseException | None) -> int:
        if error is not None:
            _log.warning("settlement_failed", error=describe(error), attempt=attempt)
        # Workers that were in each other's way must not meet again: a spread, not a secret.
        longest = min(attempt, len(_RETRY_S) - 1)
        bounds_s = (_RETRY_S[max(0, longest - 1)], _RETRY_S[longest])
        await asyncio.sleep(random.uniform(*bounds_s))  # noqa: S311
        return attempt + 1

    def _done(self, batch: Sequence[Settled]) -> None:
        for _ in batch:
            self.queue.popleft()
        paid([item.parts for item in batch])
        self._settled_seq = batch[-1].charge.seq
        if self._database.dialect == POSTGRESQL:
            self._keep(batch)
        self._journal.settled(self._settled_seq)
        if self.is_storage_full and not self.queue:
            # Nothing depends on the disk any more: the next charge finds out whether it has room.
            self.is_storage_full = False
        self._metrics.settled += len(batch)
        while self._waiting and self._waiting[0][0] <= self._settled_seq:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_result(None)
