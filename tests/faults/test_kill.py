"""kill -9 in the middle of work: what callers had to the last byte is charged, and once."""

from __future__ import annotations

import time

import pytest

from tests import loads
from tests.live import Installation
from tests.upstream_double import ScriptedUpstream

pytestmark = pytest.mark.faults

ROUNDS = 3


def test_a_killed_server_loses_no_finished_call_and_charges_each_once(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    loads.slow_streams(upstream)
    made.start()
    with loads.calling(made.url, made.secrets.inference_key) as load:
        for _ in range(ROUNDS):
            time.sleep(1.2)
            made.kill()
            made.start()
            made.verify()
        time.sleep(0.5)
    assert len(load.complete) > 20 * ROUNDS
    assert any(call.model == loads.STREAMED for call in load.complete)
    made.control("GET", "/v1/account/balance")
    rows = made.rows()
    loads.require_charged_once(load.calls, upstream.sales, rows, of=loads.cost)
    assert made.balance_nanos() == 100_000_000_000 - sum(row.cost_nanos for row in rows)
    made.verify()
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)
    made.verify()
