"""Callers and upstreams, played: each call does with a worker what the gateway does with it.

Owns the life of a call: looked up, held, sold, charged, or given up at any moment. A call that was
sold is charged before it ends, whatever happens to its caller, and its hold ends with it. Must not
know what the oracle makes of that.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from bursar.core.errors import BursarError
from bursar.core.refusals import Reason
from bursar.store.plane.charges import Charge
from bursar.worker.keyring import Credential
from bursar.worker.plane import Worker
from bursar.worker.purse import Amounts, Hold
from tests.simulation.loop import Process
from tests.simulation.oracle import Sold

if TYPE_CHECKING:
    from tests.simulation.world import Key, Node, World

MODELS: Final = ("model", "model", "mode-2", "other")


class Callers:
    """All calls of one simulation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rng = random.Random(f"callers {world.seed}")
        self.open: dict[asyncio.Task[None], Process] = {}
        self.calls = self.admitted = 0
        self._watched: list[asyncio.Task[Any]] = []

    async def run(self, seconds: float) -> None:
        """Call at random moments, sometimes many at once, for so long."""
        world, rng = self._world, self.rng
        until_s = world.loop.now_s + seconds
        pause_s = rng.choice((0.1, 0.2, 0.5))
        while world.loop.now_s < until_s:
            await asyncio.sleep(rng.expovariate(1 / pause_s))
            for _ in range(rng.choice((1, 1, 1, 1, 8))):
                self._start(rng.choice(world.nodes), rng.choice(world.keys))
            for task in self._watched:
                if task.done():
                    task.result()
        for task in self._watched:
            await task

    def watch(self, task: asyncio.Task[Any]) -> None:
        """Something that must not fail."""
        self._watched.append(task)

    def disconnect(self) -> None:
        """One caller hangs up, wherever its call stands."""
        if self.open:
            self.rng.choice(list(self.open)).cancel()

    def forget(self, process: Process) -> None:
        """The process of these calls is gone."""
        for task in [each for each, owner in self.open.items() if owner is process]:
            del self.open[task]

    async def probe(self, node: Node, key: Key, nanos: int) -> bool:
        """Whether this much can be held at once."""
        assert node.process is not None
        return await self._world.loop.spawn(node.process, self._probe(node, key, nanos))

    async def _probe(self, node: Node, key: Key, nanos: int) -> bool:
        assert node.worker is not None
        try:
            hold = await self._admit(node.worker, key, MODELS[0], Amounts(nanos, 0, 0, 0))
        except BursarError as error:
            self._world.loop.note(f"probe: {error.code}")
            return False
        if hold is None:
            return False
        hold[1].release()
        return True

    def _start(self, node: Node, key: Key) -> None:
        if not node.is_up or node.process is None or node.worker is None:
            return
        self.calls += 1
        event_id = f"call{self.calls}"
        task = self._world.loop.spawn(
            node.process, self._call(node.worker, key, event_id, random.Random(self.rng.random()))
        )
        self.open[task] = node.process
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.open.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            raise task.exception()  # type: ignore[misc]

    async def _call(self, worker: Worker, key: Key, event_id: str, rng: random.Random) -> None:
        note = self._world.loop.note
        cost = rng.choice((50, 300, 1_000))
        tokens = rng.choice((10, 100))
        model = rng.choice(MODELS)
        try:
            admitted = await self._admit(worker, key, model, Amounts(cost, 1, tokens, 1))
        except BursarError as error:
            note(f"{event_id}: {error.code}")
            return
        if admitted is None:
            return
        self.admitted += 1
        credential, hold = admitted
        note(f"{event_id}: worker {worker.worker_id} holds {cost} for key {key.key_id}")
        oracle = self._world.oracle
        oracle.holds.setdefault(worker, {})[hold] = worker.worker_id
        oracle.after_hold(worker)
        try:
            await self._sell(worker, credential, hold, Sold(event_id, 0, model), rng)
        finally:
            hold.release()
            oracle.after_hold(worker)
            del oracle.holds[worker][hold]

    async def _admit(
        self, worker: Worker, key: Key, model: str, needs: Amounts
    ) -> tuple[Credential, Hold] | None:
        """As the gateway does it, in its order."""
        closed = worker.closed()
        if closed is not None:
            self._world.loop.note(f"refused: {closed.reason.code}")
            return None
        now_ms = worker.clock_ms()
        credential = worker.keyring.find(key.secret) or await worker.keyring.load(key.secret)
        if isinstance(credential, Reason) or now_ms >= credential.usable_until_ms:
            self._world.loop.note(f"refused: key {key.key_id}")
            return None
        slots = credential.slots_for(model)
        hold = worker.hold_at_once(slots, needs, now_ms)
        if hold is None:
            answer = await worker.hold(slots, needs)
            if not isinstance(answer, Hold):
                self._world.loop.note(f"refused: {answer.message}")
                return None
            hold = answer
        return credential, hold

    async def _sell(
        self, worker: Worker, credential: Credential, hold: Hold, sold: Sold, rng: random.Random
    ) -> None:
        """The upstream's side: fail, or sell; once sold, the call is charged however it ends."""
        await asyncio.sleep(rng.expovariate(1 / 0.2))
        if rng.random() < 0.1:
            return
        kind = rng.random()
        cost = rng.randint(1, hold.cost_nanos) if kind < 0.7 else hold.cost_nanos
        if kind > 0.95:
            cost += rng.randint(1, 2_000)
        sold.cost_nanos = cost
        self._world.oracle.sold[sold.event_id] = sold
        try:
            await asyncio.sleep(rng.expovariate(1 / rng.choice((0.05, 0.5, 5.0))))
        finally:
            if not self._world.loop.is_ending:
                self._charge(worker, credential, hold, sold, rng.choice((5, 100, 300)))

    def _charge(
        self, worker: Worker, credential: Credential, hold: Hold, sold: Sold, tokens: int
    ) -> None:
        ended = hold.settle(Amounts(sold.cost_nanos, 1, tokens, 0))
        sold.has_excess = ended.excess_nanos > 0
        charge = Charge(
            0,
            sold.event_id,
            hold.at_ms,
            credential.account_id,
            credential.key_id,
            None,
            None,
            "gateway",
            "chat.completions",
            sold.model,
            "upstream",
            "ok",
            0,
            0,
            tokens // 2,
            0,
            tokens - tokens // 2,
            0,
            None,
            1,
            ended.covered_nanos,
            ended.excess_nanos,
            1,
            1,
            None,
            ended.moves,
        )
        worker.settlement.submit(charge, ended.parts)
        sold.is_charged = True
        sold.may_be_lost = worker.settlement.is_storage_full
        self._world.loop.note(
            f"{sold.event_id}: charge {charge.seq} of worker {worker.worker_id},"
            f" {ended.covered_nanos} and {ended.excess_nanos}"
        )
