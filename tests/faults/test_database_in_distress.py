"""PostgreSQL is there and in distress: killed, full of others, locked, at odds with itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import asyncpg
import httpx2
import pytest

from tests import soak
from tests.faults.proxied import ANSWER_S, Proxied, eventually, meanwhile, proxied

pytestmark = [pytest.mark.faults, soak.ended_after(120)]

MAX_CONNECTIONS = 40
CONNECTIONS = 10
KILLS = soak.times(3, soaked=20)
GIVE_WAY = """
CREATE FUNCTION give_way() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF random() < 0.15 THEN RAISE EXCEPTION 'injected' USING ERRCODE = '40001'; END IF;
    IF random() < 0.15 THEN RAISE EXCEPTION 'injected' USING ERRCODE = '40P01'; END IF;
    RETURN NULL;
END $$
"""


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """One server for all tests of this module: each leaves it well."""
    settings = {"max_connections": str(MAX_CONNECTIONS)}
    with proxied(
        tmp_path_factory.mktemp("distress"),
        settings=settings,
        BURSAR_DATABASE_CONNECTIONS=str(CONNECTIONS),
        BURSAR_JOURNAL_MAX_BYTES="1000000",
    ) as running:
        yield running


@pytest.fixture
def house(started: Proxied) -> Iterator[Proxied]:
    """The server with a way to its database that is well, before the test and after it."""
    yield started
    started.proxy.heal()
    started.proxy.cut()


def database_of(house: Proxied) -> str:
    return house.made.database_url.rpartition("/")[2]


@contextlib.contextmanager
def executing(house: Proxied, before: str, after: str = "") -> Iterator[None]:
    """Run a statement as the superuser, and another one at the end."""
    house.server.execute(before, database=database_of(house))
    try:
        yield
    finally:
        if after:
            house.server.execute(after, database=database_of(house))


def test_a_postmaster_that_is_killed_again_and_again_loses_nothing_it_acknowledged(
    house: Proxied,
) -> None:
    with house.load():
        for number in range(KILLS):
            time.sleep(0.3 + 0.17 * (number % 4))
            house.server.kill()
            time.sleep(0.2)
            house.server.start()
            eventually(lambda: house.ask().status_code == 200)
            (made,) = house.call()
            assert made.status in (200, 503)
    house.require_books()


def test_a_charge_whose_backend_is_killed_in_its_transaction_is_booked_once(
    house: Proxied,
) -> None:
    url = house.made.database_url.replace("postgresql+asyncpg", "postgresql")

    async def kill_a_settlement() -> None:
        holder = await asyncpg.connect(url)
        await holder.execute("BEGIN; SELECT 1 FROM allowances FOR UPDATE")
        end = time.monotonic() + 10
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        watcher = await asyncpg.connect(url)
        while not (rows := await watcher.fetch(waiting)):
            assert time.monotonic() < end, "nobody settles"
        os.kill(rows[0]["pid"], signal.SIGKILL)
        # PostgreSQL ends every connection then, and recovers as after a crash.
        for connection in (holder, watcher):
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                while True:
                    await connection.execute("SELECT 1")
            connection.terminate()

    with house.load(clients=4) as load:
        time.sleep(0.3)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(kill_a_settlement())
        served = len(load.complete)
        eventually(lambda: len(load.complete) > served + 20)
    house.require_books()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_commit_that_the_disk_fails_is_settled_once(house: Proxied) -> None:
    with house.load(clients=4) as load:
        time.sleep(0.5)
        assert house.ask().status_code == 200
        pids = [str(pid) for pid in house.backends()]
        process = subprocess.Popen(
            ["strace", "-f", "-q", "-e", "trace=fdatasync"]
            + ["-e", "inject=fdatasync:error=EIO:when=1"]
            + [part for pid in pids for part in ("-p", pid)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        # It ends with the last of them: PostgreSQL does not go on after such a failure.
        said = process.communicate(timeout=20)[1]
        if "attach" in said and "INJECTED" not in said:
            pytest.skip(f"strace may not look into other processes here: {said.splitlines()[0]}")
        assert "EIO" in said
        assert "INJECTED" in said
        served = len(load.complete)
        eventually(lambda: len(load.complete) > served + 20)
    assert "could not fdatasync" in house.server.log_file.read_text()
    house.require_books()


def test_connections_that_others_have_taken_are_taken_back_when_they_go(house: Proxied) -> None:
    with house.load(clients=4) as load, outsiders(house):
        refused = house.ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (
            503,
            "ledger_unavailable",
        )
        time.sleep(1)
        # What the leases can pay is served.
        assert len(load.complete) > 20
    house.require_books()


@contextlib.contextmanager
def outsiders(house: Proxied) -> Iterator[None]:
    """Others hold every connection there is; those that the server had are gone."""
    url = house.made.database_url.replace("postgresql+asyncpg", "postgresql")
    held: list[asyncpg.Connection] = []
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> ALL($1::int[])"

    async def take() -> None:
        mine: list[int] = []
        for _ in range(3):
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while True:
                    held.append(await asyncpg.connect(url))
                    mine.append(held[-1].get_server_pid())
            await held[0].execute(f"{ending} AND backend_type = 'client backend'", mine)
            await asyncio.sleep(0.05)

    async def leave() -> None:
        for connection in held:
            await connection.close()

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(take())
        try:
            yield
        finally:
            runner.run(leave())


def test_a_rush_of_control_calls_is_bounded_and_takes_nothing_from_model_calls(
    house: Proxied,
) -> None:
    answers: list[httpx2.Response] = []

    async def rush() -> None:
        headers = {"authorization": f"Bearer {house.made.secrets.provisioning_key}"}
        limits = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(timeout=40, limits=limits, headers=headers) as http:
            path = f"{house.made.url}/v1/account/balance"
            answers.extend(await asyncio.gather(*(http.get(path) for _ in range(200))))

    def run() -> None:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(rush())

    assert house.call(2)[0].status == 200
    house.proxy.slow(delay_s=0.02)
    began = time.monotonic()
    with house.load(clients=4) as load, meanwhile(run):
        time.sleep(1)
    took = time.monotonic() - began
    codes = Counter(
        (answer.status_code, answer.json().get("error", {}).get("code")) for answer in answers
    )
    print(f"200 control calls over {CONNECTIONS} connections in {took:.1f} s: {dict(codes)}")
    assert codes.keys() == {(200, None), (503, "overloaded")}
    assert all(int(each.headers["retry-after"]) >= 1 for each in answers if each.is_error)
    assert took < 2 * ANSWER_S
    assert {call.status for call in load.calls} == {200}
    house.require_books()


def test_a_locked_table_is_waited_for_no_longer_than_that(house: Proxied) -> None:
    lock = "DO $$ BEGIN LOCK TABLE accounts; PERFORM pg_sleep(6); END $$"

    def hold() -> None:
        with contextlib.closing(asyncio.new_event_loop()) as loop:
            loop.run_until_complete(execute(house, lock))

    assert house.call()[0].status == 200
    with house.load(clients=4) as load, meanwhile(hold):
        time.sleep(0.5)
        house.require_unavailable()
    assert {call.status for call in load.calls} == {200}
    house.require_books()


def test_a_journal_that_is_full_stops_new_calls_and_loses_none_that_were_served(
    house: Proxied,
) -> None:
    url = house.made.database_url.replace("postgresql+asyncpg", "postgresql")

    async def hold_up_settlement() -> asyncpg.Connection:
        connection = await asyncpg.connect(url)
        await connection.execute("BEGIN; LOCK TABLE usage_events IN SHARE MODE")
        return connection

    runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
    with runner, house.load(clients=20) as load:
        holder = runner.run(hold_up_settlement())
        eventually(lambda: any(call.code == "storage_full" for call in load.calls), within_s=60)
        ready = httpx2.get(f"{house.made.url}/readyz", timeout=5)
        assert (ready.status_code, ready.json()) == (503, {"status": "storage_full"})
        runner.run(holder.close())
        served = len(load.complete)
        eventually(lambda: len(load.complete) > served + 20)
    assert {call.status for call in load.calls} == {200, 503}
    assert all(call.is_complete for call in load.calls if call.status == 200)
    house.require_books()


async def execute(house: Proxied, sql: str) -> None:
    url = house.made.database_url.replace("postgresql+asyncpg", "postgresql")
    connection = await asyncpg.connect(url)
    await connection.execute(sql)
    await connection.close()


def test_transactions_that_must_give_way_are_done_again_and_once(house: Proxied) -> None:
    trigger = (
        "CREATE TRIGGER give_way AFTER UPDATE ON allowances FOR EACH STATEMENT"
        " EXECUTE FUNCTION give_way()"
    )
    house.server.execute(GIVE_WAY, database=database_of(house))
    credit = f"/v1/operator/accounts/{house.made.secrets.account_id}/credit"
    before = house.made.balance_nanos()
    charged = sum(row.cost_nanos for row in house.made.rows())
    grants: list[httpx2.Response] = []
    dropped = "DROP TRIGGER give_way ON allowances"
    with executing(house, trigger, dropped), house.load(clients=4) as load:
        grants += [
            httpx2.post(
                f"{house.made.url}{credit}",
                headers={"authorization": f"Bearer {house.made.secrets.operator_key}"},
                json={"amount": "0.50"},
                timeout=20,
            )
            for _ in range(20)
        ]
    granted = sum(answer.status_code == 201 for answer in grants)
    print(f"{granted} of 20 grants, {len(load.complete)} of {len(load.calls)} calls")
    assert {answer.status_code for answer in grants} <= {201, 503}
    assert granted >= 18
    house.require_books()
    now = sum(row.cost_nanos for row in house.made.rows())
    assert house.made.balance_nanos() == before + granted * 500_000_000 - (now - charged)
