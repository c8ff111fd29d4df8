"""The clock of the host is set, back and forth, under a live server: nothing is doubled or lost.

libfaketime stands between the server and its wall clock; the monotonic one stays true. Where it is
not installed (Debian: `apt-get install faketime`) these tests are skipped.
"""

from __future__ import annotations

import asyncio
import glob
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, update

from bursar.core.allowances import AllowanceRef
from bursar.core.windows import Window, bounds
from bursar.store import tables
from bursar.store.database import Database, WriteTx
from bursar.store.limits import allowances
from tests import loads
from tests.live import Installation
from tests.postgres import PostgresServer
from tests.upstream_double import ScriptedUpstream

_FOLDERS = ("/usr/lib", "/usr/lib/*", "/usr/lib64", "/usr/local/lib", "/opt/*/lib")
LIBRARIES = [
    path
    for folder in _FOLDERS
    for path in sorted(glob.glob(f"{folder}/faketime/libfaketimeMT.so.1"))
]
ZONE = "Europe/Berlin"
HOUR_S, DAY_S = 3_600, 86_400
LIMIT = 4
# What may be called in each window.
LIMITS = {"hour": LIMIT, "day": 2 * LIMIT, "month": 10 * LIMIT}

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed: apt install faketime"),
]


@dataclass
class FakeTime:
    """The wall clock of a process: the true one, and so many seconds."""

    file: Path
    offset_s: float = 0.0

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process look at this clock."""
        return {
            "LD_PRELOAD": LIBRARIES[0],
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            # Its remedy for another C library has threads spin while they wait for each other.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self.offset_s += seconds
        # Replaced in one step: the process reads it all the time.
        new = self.file.with_suffix(".new")
        new.write_text(f"{self.offset_s:+.3f}\n")
        new.rename(self.file)

    def set(self, moment: datetime) -> None:
        """Set the clock to this moment."""
        self.jump(moment.timestamp() - self.now_ms() / 1000)

    def now_ms(self) -> int:
        """What the process sees."""
        return int((time.time() + self.offset_s) * 1000)


@pytest.fixture
def clock(made: Installation, tmp_path: Path) -> FakeTime:
    """The clock of the installation's server."""
    fake = FakeTime(tmp_path / "clock")
    fake.jump(0)
    made.environment |= fake.environment
    return fake


def on(made: Installation, clock: FakeTime, work: Callable[[WriteTx], Awaitable[None]]) -> None:
    """Do something in the database that no command does yet."""

    async def run() -> None:
        database = Database(made.database_url, clock_ms=clock.now_ms)
        try:
            async with database.write() as tx:
                await work(tx)
        finally:
            await database.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(run())


def limit(made: Installation, clock: FakeTime) -> None:
    """Limit the account's requests in each calendar window, in a zone with summer time."""
    account_id = made.secrets.account_id

    async def work(tx: WriteTx) -> None:
        await tx.execute(update(tables.accounts).values(time_zone=ZONE))
        for window, most in LIMITS.items():
            ref = AllowanceRef(account_id, "account", "requests", window)
            await allowances.insert_allowance(tx, ref=ref, limit=most)

    on(made, clock, work)


def call(made: Installation) -> int:
    """Call once; the status."""
    (done,) = loads.call_at_once(made.url, made.secrets.inference_key, 1, model=loads.WHOLE)
    assert done.status in (200, 429), (done.status, done.error, made.said[-5:])
    return done.status


def rows_per_window(made: Installation, window: str) -> dict[int, int]:
    """How many usage rows lie in each window, by its beginning."""
    found: dict[int, int] = {}
    for row in made.rows():
        start_ms = bounds(Window(window), now_ms=row.at_ms, zone=ZONE).start_ms
        found[start_ms] = found.get(start_ms, 0) + 1
    return found


def require_right(made: Installation, upstream: ScriptedUpstream) -> None:
    """No window was exceeded, no duration is negative, and what was sold is what was charged."""
    rows = made.rows()
    assert all(row.duration_ms >= 0 and row.first_byte_ms >= 0 for row in rows)
    assert len({row.event_id for row in rows}) == len(rows) == len(upstream.sales)
    assert sum(row.cost_nanos for row in rows) == upstream.sold_nanos(loads.cost)
    moments = [row.at_ms for row in rows]
    assert moments == sorted(moments)
    for window, most in LIMITS.items():
        assert max(rows_per_window(made, window).values()) <= most, window
    made.verify()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE))


def spend(made: Installation) -> int:
    """Call until the limit says no; how often that went well."""
    for count in range(10 * LIMIT):
        if call(made) == 429:
            return count
    raise AssertionError("no limit holds")


MOMENTS = (
    "2027-01-31 23:59:58",
    "2027-02-10 12:30:00",
    "2027-03-28 01:59:58",
    "2027-04-15 23:59:58",
    "2027-10-31 02:59:58",
    "2038-01-19 04:14:05",
)


