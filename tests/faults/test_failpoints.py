"""kill -9 at every named point of a call's life: what was finished is charged, once; no more."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests import loads, soak
from tests.live import Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

pytestmark = pytest.mark.faults

CREDIT_NANOS = 100_000_000_000
SQLITE, POSTGRES = ("sqlite",), ("postgres",)
BOTH = SQLITE + POSTGRES
# The point, the time that it is reached, and the databases to try it on when there is little time.
POINTS = (
    ("F-01", "lease.granted", 1, ()),
    ("F-02", "hold.taken", 15, ()),
    ("F-03", "request.sent", 15, ()),
    ("F-04", "stream.chunk", 150, ()),
    ("F-05", "charge.known", 15, ()),
    ("F-06", "charge.written", 15, SQLITE),
    ("F-07", "batch.applied", 5, BOTH),
    ("F-08", "batch.committed", 5, POSTGRES),
)


@contextmanager
def failing(made: Installation, failpoint: str) -> Iterator[None]:
    """A server with a failpoint, until it is dead of it; afterwards none is set."""
    made.environment["BURSAR_FP"] = failpoint
    made.start()
    try:
        yield
        assert made.wait() == -signal.SIGKILL, "the point was not reached"
    finally:
        del made.environment["BURSAR_FP"]


def require_sound(made: Installation, upstream: ScriptedUpstream, calls: list[loads.Call]) -> None:
    """Fail unless both ledgers agree after the restart, and nothing is left in anybody's hands."""
    rows = made.rows()
    loads.require_charged_once(calls, upstream.sales, rows, of=loads.cost)
    assert made.balance_nanos() == CREDIT_NANOS - sum(row.cost_nanos for row in rows)
    assert made.leased() == 0
    assert len(made.journals) == 2, "a dead worker's files are still there"
    made.verify()


@pytest.mark.parametrize(
    ("kind", "point", "nth"),
    [
        pytest.param(kind, point, nth, id=f"{fault}-{point}-{kind}")
        for fault, point, nth, kinds in POINTS
        for kind in (BOTH if soak.IS_ON else kinds)
    ],
)
@pytest.mark.soak
def test_a_server_killed_at_any_point_under_load_charges_what_was_finished_once(
    made: Installation, upstream: ScriptedUpstream, point: str, nth: int
) -> None:
    loads.slow_streams(upstream, tokens=20, gap_s=0.005)
    with failing(made, f"{point}:kill@{nth}"):
        assert any("failpoint_set" in line for line in made.said)
        with loads.calling(made.url, made.secrets.inference_key, clients=6) as load:
            assert made.process is not None
            made.process.popen.wait(20)
    made.start()
    require_sound(made, upstream, load.calls)
    (after,) = loads.call_at_once(made.url, made.secrets.inference_key, 1, model=loads.WHOLE)
    assert after.is_complete


def one_call(made: Installation, *, model: str, failpoint: str, **options: int) -> loads.Call:
    """The one call during which the server dies."""
    with failing(made, failpoint):
        (call,) = loads.call_at_once(
            made.url, made.secrets.inference_key, 1, model=model, **options
        )
        assert not call.is_complete
    return call


