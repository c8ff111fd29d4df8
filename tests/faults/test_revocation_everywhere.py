"""What is taken away is refused by every worker: mostly at once, within a second, and within five
where the database cannot be reached.

Each worker is asked all the time; what counts is the last call that it let in after the change had
been acknowledged.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from bursar.service import accounts
from bursar.store.database import Database
from bursar.worker.plane import wall_clock_ms
from tests import crowd, loads, soak
from tests.faults.fleet import Fleet, fleet
from tests.faults.tcp_proxy import TcpProxy
from tests.live import Installation
from tests.postgres import PostgresServer
from tests.upstream_double import Behaviour, ScriptedUpstream

HOSTS = 4
# All workers together; a thousand where the machine has time for it.
PROBES_PER_S = soak.times(250, soaked=1_000)
ROUNDS = soak.times(2, soaked=25)
pytestmark = [
    pytest.mark.faults,
    pytest.mark.soak,
    pytest.mark.parametrize("kind", ["postgres"]),
]


class Probes:
    """One secret, asked at every worker all the time; when each answered what."""

    def __init__(self, hosts: list[Installation]) -> None:
        self.urls = [host.url for host in hosts]
        self.secret = ""
        # By worker: when a call was sent, and the status that it was answered with.
        self.seen: list[list[tuple[float, int]]] = [[] for _ in hosts]
        self.is_over = False

    def run(self) -> None:
        """Ask until told to end."""
        crowd.run(self._run())

    async def _run(self) -> None:
        lanes = 4
        every_s = HOSTS * lanes / PROBES_PER_S
        await asyncio.gather(
            *(self._ask(worker, every_s) for worker in range(HOSTS) for _ in range(lanes))
        )

    async def _ask(self, worker: int, every_s: float) -> None:
        async with crowd.Line(self.urls[worker]) as line:
            while not self.is_over:
                sent = time.monotonic()
                request = crowd.chat(self.secret, model=loads.WHOLE, max_tokens=5)
                answer = await line.call(request)
                self.seen[worker].append((sent, answer.status))
                await asyncio.sleep(max(0.0, sent + every_s - time.monotonic()))

    def last_let_in(self, worker: int, since: float) -> float:
        """How long after that moment a call was sent that this worker let in; 0: none was."""
        return max(0.0, *(at - since for at, status in self.seen[worker] if status == 200))

    def statuses(self, worker: int, since: float) -> set[int]:
        """What this worker has answered since then."""
        return {status for at, status in self.seen[worker] if at > since}

    def are_let_in(self) -> bool:
        """Whether every worker lets callers in at present."""
        now = time.monotonic()
        return all(200 in self.statuses(worker, now - 0.2) for worker in range(HOSTS))


@contextmanager
def probing(running: Fleet) -> Iterator[Probes]:
    probes = Probes(running.hosts)
    _, probes.secret = running.first.make_key(limit_usd=5)
    thread = threading.Thread(target=probes.run)
    thread.start()
    try:
        yield probes
    finally:
        probes.is_over = True
        thread.join(20)
        assert not thread.is_alive()


def deleted(made: Installation, key_id: int) -> None:
    made.control("DELETE", f"/v1/account/keys/{key_id}")


def disabled(made: Installation, key_id: int) -> None:
    made.control("PATCH", f"/v1/account/keys/{key_id}", json={"is_enabled": False})


def limited(made: Installation, key_id: int) -> None:
    made.control("PATCH", f"/v1/account/keys/{key_id}", json={"credit_limit": 0})


def suspended(made: Installation, key_id: int) -> None:
    set_status(made, "suspended")


def set_status(made: Installation, status: str) -> None:
    """As `bursar accounts suspend` does it, acknowledged when that has committed."""
    change = {"suspended": accounts.suspend, "active": accounts.resume}[status]

    async def work() -> None:
        database = Database(made.database_url, clock_ms=wall_clock_ms)
        try:
            async with database.write() as tx:
                await change(tx, account_id=made.secrets.account_id)
        finally:
            await database.close()

    crowd.run(work())


CHANGES: list[tuple[Callable[[Installation, int], None], int]] = [
    (deleted, 401),
    (disabled, 401),
    (limited, 402),
    (suspended, 403),
]


def eventually(holds: Callable[[], object], *, within_s: float = 45.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def revoke(
    running: Fleet,
    probes: Probes,
    change: Callable[[Installation, int], None],
    status: int,
    *,
    within_s: float,
) -> list[float]:
    """Make a key, take it away, and measure how long each worker let it in after that."""
    key_id, probes.secret = running.first.make_key(limit_usd=5)
    eventually(probes.are_let_in)
    change(running.first, key_id)
    done = time.monotonic()
    time.sleep(within_s)
    for worker in range(HOSTS):
        eventually(partial(probes.statuses, worker, done + within_s))
        final = probes.statuses(worker, done + within_s)
        assert final == {status}, f"{change.__name__}: worker {worker} answers {final}"
    lags = [probes.last_let_in(worker, done) for worker in range(HOSTS)]
    if change is suspended:
        set_status(running.first, "active")
    return lags


def test_whatever_is_taken_away_is_refused_by_every_worker_within_a_second_and_mostly_at_once(
    made: Installation, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.models[loads.WHOLE] = Behaviour(tokens=1)
    with fleet(made, upstream, tmp_path, hosts=HOSTS) as running:
        lags = []
        with probing(running) as probes:
            began = time.monotonic()
            for _ in range(ROUNDS):
                for change, status in CHANGES:
                    lags += revoke(running, probes, change, status, within_s=1.0)
            rate = sum(map(len, probes.seen)) / (time.monotonic() - began)
        lags.sort()
        # Of some thirty the hundredth part would be the worst of all, on a machine that is shared.
        share = 99 if soak.IS_ON else 90
        late = lags[-(-len(lags) * share // 100) - 1]
        print(
            f"{len(lags)} lags at {rate:.0f} probes/s: median {lags[len(lags) // 2]:.3f} s, "
            f"p{share} {late:.3f} s, longest {lags[-1]:.3f} s"
        )
        assert late <= soak.at_most(0.2)
        assert lags[-1] <= soak.at_most(1)
        running.require_books()


def test_a_worker_that_is_cut_off_from_the_database_lets_a_deleted_key_in_for_five_seconds_at_most(
    made: Installation, upstream: ScriptedUpstream, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    upstream.models[loads.WHOLE] = Behaviour(tokens=1)
    url = made.database_url
    with (
        TcpProxy.before(postgres_server.port) as proxy,
        fleet(made, upstream, tmp_path, hosts=HOSTS) as running,
    ):
        cut_off = running.hosts[-1]
        cut_off.stop()
        through = url.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        cut_off.environment["BURSAR_DATABASE_URL"] = through
        cut_off.start()
        with probing(running) as probes:
            eventually(probes.are_let_in)
            key_id, probes.secret = running.first.make_key(limit_usd=5)
            eventually(probes.are_let_in)
            # Until its lease is as large as this rate of spending asks for.
            time.sleep(2.5)
            proxy.swallow()
            deleted(running.first, key_id)
            done = time.monotonic()
            time.sleep(5)
            eventually(lambda: bool(probes.statuses(HOSTS - 1, done + 5)))
            lags = [probes.last_let_in(worker, done) for worker in range(HOSTS)]
            assert probes.statuses(HOSTS - 1, done + 5) == {503}
            proxy.cut()
            proxy.heal()
            healed = time.monotonic()
            eventually(lambda: probes.statuses(HOSTS - 1, time.monotonic() - 0.3) == {401})
            print(f"cut off {lags[-1]:.3f} s, others {lags[:-1]}, {time.monotonic() - healed:.1f}")
        assert max(lags[:-1]) <= soak.at_most(1)
        assert 0 < lags[-1] <= 5
        running.require_books()


def test_where_no_notification_ever_arrives_polling_alone_keeps_the_bound(
    made: Installation, upstream: ScriptedUpstream, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    upstream.models[loads.WHOLE] = Behaviour(tokens=1)
    name = made.database_url.rpartition("/")[2]
    for statement in (
        # Found before the real one: notifications are asked for, and nobody sends them.
        "CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS ''",
        f"ALTER DATABASE {name} SET search_path = public, pg_catalog",
    ):
        postgres_server.execute(statement, database=name)
    with fleet(made, upstream, tmp_path, hosts=HOSTS) as running:
        with probing(running) as probes:
            lags = revoke(running, probes, deleted, 401, within_s=1.5)
            lags += revoke(running, probes, limited, 402, within_s=1.5)
        print(f"without notifications: {sorted(lags)}")
        # Some worker has had to wait for its poll, or this test does not drop what it should.
        assert 0.05 < max(lags) <= 1.5
        running.require_books()
