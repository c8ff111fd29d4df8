"""Holds: all or nothing, ended once, never more than is leased."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core.allowances import Allowance, AllowanceRef
from bursar.core.refusals import Reason
from bursar.worker import admission
from bursar.worker.purse import Amounts, Hold, Purse, Slot, paid
from tests.factories import AT_MS, KEY_LIMIT, WALLET

MINUTE = AllowanceRef(7, "key:3", "requests", "minute")


def slot(ref: AllowanceRef, limit: int | None, *, leased: int = 0, used: int = 0) -> Slot:
    made = Purse().slot_for(Allowance(ref, limit, used, leased, 0), zone="UTC", now_ms=AT_MS)
    made.lease.available = leased
    return made


def needs(cost: int, *, tokens: int = 0) -> Amounts:
    return Amounts(cost, 1, tokens, 1)


def hold(slots: list[Slot], cost: int, now_ms: int = AT_MS) -> Hold:
    answer = admission.admit(slots, needs(cost), now_ms)
    assert isinstance(answer, Hold)
    return answer


def test_a_hold_sets_aside_on_every_slot() -> None:
    wallet, key = slot(WALLET, 100, leased=50), slot(KEY_LIMIT, 80, leased=40)
    hold([wallet, key], 30)
    assert (wallet.lease.available, wallet.lease.held) == (20, 30)
    assert (key.lease.available, key.lease.held) == (10, 30)


def test_a_refusal_consumes_nothing_of_any_slot() -> None:
    wallet, key = slot(WALLET, 100, leased=50), slot(KEY_LIMIT, 80, leased=10)
    assert admission.admit([wallet, key], needs(30), AT_MS) == [key]
    assert (wallet.lease.available, wallet.lease.held) == (50, 0)


def test_an_unlimited_slot_asks_for_nothing_but_is_counted() -> None:
    wallet, key = slot(WALLET, 100, leased=50), slot(KEY_LIMIT, None)
    ended = hold([wallet, key], 30).settle(needs(20))
    assert [(m.scope, m.from_lease, m.used) for m in ended.moves] == [
        ("wallet", 20, 20),
        ("key:3", 0, 20),
    ]


def test_settling_gives_back_what_was_not_used() -> None:
    wallet = slot(WALLET, 100, leased=50)
    ended = hold([wallet], 30).settle(needs(12))
    assert (wallet.lease.available, wallet.lease.held, wallet.lease.pending) == (38, 0, 12)
    paid([ended.parts])
    assert wallet.lease.pending == 0


def test_releasing_twice_is_releasing_once() -> None:
    wallet = slot(WALLET, 100, leased=50)
    held = hold([wallet], 30)
    held.release()
    held.release()
    assert (wallet.lease.available, wallet.lease.held) == (50, 0)


def test_a_settled_hold_cannot_be_settled_again() -> None:
    held = hold([slot(WALLET, 100, leased=50)], 30)
    held.settle(needs(1))
    with pytest.raises(RuntimeError):
        held.settle(needs(1))


def test_cost_beyond_the_hold_is_taken_only_as_far_as_every_lease_goes() -> None:
    wallet, key = slot(WALLET, 100, leased=50), slot(KEY_LIMIT, 80, leased=35)
    ended = hold([wallet, key], 30).settle(needs(60))
    assert (ended.covered_nanos, ended.excess_nanos) == (35, 25)
    assert (wallet.lease.available, key.lease.available) == (15, 0)


def test_a_new_window_begins_with_an_empty_lease_and_old_holds_keep_theirs() -> None:
    minute = slot(MINUTE, 10, leased=5)
    held = hold([minute], 0)
    old = minute.lease
    assert admission.admit([minute], needs(0), old.end_ms) == [minute]
    assert minute.lease is not old
    ended = held.settle(needs(0))
    assert ended.moves[0].window_start_ms == old.start_ms
    assert (minute.lease.available, old.available, old.pending) == (0, 4, 1)


def test_what_is_free_is_what_the_present_window_has() -> None:
    hour = slot(AllowanceRef(7, "key:3", "cost", "hour"), 100, leased=100)
    hold([hour], 100).settle(needs(100))
    assert hour.free_at(AT_MS) == 0
    assert hour.free_at(hour.lease.end_ms) == 100


def test_a_call_of_a_window_that_has_ended_takes_nothing_of_what_is_left_of_the_next() -> None:
    hour = slot(AllowanceRef(7, "key:3", "cost", "hour"), 100, leased=50)
    late, end_ms = hold([hour], 30), hour.lease.end_ms
    assert hour.free_at(end_ms) == 100
    late.settle(needs(30))
    assert hour.free_at(end_ms) == 100


def test_spent_credit_is_402_and_held_credit_is_429() -> None:
    wallet = slot(WALLET, 100, leased=100)
    first = hold([wallet], 80)
    refused = admission.refuse([wallet], needs(80), AT_MS)
    assert (refused.reason, refused.retry_after_s) == (Reason.CREDIT_HELD, 1)
    first.settle(needs(80))
    refused = admission.refuse([wallet], needs(80), AT_MS)
    assert (refused.reason, refused.allowance, refused.left) == (
        Reason.QUOTA,
        "wallet/cost/lifetime",
        20,
    )


def test_spent_credit_refuses_before_a_rate() -> None:
    wallet, minute = slot(WALLET, 0), slot(MINUTE, 0)
    assert admission.refuse([minute, wallet], needs(80), AT_MS).reason is Reason.QUOTA


def test_a_rate_refuses_before_held_credit_and_says_when_it_resets() -> None:
    wallet, minute = slot(WALLET, 100), slot(MINUTE, 0)
    refused = admission.refuse([wallet, minute], needs(80), AT_MS)
    assert refused.reason is Reason.RATE
    assert refused.resets_at_ms == minute.lease.end_ms
    assert refused.retry_after_s == -(-(minute.lease.end_ms - AT_MS) // 1000)


@given(
    leased=st.integers(0, 200),
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 90), st.booleans())),
)
def test_nothing_is_made_or_lost_whatever_requests_do(
    leased: int, steps: list[tuple[int, int, bool]]
) -> None:
    wallet = slot(WALLET, 1_000, leased=leased)
    for need, cost, is_settled in steps:
        answer = admission.admit([wallet], needs(need), AT_MS)
        if isinstance(answer, Hold):
            if is_settled:
                answer.settle(needs(cost))
            else:
                answer.release()
        lease = wallet.lease
        assert min(lease.available, lease.held, lease.pending) >= 0
        assert lease.available + lease.held + lease.pending == leased


@given(count=st.integers(1, 30), need=st.integers(1, 20), leased=st.integers(0, 200))
def test_exactly_as_many_are_admitted_as_the_lease_pays(count: int, need: int, leased: int) -> None:
    wallet = slot(WALLET, 1_000, leased=leased)
    admitted = sum(
        isinstance(admission.admit([wallet], needs(need), AT_MS), Hold) for _ in range(count)
    )
    assert admitted == min(count, leased // need)


def test_an_allowance_has_one_slot_even_while_a_request_waits_for_a_forgotten_key() -> None:
    purse, allowance = Purse(), Allowance(WALLET, 100, 0, 0, 0)
    waited_for = purse.slot_for(allowance, zone="UTC", now_ms=AT_MS)
    with purse.using([waited_for]):
        purse.forget(waited_for)
        assert purse.slots == {WALLET: waited_for}
    purse.forget(waited_for)
    assert purse.slots == {}
    with purse.using([waited_for]):
        assert purse.slots == {WALLET: waited_for}
    purse.forget(waited_for)
    assert purse.slot_for(allowance, zone="UTC", now_ms=AT_MS) is waited_for


def test_credit_that_is_known_to_be_spent_is_named_though_only_the_rate_was_asked_for() -> None:
    """Else the same request is 402 or 429 by what other requests have asked before it."""
    key, minute = slot(KEY_LIMIT, 50, used=20), slot(MINUTE, 4, used=4)
    minute.exhausted_until_ms = AT_MS + 250
    assert admission.is_settled([key, minute], needs(31), AT_MS)
    assert admission.refuse([key, minute], needs(31), AT_MS).reason is Reason.QUOTA
    assert admission.refuse([key, minute], needs(30), AT_MS).reason is Reason.RATE