@pytest.mark.parametrize("kind", POSTGRES)
def test_f_01_what_was_leased_and_never_heard_of_is_free_again_after_the_start(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    one_call(made, model=loads.WHOLE, failpoint="lease.granted:kill")
    assert made.leased() > 0
    made.verify()
    made.start()
    assert (made.leased(), made.rows(), upstream.sales) == (0, [], [])
    made.verify()


@pytest.mark.parametrize("kind", SQLITE)
def test_f_02_f_03_f_05_a_call_that_dies_with_nothing_written_down_is_nobodys_charge(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    upstream.models[loads.STREAMED] = Behaviour(tokens=5, works_on=True)
    call = one_call(made, model=loads.WHOLE, failpoint="hold.taken:kill")
    assert (call.status, upstream.sales) == (0, [])
    # From here on the upstream may ask for it: that is the operator's loss.
    call = one_call(made, model=loads.STREAMED, failpoint="request.sent:kill")
    assert call.status == 0
    assert len(upstream.sales) <= 1
    before = len(upstream.sales)
    call = one_call(made, model=loads.WHOLE, failpoint="charge.known:kill")
    assert (call.status, len(upstream.sales)) == (0, before + 1)
    made.start()
    assert (made.leased(), made.rows()) == (0, [])
    assert made.balance_nanos() == CREDIT_NANOS
    made.verify()


@pytest.mark.parametrize("kind", SQLITE)
@pytest.mark.parametrize(
    ("passed_on", "gap_s", "least"),
    [(70, 0.002, 64), (31, 0.002, 0), (15, 0.1, 8)],
    ids=["every-32-pieces", "short", "every-second"],
)
def test_f_04_a_stream_killed_half_way_costs_at_least_what_was_noted_and_at_most_what_came(
    made: Installation, upstream: ScriptedUpstream, passed_on: int, gap_s: float, least: int
) -> None:
    upstream.models[loads.STREAMED] = Behaviour(tokens=400, gap_s=gap_s)
    call = one_call(
        made,
        model=loads.STREAMED,
        failpoint=f"stream.chunk:kill@{passed_on}",
        max_tokens=400,
        words=400,
    )
    assert call.status == 200
    notes = [path for path in made.journals if path.suffix == ".streams"]
    assert bool(notes) == bool(least)
    made.start()
    rows = made.rows()
    assert len(rows) == bool(least)
    for row in rows:
        assert (row.event_id, row.outcome, row.is_estimated) == (call.request_id, "cut", 1)
        # Pieces may come together: then more words came than pieces were passed on.
        assert least <= row.output_tokens <= upstream.sales[0].completion_tokens + 1
        assert row.cost_nanos > 0
    assert made.balance_nanos() == CREDIT_NANOS - sum(row.cost_nanos for row in rows)
    assert (made.leased(), len(made.journals)) == (0, 2)
    made.verify()


@pytest.mark.parametrize("kind", SQLITE)
@pytest.mark.parametrize(("point", "is_reported"), [("charge.known", 0), ("charge.written", 1)])
def test_f_05_and_f_06_a_long_stream_that_dies_at_its_charge_is_charged_once_by_what_is_written(
    made: Installation, upstream: ScriptedUpstream, point: str, is_reported: int
) -> None:
    upstream.models[loads.STREAMED] = Behaviour(tokens=100, gap_s=0.001)
    call = one_call(made, model=loads.STREAMED, failpoint=f"{point}:kill", max_tokens=100)
    made.start()
    (row,) = made.rows()
    assert row.event_id == call.request_id
    assert (row.outcome, row.is_estimated) == (("ok", 0) if is_reported else ("cut", 1))
    if is_reported:
        assert row.cost_nanos == loads.cost(upstream.sales[0])
    else:
        assert 64 <= row.output_tokens <= 100
    made.verify()


@pytest.mark.parametrize("kind", POSTGRES)
def test_a_replay_that_is_killed_within_its_transaction_is_done_once_at_the_next_start(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    call = one_call(made, model=loads.WHOLE, failpoint="charge.written:kill")
    made.environment["BURSAR_FP"] = "replay.applied:kill"
    assert made.attempt("serve").returncode == -signal.SIGKILL
    del made.environment["BURSAR_FP"]
    assert made.rows() == []
    made.start()
    (row,) = made.rows()
    assert row.cost_nanos == loads.cost(upstream.sales[0])
    assert call.status == 0
    made.verify()


@pytest.mark.parametrize("kind", SQLITE)
def test_f_12_memory_that_runs_out_within_a_batch_loses_no_charge(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    made.environment["BURSAR_FP"] = "batch.applied:oom@2"
    made.start()
    calls = []
    for _ in range(4):
        calls += loads.call_at_once(made.url, made.secrets.inference_key, 5, model=loads.WHOLE)
    assert all(call.is_complete for call in calls)
    rows = made.rows()
    assert any("MemoryError" in line for line in made.said)
    loads.require_charged_once(calls, upstream.sales, rows, of=loads.cost)
    assert len(rows) == 20
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)
    made.verify()


@pytest.mark.parametrize("kind", SQLITE)
def test_a_failpoint_that_means_nothing_keeps_the_server_from_starting(made: Installation) -> None:
    made.environment["BURSAR_FP"] = "hold.taken:explode"
    done = made.attempt("serve")
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "BURSAR_FP is NAME:kill" in done.stderr
    assert "Traceback" not in done.stderr
