"""Mistakes that were not made, kept so that the oracle can be seen to catch each of them.

Owns one mutant for each: the product with that one mistake in it. Must not know how it is caught.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple
from unittest import mock

import msgspec

from bursar.core.allowances import Allowance
from bursar.core.refusals import Deny
from bursar.store.database import UNAVAILABLE, WriteTx
from bursar.store.plane import leases, settlement, statements, workers
from bursar.store.plane.leases import Grant, Want
from bursar.worker import admission, leasing
from bursar.worker.keyring import Credential
from bursar.worker.leasing import Leasing
from bursar.worker.plane import Worker
from bursar.worker.purse import Amounts, Hold, Slot
from bursar.worker.recalls import Demand
from bursar.worker.settlement import Settled, Settlement
from tests.simulation import oracle
from tests.simulation.server import Weather


@contextmanager
def check_then_act_admission() -> Iterator[None]:
    """A request looks whether there is enough, does something else, and then takes it."""

    async def hold(self: Worker, slots: Sequence[Slot], needs: Amounts) -> Hold | Deny:
        for _ in range(12):
            now_ms = self.clock_ms()
            short = [s for s in slots if s.limit is not None and s.lease.available < needs[s.index]]
            if not short:
                await asyncio.sleep(0.01)
                parts = [(s, None if s.limit is None else s.current(now_ms)) for s in slots]
                for slot, lease in parts:
                    if lease is not None:
                        lease.available -= needs[slot.index]
                        lease.held += needs[slot.index]
                return Hold(needs, parts, now_ms)
            if admission.is_settled(short, needs, now_ms):
                break
            await self.leasing.wait_for(short, needs)
        return admission.refuse(short, needs, self.clock_ms())

    with (
        mock.patch.object(Worker, "hold_at_once", return_value=None),
        mock.patch.object(Worker, "_hold", hold),
    ):
        yield


@contextmanager
def check_then_act_leases() -> Iterator[None]:
    """A worker reads what is free in one transaction, and takes it in another without a guard."""
    take = leases.take
    unguarded = statements.GRANT_ALLOWANCES[1].partition("       AND (?7 = 0")[0]

    async def stale(tx: WriteTx, *, worker_id: int, wants: Sequence[Want]) -> Any:
        grants = await take(tx, worker_id=worker_id, wants=wants)
        await asyncio.sleep(0)
        return {ref: await _again(tx, worker_id, ref, grant) for ref, grant in grants.items()}

    async def _again(tx: WriteTx, worker_id: int, ref: Any, grant: Grant) -> Grant:
        # As much as was free before anybody else's transaction, once more.
        if ref.scope == "wallet" or grant.allowance.limit is None or not grant.granted:
            return grant
        row = (*leases._key(ref), grant.allowance.window_start_ms, grant.granted)
        await tx.driver(unguarded, row)
        await leases.run(tx, statements.GRANT_LEASES, [(worker_id, *row)])
        more = replace(grant.allowance, leased=grant.allowance.leased + grant.granted)
        return replace(grant, granted=2 * grant.granted, allowance=more)

    with mock.patch.object(leases, "take", stale):
        yield


@contextmanager
def commit_assumed_done() -> Iterator[None]:
    """A batch whose COMMIT nobody answered is taken for settled."""

    async def settle(self: Settlement, batch: Sequence[Settled]) -> None:
        try:
            await self._try(batch)
        except settlement.NotCovered:
            await self._settle_singly(batch)
            return
        except UNAVAILABLE:
            pass
        self._done(batch)

    async def assumed(self: Settlement, item: Settled) -> bool:
        return await real(self, item) or True

    async def adrift(_tx: WriteTx, *, worker_id: int, settled: int, to: int) -> bool:
        """Such a program has no sequence to keep: the next batch does not follow the last."""
        return await advance(_tx, worker_id=worker_id, settled=settled, to=to) or await _jump(
            _tx, worker_id, to
        )

    async def _jump(tx: WriteTx, worker_id: int, to: int) -> bool:
        settled = await workers.get_settled_seq(tx, worker_id=worker_id)
        return settled < to and await advance(tx, worker_id=worker_id, settled=settled, to=to)

    real, advance = Settlement._try_single, workers.advance
    with (
        mock.patch.object(Settlement, "_settle", settle),
        mock.patch.object(Settlement, "_try_single", assumed),
        mock.patch.object(workers, "advance", adrift),
    ):
        yield


@contextmanager
def commit_assumed_failed() -> Iterator[None]:
    """A batch whose COMMIT nobody answered is sent anew, as if it were another."""

    async def settle(self: Settlement, batch: Sequence[Settled]) -> None:
        again: Sequence[Settled] = batch
        while True:
            try:
                await self._try(again)
            except settlement.NotCovered:
                return await self._settle_singly(batch)
            except UNAVAILABLE:
                await asyncio.sleep(0.05)
                again = [
                    item._replace(charge=msgspec.structs.replace(item.charge)) for item in batch
                ]
            else:
                return self._done(batch)

    async def unguarded(_tx: WriteTx, *, worker_id: int, charges: Sequence[Any]) -> bool:
        """Whatever number the worker's sequence has: on it goes."""
        settled = await workers.get_settled_seq(_tx, worker_id=worker_id)
        to = max(settled, charges[-1].seq)
        if settled >= charges[-1].seq:
            for charge in charges:
                charge.event_id += "'"
        return await workers.advance(_tx, worker_id=worker_id, settled=settled, to=to)

    with (
        mock.patch.object(Settlement, "_settle", settle),
        mock.patch.object(settlement, "_advance", unguarded),
    ):
        yield


