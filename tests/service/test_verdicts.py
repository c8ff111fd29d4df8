"""A verdict is what admission says where nothing else is asked for, and certain only if it is."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.refusals import Reason
from bursar.service.limits import verdicts
from bursar.service.limits.verdicts import Standing
from bursar.worker import admission
from bursar.worker.purse import Amounts, Hold, Purse
from tests.factories import AT_MS, KEY_LIMIT, WALLET

MINUTE = AllowanceRef(7, "key:3", "requests", "minute")
TOKENS = AllowanceRef(7, "account", "tokens", "hour", "gpt-*")
CALLS = AllowanceRef(7, "user:2", "concurrency", "lifetime")
REFS = (WALLET, KEY_LIMIT, MINUTE, TOKENS, CALLS)
UNIT = {"cost": 0, "requests": 1, "tokens": 2, "concurrency": 3}
AMOUNTS = st.integers(0, 60)


def standing(
    ref: AllowanceRef, limit: int | None, needs: int, *, used: int = 0, leased: int = 0
) -> Standing:
    return Standing(Allowance(ref, limit, used, leased, 0), needs, None)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Allowance], Amounts]:
    """Limits of which nothing is leased to anybody, and a request."""
    rows = [
        Allowance(ref, draw(st.none() | AMOUNTS), used=draw(AMOUNTS), leased=0, window_start_ms=0)
        for ref in draw(st.lists(st.sampled_from(REFS), unique=True))
    ]
    rows = [replace(row, used=0) if row.ref == CALLS else row for row in rows]
    return rows, Amounts(draw(AMOUNTS), 1, draw(AMOUNTS), 1)


@given(scenes())
def test_a_verdict_is_what_admission_says_that_has_leased_all_there_is(
    scene: tuple[list[Allowance], Amounts],
) -> None:
    rows, needs = scene
    purse = Purse()
    slots = []
    for row in rows:
        slot = purse.slot_for(row, zone="UTC", now_ms=AT_MS)
        slot.lease.available = row.left or 0
        slots.append(slot)
    limited = [slot for slot in slots if slot.limit is not None]
    answer = admission.admit(limited, needs, AT_MS)
    standings = [
        Standing(row, needs[UNIT[row.ref.resource]], _end(slot.lease.end_ms, row))
        for row, slot in zip(rows, slots, strict=True)
    ]
    verdict = verdicts.judge(standings, now_ms=AT_MS)
    assert verdict.is_certain
    if isinstance(answer, Hold):
        assert verdict.refusal is None
    else:
        assert verdict.refusal == admission.refuse(answer, needs, AT_MS)
        assert verdicts.affordable_requests(standings) == 0


def _end(end_ms: int, row: Allowance) -> int | None:
    return None if row.ref.window == "lifetime" else end_ms


def test_what_is_leased_may_come_back_so_that_nothing_is_refused_for_it() -> None:
    held = standing(WALLET, 100, 30, used=50, leased=40)
    assert (held.would_refuse, held.is_held) == (False, True)
    verdict = verdicts.judge([held, standing(MINUTE, 5, 1)], now_ms=AT_MS)
    assert (verdict.refusal, verdict.is_certain) == (None, False)


def test_what_is_used_is_refused_whatever_is_leased() -> None:
    spent = standing(KEY_LIMIT, 100, 30, used=80, leased=5)
    assert (spent.would_refuse, spent.is_held) == (True, False)
    held = standing(WALLET, 100, 30, used=50, leased=40)
    verdict = verdicts.judge([held, spent], now_ms=AT_MS)
    assert verdict.refusal is not None
    assert (verdict.refusal.reason, verdict.is_certain) == (Reason.QUOTA, True)
    assert verdict.refusal.allowance == "key:3/cost/lifetime"


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(1, 500))
def test_so_many_requests_are_affordable_and_no_more(limit: int, used: int, needs: int) -> None:
    limited = standing(KEY_LIMIT, limit, needs, used=used)
    others = [standing(WALLET, None, needs), standing(CALLS, 8, 1)]
    count = verdicts.affordable_requests([limited, *others])
    assert count is not None
    assert count * needs <= max(0, limit - used) < (count + 1) * needs


def test_no_limit_leaves_any_number_affordable_and_nothing_needed_costs_nothing() -> None:
    assert verdicts.affordable_requests([]) is None
    assert verdicts.affordable_requests([standing(WALLET, 5, 0), standing(CALLS, 8, 1)]) is None
    assert verdicts.affordable_requests([standing(CALLS, 0, 1)]) == 0


def test_the_tightest_limit_of_cost_is_what_is_left() -> None:
    rows = [standing(WALLET, 100, 0, used=10), standing(KEY_LIMIT, 50, 0, used=60)]
    assert verdicts.left_nanos(rows) == 0
    assert verdicts.left_nanos(rows[:1]) == 90
    assert verdicts.left_nanos([standing(MINUTE, 5, 1)]) == 0
