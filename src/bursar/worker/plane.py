"""The data plane of one process: its parts put together, its life, and its one question.

Owns the order of start and stop, recovery of dead workers, and `hold`, through which every request
passes. Must not know HTTP.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from bursar.core.allowances import AllowanceRef
from bursar.core.errors import Unavailable
from bursar.core.pricebook import PriceBook
from bursar.core.refusals import Deny, Reason, deny
from bursar.store import changes, prices
from bursar.store.database import SQLITE, UNAVAILABLE, Change, Database, describe
from bursar.store.plane import epochs, leases, workers
from bursar.store.plane.charges import Charge
from bursar.telemetry import Metrics
from bursar.worker import admission, recovery
from bursar.worker.clocks import steady
from bursar.worker.feed import Feed
from bursar.worker.journal import Journal
from bursar.worker.keyring import Keyring
from bursar.worker.leasing import Leasing, unavailable
from bursar.worker.purse import Amounts, Hold, Purse, Slot
from bursar.worker.refusals import Refusals
from bursar.worker.settlement import Settlement
from bursar.worker.watch import Watch

_log = structlog.get_logger("bursar.worker")
# The most of its database's connections that a worker's own loops use at once.
OWN_CONNECTIONS = 8
# Enough for all answers of one recall, and some that others were quicker to use.
_TRIES = 12
_RETRY_S = 1
# So long a request waits at most for a new name of a worker that others have closed.
_RENAME_S = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How a worker behaves; each field is a setting of the same name."""

    journal_dir: Path
    journal_max_bytes: int
    settle_batch: int
    settle_linger_s: float
    settle_backlog_most: int
    max_staleness_s: float
    lease_ttl_s: float
    lease_idle_s: float
    keyring_most: int


