"""200 callers on one key of a real server: the limit is spent to the last call and no further."""

from __future__ import annotations

import pytest

from bursar.core.money import parse_usd
from tests import loads
from tests.live import Installation
from tests.upstream_double import Behaviour, ScriptedUpstream

AT_ONCE = 200


@pytest.mark.parametrize("paid_for", [1, 37])
def test_exactly_as_many_of_200_calls_succeed_as_the_limit_pays_for(
    made: Installation, upstream: ScriptedUpstream, paid_for: int
) -> None:
    upstream.models[loads.EXACT] = Behaviour(
        prompt_tokens=loads.EXACT_INPUT, tokens=loads.EXACT_OUTPUT, delay_s=0.05
    )
    made.start()
    limit_nanos = paid_for * loads.EXACT_NANOS
    key_id, secret = made.make_key(limit_usd=limit_nanos / 1e9)

    def call(count: int) -> list[loads.Call]:
        return loads.call_at_once(made.url, secret, count, model=loads.EXACT)

    rush = call(AT_ONCE)
    assert {call.status for call in rush} <= {200, 402, 429}
    assert 1 <= sum(call.is_complete for call in rush) <= paid_for
    for refused in (call for call in rush if call.status != 200):
        require_explained(refused, key_id=key_id)
    singles = []
    while not singles or singles[-1].status == 200:
        singles += call(1)
    last = singles[-1]
    assert (last.status, last.code) == (402, "insufficient_quota")
    assert last.error["left"] == "0.00"
    calls = rush + singles
    assert sum(call.is_complete for call in calls) == paid_for
    assert upstream.sold_nanos(loads.cost) == limit_nanos
    assert made.balance_nanos() == 100_000_000_000 - limit_nanos
    rows = made.rows()
    loads.require_charged_once(calls, upstream.sales, rows, of=loads.cost)
    assert len(rows) == paid_for
    made.verify()
    assert made.stop() == 0
    assert (made.journals, made.leased()) == ([], 0)


def test_calls_that_cost_less_than_they_may_spend_the_rest_one_by_one(
    made: Installation, upstream: ScriptedUpstream
) -> None:
    upstream.models[loads.EXACT] = Behaviour(prompt_tokens=1, tokens=2, delay_s=0.02)
    made.start()
    limit_nanos = 20 * loads.EXACT_NANOS
    key_id, secret = made.make_key(limit_usd=limit_nanos / 1e9)
    calls = loads.call_at_once(made.url, secret, AT_ONCE, model=loads.EXACT)
    for refused in (call for call in calls if call.status != 200):
        require_explained(refused, key_id=key_id)
    while calls[-1].status != 402:
        calls += loads.call_at_once(made.url, secret, 1, model=loads.EXACT)
    left = parse_usd(calls[-1].error["left"])
    assert 0 <= left < loads.EXACT_NANOS
    assert upstream.sold_nanos(loads.cost) == limit_nanos - left
    assert made.balance_nanos() == 100_000_000_000 - limit_nanos + left
    loads.require_charged_once(calls, upstream.sales, made.rows(), of=loads.cost)
    made.verify()


def require_explained(refused: loads.Call, *, key_id: int) -> None:
    """Fail unless a refusal says by which allowance, what is left, and whether to try again."""
    assert refused.error["allowance"] == f"key:{key_id}/cost/lifetime"
    assert refused.error["resets_at"] is None
    left = parse_usd(refused.error["left"])
    if refused.status == 429:
        assert refused.code == "credit_held"
        assert int(refused.retry_after) >= 1
        assert left >= loads.EXACT_NANOS
    else:
        assert refused.code == "insufficient_quota"
        assert refused.retry_after == ""
        assert 0 <= left < loads.EXACT_NANOS
