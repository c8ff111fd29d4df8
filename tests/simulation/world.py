"""One simulated installation under one seed: hosts, workers, callers, a control plane, and faults.

Owns what happens to whom and when; all of it is drawn from the seed. Everything that is simulated
runs the product's own code, from the keyring to the journal's files and the ledger's SQL; only the
gateway's callers and upstreams are played. Must not know what must be true: that is the oracle.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

import structlog

from bursar.core.errors import BursarError
from bursar.service import accounts, keys, ledger, verify
from bursar.service.keys import KeyChange
from bursar.store.database import UNAVAILABLE
from bursar.store.limits import allowances
from bursar.telemetry import Metrics
from bursar.worker import plane
from bursar.worker.journal import Journal, records
from bursar.worker.plane import Limits, Worker
from bursar.worker.settlement import Settlement
from tests.databases import START_MS
from tests.simulation import limitations
from tests.simulation import oracle as rules
from tests.simulation.callers import Callers
from tests.simulation.loop import Process, SimulatedLoop, current_process
from tests.simulation.oracle import Oracle, require
from tests.simulation.server import Server, SimulatedDatabase, Weather

_flock = fcntl.flock
# Small, so that a journal has several, and is quickly read.
_SEGMENT_BYTES: Final = 8_192
RUN_S: Final = 6.0
REST_S: Final = 60.0
LAST_CENT_S: Final = 12.0


class Key(NamedTuple):
    """A key that callers use; `account_id` is whose."""

    account_id: int
    key_id: int
    secret: bytes
    is_limited: bool


class SimulatedWorker(Worker):
    """The product's worker, which remembers every journal and queue that it ever had."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.journals: list[Journal] = []
        self.settlements: list[Settlement] = []

    async def _take_identity(self) -> None:
        await super()._take_identity()
        self.journals.append(self.journal)
        self.settlements.append(self.settlement)