@contextmanager
def hold_not_released_on_cancel() -> Iterator[None]:
    """The clean-up of a cancelled request waits for something, and is cancelled there."""

    def release(self: Hold) -> None:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            real(self)

    real = Hold.release
    with mock.patch.object(Hold, "release", release):
        yield


@contextmanager
def returned_by_the_dead() -> Iterator[None]:
    """A worker that others have closed returns its leases when it wakes, a second time."""
    with mock.patch.object(leases, "give_back", leases._return):
        yield


@contextmanager
def failed_question_forgotten() -> Iterator[None]:
    """Requests wait for the answer to a question about leases that failed, and is not put again."""

    def fail(self: Leasing, demand: Demand) -> None:
        demand.answer(leasing.unavailable())

    with mock.patch.object(Leasing, "_fail", fail):
        yield


@contextmanager
def unlimited_never_leased() -> Iterator[None]:
    """What stops nobody is only counted, in whatever window its row stands in."""
    with mock.patch.object(Allowance, "ceiling", property(lambda self: self.limit)):
        yield


@contextmanager
def every_limit_for_every_model() -> Iterator[None]:
    """A call counts for limits of models that it is none of."""
    with mock.patch.object(Credential, "slots_for", lambda self, _model: self.slots):
        yield


@contextmanager
def made_without_its_plan() -> Iterator[None]:
    """What a plan gives gets a row without the amount."""
    unlimited = statements.MAKE_ALLOWANCES[1].replace(
        "coalesce(l.default_amount, l.most_amount)", "NULL"
    )
    texts = (statements.MAKE_ALLOWANCES[0], unlimited)
    with mock.patch.object(statements, "MAKE_ALLOWANCES", texts):
        yield


class Mutant(NamedTuple):
    """A mistake, what has to happen for it to matter, and which checks may catch it."""

    mistake: Callable[[], AbstractContextManager[None]]
    caught_by: tuple[str, ...]
    troubles: tuple[str, ...] = ()
    calm: Weather = Weather()


MUTANTS: Final = (
    Mutant(check_then_act_admission, (oracle.COVERED,)),
    Mutant(check_then_act_leases, (oracle.LIMIT,)),
    Mutant(commit_assumed_done, (oracle.ONCE,), calm=Weather(commit_lost=0.2)),
    Mutant(commit_assumed_failed, (oracle.ONCE,), calm=Weather(commit_unheard=0.2)),
    Mutant(hold_not_released_on_cancel, (oracle.HELD,), ("disconnect",)),
    Mutant(returned_by_the_dead, (oracle.LEASED, oracle.OVERRUN), ("stop",)),
    Mutant(failed_question_forgotten, (oracle.LAST_CENT,), calm=Weather(lost=0.02)),
    Mutant(unlimited_never_leased, (oracle.CLEAN,)),
    Mutant(every_limit_for_every_model, (oracle.COUNTED,)),
    Mutant(made_without_its_plan, (oracle.GIVEN,)),
)