def test_a_clock_that_jumps_forth_and_back_gives_no_window_twice(
    made: Installation, upstream: ScriptedUpstream, clock: FakeTime
) -> None:
    clock.set(moment(MOMENTS[0]))
    limit(made, clock)
    made.start()
    spent = {}
    for begin in MOMENTS:
        clock.set(moment(begin))
        spent[begin] = [spend(made)]
        for jump_s in (HOUR_S, DAY_S):
            clock.jump(jump_s)
            spent[begin].append([call(made), call(made)].count(200))
            # The window that the jump began goes on; the earlier one is not opened again.
            clock.jump(-jump_s)
            spent[begin].append(spend(made))
            clock.jump(jump_s)
            spent[begin].append(spend(made))
        if begin == MOMENTS[1]:
            made.verify()
    # At noon no window ends by itself in the few seconds that this takes.
    assert spent[MOMENTS[1]] == [LIMIT, 2, LIMIT - 2, 0, 2, LIMIT - 2, 0]
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)
    require_right(made, upstream)


@pytest.mark.parametrize("kind", ["sqlite"])
def test_a_server_that_starts_behind_the_windows_in_force_waits_for_them(
    made: Installation, upstream: ScriptedUpstream, clock: FakeTime
) -> None:
    noon = moment("2027-02-10 12:30:00")
    clock.set(noon)
    limit(made, clock)
    made.start()
    assert spend(made) == LIMIT
    assert made.stop() == 0
    clock.jump(-DAY_S)
    made.start()
    assert spend(made) == 0
    clock.jump(DAY_S + HOUR_S)
    time.sleep(0.5)
    assert spend(made) == LIMIT
    require_right(made, upstream)
    assert made.stop() == 0


@dataclass
class Fleet:
    """Two servers on one PostgreSQL, the second with a clock of its own."""

    here: Installation
    there: Installation
    clock: FakeTime
    ttl_s: float

    def live(self) -> list[int]:
        """The workers that have not been closed."""
        workers = tables.workers.c
        query = select(workers.id).where(workers.state == "live").order_by(workers.id)
        return [row[0] for row in self.here._ask(query)]

    def serve(self) -> list[int]:
        """Start both; their workers."""
        self.here.start()
        self.there.start()
        found = self.live()
        assert len(found) == 2
        return found

    def let_pass(self, seconds: float) -> None:
        """Let time pass with a call on each now and then."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert (call(self.here), call(self.there)) == (200, 200)
            time.sleep(0.1)


@pytest.fixture
def fleet(made: Installation, clock: FakeTime, tmp_path: Path) -> Iterator[Fleet]:
    """Two servers yet to be started, whose workers are dead after two seconds of silence."""
    for name in clock.environment:
        del made.environment[name]
    shutil.copytree(made.data_dir, tmp_path / "there")
    there = Installation(tmp_path / "there", made.secrets, database_url=made.database_url)
    there.environment |= clock.environment
    for each in (made, there):
        each.environment["BURSAR_LEASE_TTL_S"] = "2"
    try:
        yield Fleet(made, there, clock, 2.0)
    finally:
        there.close()


@pytest.mark.parametrize("kind", ["postgres"])
def test_clocks_that_differ_or_jump_close_no_worker_that_lives(
    fleet: Fleet, upstream: ScriptedUpstream
) -> None:
    fleet.clock.jump(-5)
    workers = fleet.serve()
    for jump_s in (10, HOUR_S, -2 * HOUR_S, DAY_S):
        fleet.clock.jump(jump_s)
        fleet.let_pass(fleet.ttl_s + 0.5)
        assert fleet.live() == workers
    for each in (fleet.here, fleet.there):
        assert not any("worker_fenced" in line for line in each.said)
        assert each.stop() == 0
    assert fleet.live() == []
    assert len(fleet.here.rows()) == len(upstream.sales)
    fleet.here.verify()


@pytest.mark.parametrize("kind", ["postgres"])
@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S], ids=["ahead", "behind"])
def test_a_clock_that_jumps_keeps_no_dead_workers_leases(
    fleet: Fleet, upstream: ScriptedUpstream, jump_s: int
) -> None:
    workers = fleet.serve()
    assert call(fleet.here) == 200
    assert len(fleet.here.rows()) == 1
    assert fleet.here.leased() > 0
    fleet.here.kill()
    fleet.clock.jump(jump_s)
    started = time.monotonic()
    while fleet.here.leased():
        assert time.monotonic() < started + 5 * fleet.ttl_s, "credit is lost"
        time.sleep(0.1)
    assert time.monotonic() - started > fleet.ttl_s / 2
    assert fleet.live() == workers[1:]
    assert fleet.there.stop() == 0
    assert len(fleet.there.rows()) == len(upstream.sales)
    fleet.there.verify()


@pytest.mark.parametrize("kind", ["postgres"])
def test_after_an_outage_nobody_is_closed_for_having_been_silent(
    fleet: Fleet, upstream: ScriptedUpstream, postgres_server: PostgresServer
) -> None:
    workers = fleet.serve()
    fleet.let_pass(0.5)
    postgres_server.stop()
    time.sleep(fleet.ttl_s * 2)
    postgres_server.start()
    for each in (fleet.here, fleet.there):
        each.wait_until_ready()
    fleet.let_pass(fleet.ttl_s * 2)
    assert fleet.live() == workers
    for each in (fleet.here, fleet.there):
        assert not any("worker_fenced" in line for line in each.said)
        assert each.stop() == 0
    assert len(fleet.here.rows()) == len(upstream.sales)
    fleet.here.verify()