class Node:
    """A place where one worker runs, again and again."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.host = host
        self.process: Process | None = None
        self.worker: SimulatedWorker | None = None
        self.is_up = False
        self.starts = 0


@dataclass
class Host:
    """One machine: its clock and its disk."""

    name: str
    directory: Path
    ahead_ms: int = 0


class World:
    """Builds everything from a seed, and runs it to its end."""

    def __init__(
        self,
        seed: int,
        directory: Path,
        template: Path,
        *,
        troubles: Sequence[str] | None = None,
        calm: Weather | None = None,
    ) -> None:
        """With `troubles` nothing else goes wrong, and `calm` is how it is when nothing does."""
        self.seed = seed
        self._named = troubles
        self._calm_weather = calm or Weather()
        self.rng = random.Random(f"world {seed}")
        self.loop = SimulatedLoop(seed)
        path = directory / "bursar.db"
        shutil.copyfile(template, path)
        self.server = Server(self.loop, seed, path)
        self.oracle = Oracle(path)
        self.server.weather = self._calm_weather
        self.server.on_commit = self.oracle.after_commit
        count = self.rng.choice((1, 2, 2, 3, 3, 4))
        self.hosts = [
            Host(f"host{n}", directory / f"host{n}")
            for n in range(self.rng.randint(1, min(2, count)))
        ]
        self.nodes = [Node(f"w{n}", self.hosts[n % len(self.hosts)]) for n in range(count)]
        self.limits = self._draw_limits()
        self.keys: list[Key] = []
        self.callers = Callers(self)
        self.books = self._database(Process("observer", "observer"), is_safe=True)
        self.control = self._database(Process("control", "control"))
        self._changing: list[asyncio.Task[None]] = []
        self.loop.on_step = self._after_step
        self._by_process: dict[Process, Node] = {}
        # Locked files go with the process that locked them.
        self._locks: dict[int, Process | None] = {}

    # ── parts ───────────────────────────────────────────────────────────────────────────────────

    def clock_ms(self, host: Host | None = None) -> int:
        """The time of day, as this host has it."""
        true_ms = START_MS + int((self.loop.now_s - 1_000) * 1_000)
        return true_ms + (host.ahead_ms if host else 0)

    def _database(self, process: Process, *, is_safe: bool = False) -> SimulatedDatabase:
        return SimulatedDatabase(self.server, process, clock_ms=self.clock_ms, is_safe=is_safe)

    def _draw_limits(self) -> Limits:
        rng = self.rng
        return Limits(
            journal_dir=Path(),
            journal_max_bytes=rng.choice((1 << 13, 1 << 16, 1 << 16)),
            settle_batch=rng.choice((1, 4, 16, 64)),
            settle_linger_s=rng.choice((0.0, 0.01, 0.1)),
            settle_backlog_most=rng.choice((1, 1_000)),
            max_staleness_s=1,
            lease_ttl_s=3,
            lease_idle_s=rng.choice((0.5, 2.0)),
            keyring_most=rng.choice((2, 100)),
        )

    def start(self, node: Node) -> None:
        """Start a worker process on this node."""
        node.starts += 1
        node.process = process = Process(f"{node.name}.{node.starts}", node.host.name)
        self._by_process[process] = node
        self.loop.spawn(process, self._serve(node, process)).add_done_callback(_require_well)

    async def _serve(self, node: Node, process: Process) -> None:
        def clock_ms() -> int:
            return self.clock_ms(node.host)

        fields = {name: getattr(self.limits, name) for name in Limits.__slots__}
        limits = Limits(**{**fields, "journal_dir": node.host.directory})
        database = SimulatedDatabase(self.server, process, clock_ms=clock_ms)
        node.worker = worker = SimulatedWorker(database, limits, Metrics(), clock_ms=clock_ms)
        try:
            await worker.start()
        except UNAVAILABLE as error:
            self.loop.note(f"{process.name}: cannot start: {error!r:.60}")
            self.server.later(0.5, self.restart, node)
            return
        node.is_up = True
        self.loop.note(f"{process.name}: serves as worker {worker.worker_id}")

    def restart(self, node: Node) -> None:
        """End whatever runs on this node as by kill -9, and start again."""
        self.kill(node)
        self.start(node)

    def kill(self, node: Node, *, power: bool = False) -> None:
        """kill -9; with `power` the disk has not got what was written last."""
        process, worker = node.process, node.worker
        if process is None or process.is_dead:
            return
        process.is_dead, node.is_up = True, False
        self.loop.note(f"{process.name}: {'power cut' if power else 'killed'}")
        self.server.forget(process)
        self.callers.forget(process)
        for descriptor in [fd for fd, owner in self._locks.items() if owner is process]:
            del self._locks[descriptor]
            with suppress(OSError):
                _flock(descriptor, fcntl.LOCK_UN)
        if worker is None:
            return
        on_disk: set[str] = set()
        for each in worker.journals:
            each.close(is_settled=False)
            on_disk |= self._leave(node.host, each, power=power)
        queued = [item.charge for each in worker.settlements for item in each.queue]
        gone = [charge for charge in queued if charge.event_id not in on_disk]
        if power:
            self.oracle.lose(gone)
        for charge in gone:
            sold = self.oracle.sold[charge.event_id]
            require(sold.may_be_lost, rules.ONCE, f"{charge.event_id} is not in the journal")

    def _lock(self, descriptor: int, how: int) -> None:
        _flock(descriptor, how)
        self._locks[descriptor] = current_process()

    def _leave(self, host: Host, each: Journal, *, power: bool) -> set[str]:
        """What a dead worker's journal still has: the events in it."""
        paths = sorted(host.directory.glob(f"{each._worker_id:08d}-*.journal"))
        if power and paths:
            data = paths[-1].read_bytes()
            written = len(data.rstrip(b"\0"))
            least = records.BEGIN
            cut = self.rng.randint(min(least, written), written)
            paths[-1].write_bytes(data[:cut] + bytes(len(data) - cut))
        found = set()
        for number, path in enumerate(paths):
            for charge in records.read(path, is_last=number == len(paths) - 1):
                found.add(charge.event_id)
        return found

    def _after_step(self, process: Process) -> None:
        node = self._by_process.get(process)
        if node is not None and node.is_up and node.worker is not None:
            self.oracle.after_step(node.worker)

    # ── the run ─────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Run to the end; raises Broken with the end of the trace as its note."""
        state = random.getstate()
        random.seed(f"product {self.seed}")
        try:
            with (
                mock.patch.object(time, "monotonic", self.loop.time),
                mock.patch.object(fcntl, "flock", self._lock),
                mock.patch.object(os, "fsync"),
                mock.patch.object(plane, "Journal", partial(Journal, segment_bytes=_SEGMENT_BYTES)),
                self._logging(),
            ):
                try:
                    self.loop.run_until_complete(self._live())
                except AssertionError as broken:
                    broken.add_note(tail(self))
                    raise
                finally:
                    self.loop.unwind()
        finally:
            random.setstate(state)
            self.oracle.close()
            self.server.engine.dispose()

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """What the product logs is a part of the trace."""

        def keep(_logger: object, _method: str, event: Any) -> Any:
            name = event.pop("event")
            told = " ".join(f"{key}={value}" for key, value in sorted(event.items()))
            self.loop.note(f"log {name} {told}"[:160])
            raise structlog.DropEvent

        before = structlog.get_config()
        structlog.configure(processors=[keep])
        try:
            yield
        finally:
            structlog.configure(**before)

    async def _live(self) -> None:
        await self._furnish()
        for node in self.nodes:
            self.start(node)
        calling = self.loop.create_task(self.callers.run(RUN_S))
        trouble = self.loop.create_task(self._trouble())
        await asyncio.gather(calling, trouble)
        self._heal()
        # Credit that is taken away while the last of it is looked for would not be found.
        await asyncio.gather(*self._changing)
        await self._rest()
        self.oracle.require_charged()
        self.oracle.require_counted()
        for account in sorted({key.account_id for key in self.keys}):
            await self._spend_the_last_cent(account)
        await self._stop()
        self.oracle.require_returned()
        await self._prove()

    async def _furnish(self) -> None:
        rng = self.rng
        async with self.books.write() as tx:
            await limitations.make_plan(tx, rng)
        for number in range(rng.choice((1, 1, 2))):
            async with self.books.write() as tx:
                account = await accounts.create(
                    tx,
                    name=f"Account {number}",
                    time_zone="UTC",
                    credit_nanos=rng.choice((3_000, 20_000, 200_000)),
                    actor="simulation",
                )
                for limit_nanos in (
                    None,
                    *rng.sample((700, 5_000, 30_000, 10**9), rng.randint(0, 2)),
                ):
                    await self._make_key(tx, account.row.id, limit_nanos)
                await limitations.warn(tx, rng, account.row.id)

    async def _make_key(self, tx: Any, account_id: int, limit_nanos: int | None) -> None:
        rng = self.rng
        made = await keys.create(
            tx,
            account_id=account_id,
            user_id=None,
            name="key",
            random_bytes=rng.randbytes,
            credit_limit_nanos=limit_nanos,
        )
        key = Key(account_id, made.key.id, made.secret.encode(), limit_nanos is not None)
        self.keys.append(key)
        if not key.is_limited:
            return
        await limitations.limit(tx, rng, account_id, key.key_id)

    # ── trouble ─────────────────────────────────────────────────────────────────────────────────

    async def _trouble(self) -> None:
        """Let things go wrong, one after the other and several at once."""
        rng, until_s = self.rng, self.loop.now_s + RUN_S
        troubles = self._draw_troubles()
        while troubles and self.loop.now_s < until_s:
            await asyncio.sleep(rng.expovariate(1 / 0.6))
            rng.choice(troubles)()
        await asyncio.sleep(max(0.0, until_s - self.loop.now_s))

    def _draw_troubles(self) -> list[Callable[[], None]]:
        works: dict[str, Callable[[], None]] = {
            "weather": self._change_weather,
            "cut off": self._cut_off,
            "kill": self._kill_one,
            "power cut": self._cut_power,
            "stop": self._pause,
            "clock": self._jump,
            "control": self._control,
            "proof": self._prove_now,
            "disconnect": self.callers.disconnect,
        }
        if self._named is not None:
            return [works[name] for name in self._named]
        often = ("weather", "control", "disconnect")
        every = [works[name] for name in (*works, *often)]
        kind = self.rng.random()
        if kind < 0.1:
            return []
        if kind < 0.5:
            return self.rng.sample(every, 3)
        return every

    def _change_weather(self) -> None:
        rng, weather = self.rng, Weather()
        for name in rng.sample(
            ("lost", "commit_lost", "commit_unheard", "commit_late", "gives_way"), 2
        ):
            setattr(weather, name, rng.choice((0.02, 0.1, 0.4)))
        weather.mean_s = rng.choice((0.0002, 0.0005, 0.005, 0.05, 0.3))
        weather.is_away = rng.random() < 0.15
        weather.is_silent = rng.random() < 0.1
        self.server.weather = weather
        self.loop.note(f"weather {weather}")
        self.server.later(rng.uniform(0.1, 3), self._calm, weather)

    def _calm(self, weather: Weather) -> None:
        if self.server.weather is weather:
            self.server.weather = self._calm_weather
            self.loop.note("weather is calm")

    def _cut_off(self) -> None:
        process = self.rng.choice(self.nodes).process
        if process is not None:
            self.loop.note(f"{process.name}: cut off from the database")
            self.server.cut_off.add(process)
            self.server.later(self.rng.uniform(0.1, 6), self.server.cut_off.discard, process)

    def _kill_one(self) -> None:
        node = self.rng.choice(self.nodes)
        self.kill(node)
        self.server.later(self.rng.choice((0.1, 1.0, 5.0)), self._start_again, node)

    def _cut_power(self) -> None:
        host = self.rng.choice(self.hosts)
        for node in self.nodes:
            if node.host is host:
                self.kill(node, power=True)
                self.server.later(self.rng.uniform(0.5, 5), self._start_again, node)

    def _start_again(self, node: Node) -> None:
        if node.process is None or node.process.is_dead:
            self.start(node)

    def _pause(self) -> None:
        process = self.rng.choice(self.nodes).process
        if process is None or process.is_dead or process.is_stopped:
            return
        self.loop.note(f"{process.name}: stopped")
        self.loop.stop_process(process)
        self.server.later(self.rng.choice((0.3, 1.5, 5.0)), self._go_on, process)

    def _go_on(self, process: Process) -> None:
        if process.is_stopped:
            self.loop.note(f"{process.name}: goes on")
            self.loop.go_on(process)

    def _jump(self) -> None:
        host = self.rng.choice(self.hosts)
        host.ahead_ms = self.rng.choice((-3_600_000, -70_000, -500, 0, 500, 70_000, 3_600_000))
        self.loop.note(f"{host.name}: clock is {host.ahead_ms} ms ahead")

    def _control(self) -> None:
        works = (
            self._grant,
            self._correct,
            self._limit,
            self._disable,
            self._change_rate,
            self.rng.choice((self._change_rate, self._change_plan)),
        )
        work = self.rng.choice(works)(self.rng.choice(self.keys))
        self._changing.append(self.loop.create_task(work))

    async def _grant(self, key: Key) -> None:
        amount = self.rng.randint(1, 5_000)
        await self._try(
            "grant",
            lambda tx: ledger.grant(
                tx, account_id=key.account_id, amount_nanos=amount, note="", actor="simulation"
            ),
        )

    async def _correct(self, key: Key) -> None:
        amount = -self.rng.randint(1, 5_000)

        async def work(tx: Any) -> object:
            return await ledger.correct(
                tx, account_id=key.account_id, amount_nanos=amount, reason="why", actor="simulation"
            )

        try:
            await ledger.when_leases_return(
                self.control,
                account_id=key.account_id,
                attempt=lambda: self.control.transact(work),
            )
            self.loop.note(f"control: corrected by {amount}")
        except (BursarError, *UNAVAILABLE) as error:
            self.loop.note(f"control: correction failed: {error!r:.60}")

    async def _limit(self, key: Key) -> None:
        if not key.is_limited:
            return
        limit = self.rng.choice((0, 500, 5_000, 50_000))
        change = KeyChange(credit_limit_nanos=limit)
        await self._try(
            f"limit of key {key.key_id} to {limit}",
            lambda tx: keys.update(tx, account_id=key.account_id, key_id=key.key_id, change=change),
        )

    async def _change_rate(self, key: Key) -> None:
        async with self.books.read() as tx:
            change = await limitations.draw_change(tx, self.rng, key.account_id)
        if change is not None:
            await self._try(*change)

    async def _change_plan(self, _key: Key) -> None:
        async with self.books.read() as tx:
            change = await limitations.draw_plan_change(tx, self.rng)
        if change is not None:
            await self._try(*change)

    async def _disable(self, key: Key) -> None:
        if not key.is_limited:
            return
        change = KeyChange(is_enabled=self.rng.random() < 0.5)
        await self._try(
            f"key {key.key_id} {change.is_enabled}",
            lambda tx: keys.update(tx, account_id=key.account_id, key_id=key.key_id, change=change),
        )

    async def _try(self, what: str, work: Callable[[Any], Any]) -> None:
        try:
            await self.control.transact(work)
            self.loop.note(f"control: {what}")
        except (BursarError, *UNAVAILABLE) as error:
            self.loop.note(f"control: {what} failed: {error!r:.60}")

    def _prove_now(self) -> None:
        self.callers.watch(self.loop.create_task(self._prove()))

    # ── the end ─────────────────────────────────────────────────────────────────────────────────

    def _heal(self) -> None:
        self.loop.note("all is well from here on")
        self.server.weather = Weather()
        self.server.cut_off.clear()
        for node in self.nodes:
            if node.process is not None:
                self._go_on(node.process)
            self._start_again(node)

    async def _rest(self) -> None:
        """Wait until no call is open and no charge on its way."""
        until_s = self.loop.now_s + REST_S
        while not self._is_at_rest():
            require(self.loop.now_s < until_s, rules.REST, f"still busy after {REST_S} s")
            await asyncio.sleep(0.1)
        for node in self.nodes:
            if node.worker is not None:
                self.oracle.after_hold(node.worker)
                for lease, ref in self.oracle.leases_of(node.worker):
                    require(not lease.held, rules.HELD, f"{ref.name}: {lease.held} is held")

    def _is_at_rest(self) -> bool:
        return not self.callers.open and all(
            node.is_up
            and node.worker is not None
            and node.worker.closed() is None
            and not sum(each.backlog for each in node.worker.settlements)
            for node in self.nodes
        )

    async def _spend_the_last_cent(self, account_id: int) -> None:
        """All that a wallet has left can be held at once, on any worker."""
        left = await self._left(account_id)
        key = next(k for k in self.keys if k.account_id == account_id and not k.is_limited)
        node = self.rng.choice(self.nodes)
        began_s = self.loop.now_s
        until_s = began_s + LAST_CENT_S
        while left and not await self.callers.probe(node, key, left):
            require(
                self.loop.now_s < until_s,
                rules.LAST_CENT,
                f"{left} of account {account_id} cannot be had from {node.name}",
            )
            await asyncio.sleep(0.1)
            # A COMMIT that nobody has heard of may take place as late as this.
            left = await self._left(account_id)
        self.loop.note(
            f"the last {left} of account {account_id} after {self.loop.now_s - began_s:.2f}"
        )

    async def _left(self, account_id: int) -> int:
        async with self.books.read() as tx:
            return (await allowances.get_wallet(tx, account_id=account_id)).left or 0

    async def _stop(self) -> None:
        for node in self.nodes:
            if node.worker is None or node.process is None:
                continue
            await self.loop.spawn(node.process, node.worker.stop())
            node.is_up = False
        for host in self.hosts:
            left = [path.name for path in host.directory.iterdir()]
            require(not left, rules.REST, f"{host.name} has {left}")

    async def _prove(self) -> None:
        now_ms = max(self.clock_ms(host) for host in self.hosts)
        async with self.books.read() as tx:
            report = await verify.verify(tx, now_ms=now_ms)
        found = "; ".join(map(str, report.differences))
        require(not report.differences, rules.CLEAN, found)


def _require_well(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        raise task.exception()  # type: ignore[misc]


def tail(world: World, lines: int = 150) -> str:
    """The end of a run's trace, and how to see it all."""
    head = f"make simulate SEEDS={world.seed} TRACE=1 shows all {len(world.loop.trace)} lines"
    return "\n".join([head, *world.loop.trace[-lines:]])
