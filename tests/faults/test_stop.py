"""SIGTERM: what is under way is finished, charged and given back; nothing new is begun."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests import loads
from tests.live import Installation, Process, start
from tests.postgres import PostgresServer
from tests.upstream_double import Behaviour, ScriptedUpstream

pytestmark = pytest.mark.faults


def test_a_server_that_is_stopped_under_load_finishes_its_streams_and_leaves_nothing(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    loads.slow_streams(upstream, tokens=40, gap_s=0.02)
    made.start()
    with loads.calling(made.url, made.secrets.inference_key) as load:
        time.sleep(1.5)
        assert made.stop() == 0
    assert load.complete
    assert {call.status for call in load.calls} == {0, 200}
    broken = [call for call in load.calls if call.status == 200 and not call.is_complete]
    assert broken == [], "a call that had begun was not finished"
    assert (made.journals, made.leased()) == ([], 0)
    rows = made.rows()
    assert len(rows) == len(load.complete) == len(upstream.sales)
    assert {row.outcome for row in rows} == {"ok"}
    loads.require_charged_once(load.calls, upstream.sales, rows, of=loads.cost)
    made.verify()


def test_a_stream_that_takes_too_long_is_ended_and_what_came_of_it_is_charged(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    upstream.models[loads.STREAMED] = Behaviour(tokens=10_000, gap_s=0.02)
    made.environment["BURSAR_DRAIN_S"] = "1"
    made.start()
    with loads.calling(made.url, made.secrets.inference_key, clients=2) as load:
        time.sleep(1)
        began = time.monotonic()
        assert made.stop() == 0
        assert time.monotonic() - began < 6
    assert (made.journals, made.leased()) == ([], 0)
    cut = [row for row in made.rows() if row.outcome == "cut"]
    begun = [call for call in load.calls if call.model == loads.STREAMED and call.status == 200]
    assert len(cut) == len(begun)
    assert all(row.cost_nanos > 0 and row.is_estimated for row in cut)
    made.verify()


def test_a_second_signal_ends_requests_at_once_and_still_charges_them(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    upstream.models[loads.STREAMED] = Behaviour(tokens=10_000, gap_s=0.02)
    upstream.models[loads.WHOLE] = Behaviour(tokens=5, delay_s=0.05, works_on=True)
    made.start()
    with loads.calling(made.url, made.secrets.inference_key, clients=10) as load:
        time.sleep(1)
        for _ in range(2):
            made.tell(signal.SIGINT)
            time.sleep(0.3)
        assert made.wait() == 0
    assert (made.journals, made.leased()) == ([], 0)
    loads.require_charged_once(load.calls, upstream.sales, made.rows(), of=loads.cost)
    made.verify()


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["", "beside a script"])
def _interrupts(request: pytest.FixtureRequest) -> Iterator[None]:
    """What is started ignores Ctrl-C, as what a shell's script starts beside itself; or not."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_a_server_that_is_stopped_while_it_starts_ends_well(made: Installation) -> None:
    for wait_s in (0.3, 0.5, 0.7, 0.8, 0.9, 1.0):
        process = Process(start("serve", **made.environment))
        time.sleep(wait_s)
        code = process.end()
        # Before Python has reached the command there is nothing that could end in order.
        assert code == 0 or (not process.stderr and code == -signal.SIGTERM), process.stderr
        assert "Traceback" not in "".join(process.stderr)
        assert (made.journals, made.leased()) == ([], 0)
    made.verify()


@pytest.mark.parametrize("kind", ["postgres"])
def test_a_server_that_waits_for_its_database_can_be_stopped(
    postgres_server: PostgresServer, made: Installation
) -> None:
    lock = "DO $$ BEGIN LOCK TABLE workers; PERFORM pg_sleep(5); END $$"
    name = made.database_url.rpartition("/")[2]
    holding = threading.Thread(
        target=lambda: postgres_server.execute(lock, database=name),
    )
    holding.start()
    time.sleep(0.5)
    process = Process(start("serve", **made.environment))
    time.sleep(2)
    began = time.monotonic()
    assert process.end() == 0, process.stderr
    assert time.monotonic() - began < 3
    assert not any("Bursar serves" in line for line in process.stderr)
    holding.join()
    made.verify()
