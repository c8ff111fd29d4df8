"""`bursar serve --workers N` on PostgreSQL: several processes, one limit, one set of books."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests import loads
from tests.live import Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

WORKERS = 3
pytestmark = pytest.mark.parametrize("kind", ["postgres"])


@pytest.fixture
def several(made: Installation, upstream: ScriptedUpstream) -> Installation:
    """An installation that serves from several processes."""
    made.environment["BURSAR_WORKERS"] = str(WORKERS)
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT, delay_s=0.02
    )
    made.start()
    eventually(lambda: len(children(made)) == WORKERS)
    return made


def children(made: Installation) -> list[int]:
    """The processes that serve."""
    assert made.process is not None
    pid = made.process.popen.pid
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def eventually(holds: Callable[[], bool], *, within_s: float = 45.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_no_number_of_processes_spends_more_than_the_limit(
    several: Installation, upstream: ScriptedUpstream
) -> None:
    paid_for = 20
    _, secret = several.make_key(limit_usd=paid_for * loads.EXACT_NANOS / 1e9)
    calls = loads.call_at_once(several.url, secret, 120, model=loads.EXACT)
    assert {call.status for call in calls} <= {200, 402, 429}
    completed = sum(call.is_complete for call in calls)
    assert 1 <= completed <= paid_for
    assert several.stop() == 0
    assert upstream.sold_nanos(loads.cost) == completed * loads.EXACT_NANOS
    assert len(several.rows()) == completed
    assert (several.journals, several.leased()) == ([], 0)
    several.verify()


def test_a_process_that_is_killed_is_replaced_and_its_charges_are_booked_once(
    several: Installation, upstream: ScriptedUpstream
) -> None:
    _, secret = several.make_key()
    calls = loads.call_at_once(several.url, secret, 40, model=loads.EXACT)
    before = children(several)
    os.kill(before[0], signal.SIGKILL)
    eventually(lambda: len(children(several)) == WORKERS and before[0] not in children(several))
    several.wait_until_ready()
    calls += loads.call_at_once(several.url, secret, 40, model=loads.EXACT)
    assert several.stop() == 0
    loads.require_charged_once(calls, upstream.sales, several.rows(), of=loads.cost)
    assert several.leased() == 0
    several.verify()


def test_processes_whose_parent_is_killed_end_in_order_by_themselves(
    several: Installation, upstream: ScriptedUpstream
) -> None:
    calls = loads.call_at_once(several.url, several.make_key()[1], 20, model=loads.EXACT)
    left = children(several)
    several.kill()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in left))
    assert (several.journals, several.leased()) == ([], 0)
    loads.require_charged_once(calls, upstream.sales, several.rows(), of=loads.cost)
    several.verify()