class Worker:
    """One worker: keyring, purse, leasing, settlement and the change feed."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        metrics: Metrics,
        *,
        clock_ms: Callable[[], int],
    ) -> None:
        self.database = database
        self.limits = limits
        self.metrics = metrics
        self.clock_ms = clock_ms = steady(clock_ms)
        self.purse = Purse()
        self.keyring = Keyring(database, self.purse, clock_ms=clock_ms, most=limits.keyring_most)
        # Until then, in monotonic seconds, nobody can have taken this worker for dead.
        self._alive_until = time.monotonic() + limits.lease_ttl_s
        self.feed = Feed(
            database,
            self._apply,
            self.keyring.clear,
            taken_over=self._distrust,
            stale_s=limits.max_staleness_s,
            fenced_after=lambda: self._alive_until,
        )
        self.watch = Watch(silent_s=limits.lease_ttl_s, apart_s=limits.lease_ttl_s / 3)
        self.pricebook = PriceBook(())
        self.refusals = Refusals(database, metrics, clock_ms=clock_ms)
        self.is_draining = False
        # Told to stop: what comes is still served, but no more should be sent here.
        self.is_leaving = False
        self.worker_id = 0
        self._prices_changed = asyncio.Event()
        self._turn = asyncio.Event()
        self._renamed = asyncio.Condition()
        self._is_distrusted = False
        self._tasks: list[asyncio.Task[None]] = []
        self._identity: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Recover what dead workers left, register, and begin to serve."""
        await recovery.replay_journals(self.database, self.limits.journal_dir, self.metrics)
        if self.database.dialect == SQLITE:
            # Whoever serves owns the file, so every other worker is gone, however lately it spoke
            # and whether or not it has left a journal.
            await recovery.close_all(self.database)
        await self.feed.start()
        await self._load_prices()
        await self._take_identity()
        loops: list[Callable[[], Awaitable[None]]] = [
            self.feed.run,
            self._follow_prices,
            self._return_idle,
            self.refusals.run,
            self._keep_alive,
        ]
        self._tasks = [asyncio.create_task(_forever(loop)) for loop in loops]
        self.database.add_barrier(self._flush)

    async def stop(self) -> None:
        """Settle everything, return every lease, and leave nothing behind."""
        self.is_draining = True
        await _cancel(self._tasks)
        is_settled = False
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.lease_ttl_s):
                await self.settlement.flush()
                is_settled = self.settlement.backlog == 0
        await _cancel(self._identity)
        if is_settled:
            with suppress(*UNAVAILABLE):
                await recovery.retire(self.database, worker_id=self.worker_id)
                await self.refusals.flush()
        self.journal.close(is_settled=is_settled)

    def closed(self) -> Deny | None:
        """Why this worker admits nobody at the moment, or None. Money fails closed."""
        settlement = self.settlement
        if (
            time.monotonic() < self.feed.fresh_until
            and not (self.is_draining or settlement.is_storage_full)
            and len(settlement.queue) <= self.limits.settle_backlog_most
        ):
            return None
        if self.is_draining:
            return deny(Reason.OVERLOADED, retry_after_s=_RETRY_S)
        if self.feed.is_stale:
            return deny(Reason.STALE, retry_after_s=_RETRY_S)
        if self.settlement.is_storage_full:
            return deny(Reason.STORAGE_FULL, retry_after_s=_RETRY_S)
        return deny(Reason.OVERLOADED, retry_after_s=_RETRY_S)

    def why_not_ready(self) -> str | None:
        """A word for what stands in the way of serving, or None."""
        if self.is_leaving:
            return "stopping"
        closed = self.closed()
        return None if closed is None else closed.reason.code

    def gauges(self) -> dict[str, float]:
        """What the metrics show of this worker at this moment."""
        oldest_ms = self.settlement.oldest_ms
        lag_ms = 0 if oldest_ms is None else max(0, self.clock_ms() - oldest_ms)
        return {
            "bursar_keys_known": len(self.keyring),
            "bursar_settlement_backlog": self.settlement.backlog,
            "bursar_settlement_lag_seconds": lag_ms / 1000,
            "bursar_journal_bytes": self.journal.size_bytes,
            "bursar_ledger_silent_seconds": self.feed.silent_s,
        }

    def hold_at_once(self, slots: Sequence[Slot], needs: Amounts, now_ms: int) -> Hold | None:
        """Hold what a request needs if memory has it, as it mostly does; None: ask `hold`.

        `slots` are those of its key for its model (`Credential.slots_for`).
        """
        answer = admission.admit(slots, needs, now_ms)
        if type(answer) is not Hold:
            return None
        if answer.is_low:
            self.leasing.refill(admission.dry(slots))
        return answer

    async def hold(self, slots: Sequence[Slot], needs: Amounts) -> Hold | Deny:
        """Hold what a request needs, asking the store for more only when memory is too short.

        Raises Unavailable when the store does not answer.
        """
        with self.purse.using(slots):
            return await self._hold(slots, needs)

    async def _hold(self, slots: Sequence[Slot], needs: Amounts) -> Hold | Deny:
        for _ in range(_TRIES):
            now_ms = self.clock_ms()
            answer = admission.admit(slots, needs, now_ms)
            if isinstance(answer, Hold):
                if answer.is_low:
                    self.leasing.refill(admission.dry(slots))
                return answer
            if admission.is_settled(answer, needs, now_ms):
                break
            await self._wait_for(answer, needs)
        now_ms = self.clock_ms()
        answer = admission.admit(slots, needs, now_ms)
        return answer if isinstance(answer, Hold) else admission.refuse(answer, needs, now_ms)

    async def _wait_for(self, short: Sequence[Slot], needs: Amounts) -> None:
        """Return when the store has been asked, under a new name if others have closed this one."""
        leasing = self.leasing
        try:
            await leasing.wait_for(short, needs)
        except workers.Fenced as error:
            self._turn.set()
            try:
                async with asyncio.timeout(_RENAME_S), self._renamed:
                    await self._renamed.wait_for(lambda: self.leasing is not leasing)
            except TimeoutError:
                raise unavailable() from error

    def _apply(self, news: Sequence[Change]) -> None:
        wanted = [change for change in news if change.topic == leases.WANTED]
        if wanted:
            for change in wanted if self.worker_id else ():
                self.leasing.yield_to(*leases.read_wanted(change))
            news = [change for change in news if change.topic != leases.WANTED]
        self.keyring.apply(news)
        topics = {change.topic for change in news}
        if changes.PRICES in topics:
            self._prices_changed.set()
        if topics & {changes.ALLOWANCE, changes.ACCOUNT, changes.KEY, changes.PLAN}:
            touched = {change.account_id for change in news}
            slots = [
                slot
                for slot in self.purse.slots.values()
                if slot.ref.account_id in touched or changes.PLAN in topics
            ]
            for slot in slots:
                slot.exhausted_until_ms = 0
            if topics & {changes.ALLOWANCE, changes.PLAN} and self.worker_id:
                self.leasing.recall(slots)

    async def _flush(self) -> None:
        await self.settlement.flush()

    async def _reclaim(self, charge: Charge) -> None:
        """Give back what is idle in the leases of this charge's allowances."""
        with suppress(Unavailable, workers.Fenced):
            await self.leasing.reclaim(self._slots_of(charge))

    def _doubt(self, charge: Charge) -> None:
        """What this charge took from leases may differ from what it held of them."""
        self.leasing.doubt(self._slots_of(charge))

    def _slots_of(self, charge: Charge) -> list[Slot]:
        refs = {
            AllowanceRef(charge.account_id, move.scope, move.resource, move.window, move.model)
            for move in charge.moves
        }
        return [self.purse.slots[ref] for ref in refs & self.purse.slots.keys()]

    async def _take_identity(self) -> None:
        """Register as a new worker with a journal of its own."""
        asked = time.monotonic()
        async with self.database.write() as tx:
            self.worker_id = await workers.insert_worker(tx, host=socket.gethostname())
            born_ms = tx.now_ms
        self._alive_until = asked + self.limits.lease_ttl_s
        limits = self.limits
        self.journal = Journal(
            limits.journal_dir,
            self.worker_id,
            born_ms=born_ms,
            max_bytes=limits.journal_max_bytes,
        )
        self.settlement = Settlement(
            self.database,
            self.journal,
            self.metrics,
            worker_id=self.worker_id,
            quarantine=recovery.Quarantine(limits.journal_dir, self.worker_id),
            reclaim=self._reclaim,
            doubt=self._doubt,
            batch=limits.settle_batch,
            linger_s=limits.settle_linger_s,
        )
        self.leasing = Leasing(
            self.database,
            self.purse,
            self.metrics,
            worker_id=self.worker_id,
            clock_ms=self.clock_ms,
            settled_of=self.settlement.settled_of,
        )
        loops = (self.settlement.run, self.leasing.run)
        self._identity = [asyncio.create_task(_forever(loop)) for loop in loops]
        async with self._renamed:
            self._renamed.notify_all()
        _log.info("worker_registered", worker_id=self.worker_id)

    async def _replace_identity(self) -> None:
        """This worker was declared dead: settle under the old name, go on under a new one."""
        _log.error("worker_fenced", worker_id=self.worker_id)
        old, journal, (settling, leasing) = self.settlement, self.journal, self._identity
        # Before the purse is emptied: what came under the old name after that would be spent, and
        # given back, under the new one, which never leased it.
        await _cancel([leasing])
        self.leasing.end()
        self.purse.void(self.clock_ms())
        await self._take_identity()
        await old.flush()
        await _cancel([settling])
        await old.settle_again()
        journal.close(is_settled=True)

    async def _keep_alive(self) -> None:
        await self._wait_for_turn(self.limits.lease_ttl_s / 10)
        try:
            if self._is_distrusted:
                async with self.database.write() as tx:
                    await epochs.pass_over(tx)
                former = self.worker_id
                await self._replace_identity()
                await recovery.retire(self.database, worker_id=former)
                self._is_distrusted = False
                return
            asked = time.monotonic()
            async with self.database.write() as tx:
                await workers.renew(tx, worker_id=self.worker_id)
            self._alive_until = asked + self.limits.lease_ttl_s
            await recovery.reap(self.database, self.watch, but=self.worker_id)
        except workers.Fenced:
            await self._replace_identity()

    def _distrust(self) -> None:
        """The database may have forgotten what it leased to us: spend nothing of it any more."""
        self.purse.void(self.clock_ms())
        self._is_distrusted = True
        self._turn.set()

    async def _wait_for_turn(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._turn.wait()
        self._turn.clear()

    async def _return_idle(self) -> None:
        await asyncio.sleep(self.limits.lease_idle_s / 2)
        before_ms = self.clock_ms() - int(self.limits.lease_idle_s * 1000)
        idle = self.purse.idle(before_ms=before_ms)
        if idle:
            await self.leasing.reclaim(idle)
        for slot in idle:
            self.purse.forget(slot)

    async def _follow_prices(self) -> None:
        await self._prices_changed.wait()
        self._prices_changed.clear()
        try:
            await self._load_prices()
        except UNAVAILABLE:
            self._prices_changed.set()
            raise

    async def _load_prices(self) -> None:
        async with self.database.read() as tx:
            self.pricebook = PriceBook(await prices.list_all(tx))


async def _forever(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop again and again, whatever it raises: a worker without one of them is dead."""
    while True:
        try:
            await loop()
        except Exception as error:
            _log.warning("loop_failed", loop=loop.__qualname__, error=describe(error))
            await asyncio.sleep(0.5)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def wall_clock_ms() -> int:
    """The time of day in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
