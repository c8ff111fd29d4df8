"""An allowance is never overdrawn, whatever order of steps its row goes through."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from bursar.core import allowances
from bursar.core.allowances import Allowance, AllowanceRef, Resource
from bursar.core.errors import InvariantViolated
from bursar.core.money import MAX_NANOS

WALLET = AllowanceRef(7, "account", Resource.COST, "lifetime")
TOKENS = AllowanceRef(7, "key:12", Resource.TOKENS, "minute", "gpt-4o")
AMOUNTS = st.integers(0, 50) | st.integers(0, 10**6)


def row(
    limit: int | None, used: int = 0, leased: int = 0, *, ref: AllowanceRef = WALLET
) -> Allowance:
    return Allowance(ref, limit, used, leased, window_start_ms=1000)


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        (AllowanceRef(1, "key:12", "cost", "lifetime"), "key:12/cost/lifetime"),
        (WALLET, "account/cost/lifetime"),
        (TOKENS, "key:12/tokens/minute/gpt-4o"),
        (AllowanceRef(1, "project:9", Resource.COST, "month"), "project:9/cost/month"),
    ],
)
def test_an_allowance_is_named_by_scope_resource_and_window(ref: AllowanceRef, name: str) -> None:
    assert ref.name == name


@pytest.mark.parametrize(
    ("limit", "soft", "ref", "ceiling"),
    [
        (100, None, WALLET, 100),
        (0, 50, TOKENS, 0),
        (None, None, WALLET, None),
        (None, 50, WALLET, MAX_NANOS),
        (None, None, TOKENS, MAX_NANOS),
        (None, 50, TOKENS, MAX_NANOS),
    ],
)
def test_what_has_a_window_or_a_warning_is_leased_though_it_stops_nobody(
    limit: int | None, soft: int | None, ref: AllowanceRef, ceiling: int | None
) -> None:
    assert replace(row(limit, ref=ref), soft=soft).ceiling == ceiling


@pytest.mark.parametrize(
    ("limit", "used", "leased", "left", "free"),
    [
        (100, 0, 0, 100, 100),
        (100, 30, 20, 70, 50),
        (100, 100, 0, 0, 0),
        (100, 90, 40, 10, 0),
        (100, 130, 0, 0, 0),
        (None, 5, 5, None, None),
    ],
)
def test_left_is_what_is_not_used_and_free_what_is_not_leased_either(
    limit: int | None, used: int, leased: int, left: int | None, free: int | None
) -> None:
    found = row(limit, used, leased)
    assert (found.left, found.free) == (left, free)


@pytest.mark.parametrize(
    ("limit", "need", "want", "granted"),
    [
        (1000, 10, 50, 50),  # what is wanted, while it is little
        (1000, 10, 500, 125),  # an eighth of what is free
        (1000, 300, 500, 300),  # what is needed, even if it is more than an eighth
        (1000, 1000, 1000, 1000),  # the last unit can be spent
        (1000, 1001, 2000, 0),
        (7, 1, 100, 1),  # near zero, exactly what is needed
        (7, 0, 100, 0),
        (0, 1, 1, 0),
        (0, 0, 0, 0),
        (None, 10, 10**9, 10**9),
        (None, 10, 5, 10),
    ],
)
def test_a_lease_is_at_least_the_need_and_at_most_an_eighth_more(
    limit: int | None, need: int, want: int, granted: int
) -> None:
    after, found = allowances.take(row(limit), need, want)
    assert found == granted
    assert after == row(limit, leased=granted)


@pytest.mark.parametrize(
    ("limit", "need", "demand", "granted"),
    [
        (1000, 10, 400, 400),  # more than an eighth, because requests wait for it
        (1000, 10, 5000, 1000),  # as far as it goes
        (1000, 10, 5, 125),
        (5, 10, 400, 0),  # what nobody can use is left to others
        (None, 10, 400, 500),
    ],
)
def test_what_waiting_requests_ask_for_is_granted_as_far_as_it_is_free(
    limit: int | None, need: int, demand: int, granted: int
) -> None:
    after, found = allowances.take(row(limit), need, 500, demand=demand)
    assert found == granted
    assert after == row(limit, leased=granted)


def test_refs_sort_by_account_first_so_that_rows_are_locked_in_one_order() -> None:
    refs = [TOKENS, WALLET, replace(WALLET, account_id=2), replace(TOKENS, model="")]
    assert sorted(refs) == [refs[2], refs[1], refs[3], refs[0]]


def test_a_partial_lease_takes_whatever_is_free() -> None:
    assert allowances.take(row(100, 60, 10), 50, 50) == (row(100, 60, 10), 0)
    assert allowances.take(row(100, 60, 10), 50, 50, partial=True) == (row(100, 60, 40), 30)
    assert allowances.take(row(100, 60, 50), 50, 50, partial=True) == (row(100, 60, 50), 0)


def test_settling_replaces_the_lease_by_the_use() -> None:
    assert allowances.settle(row(100, 10, 50), 30, 20) == row(100, 30, 20)


def test_cost_exceeds_its_lease_only_into_what_is_free() -> None:
    assert allowances.settle(row(100, 10, 50), 30, 70) == row(100, 80, 20)
    with pytest.raises(InvariantViolated):
        allowances.settle(row(100, 10, 50), 30, 71)
    assert allowances.settle(row(None, 10, 50), 30, 10**9) == row(None, 10 + 10**9, 20)


def test_cost_settles_within_its_lease_after_the_limit_was_lowered() -> None:
    lowered = allowances.with_limit(row(100, 10, 50), 20)
    assert allowances.settle(lowered, 50, 50) == row(20, 60, 0)
    with pytest.raises(InvariantViolated):
        allowances.settle(lowered, 50, 51)


def test_tokens_may_exceed_their_lease_because_it_was_an_estimate() -> None:
    assert allowances.settle(row(100, 90, 10, ref=TOKENS), 10, 40) == row(100, 130, 0, ref=TOKENS)


def test_a_new_window_starts_empty_and_forgets_the_leases_of_the_old() -> None:
    assert allowances.roll(row(100, 40, 30), 2000) == replace(row(100), window_start_ms=2000)


@pytest.mark.parametrize("start", [1000, 999, 0])
def test_a_clock_that_steps_back_grants_nothing(start: int) -> None:
    assert allowances.roll(row(100, 40, 30), start) == row(100, 40, 30)


@pytest.mark.parametrize(
    "broken",
    [
        row(100, -1),
        row(100, 0, -1),
        row(-1),
        row(MAX_NANOS + 1),
        row(None, MAX_NANOS, 1),
    ],
)
def test_a_row_that_cannot_be_true_is_noticed(broken: Allowance) -> None:
    with pytest.raises(InvariantViolated) as refusal:
        allowances.check(broken)
    assert broken.ref.name in refusal.value.message


@pytest.mark.parametrize("sound", [row(0), row(MAX_NANOS), row(None, MAX_NANOS - 1, 1)])
def test_the_smallest_and_the_largest_rows_are_sound(sound: Allowance) -> None:
    allowances.check(sound)


@pytest.mark.parametrize("amount", [0, 1, 30])
def test_any_part_of_a_lease_can_be_ended(amount: int) -> None:
    assert allowances.give_back(row(100, 0, 30), amount) == row(100, 0, 30 - amount)
    assert allowances.settle(row(100, 0, 30), amount, 0) == row(100, 0, 30 - amount)


@pytest.mark.parametrize("amount", [-1, 31])
def test_nobody_ends_more_of_a_lease_than_there_is(amount: int) -> None:
    with pytest.raises(InvariantViolated):
        allowances.give_back(row(100, 0, 30), amount)
    with pytest.raises(InvariantViolated):
        allowances.settle(row(100, 0, 30), amount, 0)


def test_nothing_negative_is_leased_or_used() -> None:
    for need, want, demand in ((-1, 5, 0), (5, -1, 0), (5, 5, -1)):
        with pytest.raises(InvariantViolated):
            allowances.take(row(100), need, want, demand=demand)
    with pytest.raises(InvariantViolated):
        allowances.settle(row(100, 0, 30), 10, -1)


@given(st.integers(0, 10**9), AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.booleans())
def test_a_lease_never_goes_beyond_what_is_free(
    limit: int, used: int, leased: int, need: int, want: int, partial: bool
) -> None:
    before = row(limit, used, leased)
    after, granted = allowances.take(before, need, want, partial=partial)
    assert before.free is not None
    assert 0 <= granted <= before.free
    assert granted >= need or partial or granted == 0
    assert after == row(limit, used, leased + granted)


@given(st.integers(1, 5000), st.integers(1, 10))
def test_the_last_unit_can_be_spent(limit: int, need: int) -> None:
    state, spent = row(limit), 0
    while True:
        state, granted = allowances.take(state, min(need, limit - spent) or 1, 1000)
        if not granted:
            break
        state = allowances.settle(state, granted, granted)
        spent += granted
    assert spent == limit
    assert state.left == 0


class AllowanceMachine(RuleBasedStateMachine):
    """One cost row and the leases on it, through every step that there is, in any order."""

    leases = Bundle("leases")

    @initialize(limit=st.none() | AMOUNTS)
    def start(self, limit: int | None) -> None:
        self.row = row(limit)
        self.outstanding = 0
        self.ceiling = limit

    @rule(target=leases, need=AMOUNTS, want=AMOUNTS, demand=AMOUNTS, partial=st.booleans())
    def take(self, need: int, want: int, demand: int, partial: bool) -> object:
        self.row, granted = allowances.take(self.row, need, want, demand=demand, partial=partial)
        if not granted:
            return multiple()
        if self.row.limit is not None:
            assert self.row.used + self.row.leased <= self.row.limit
        self.outstanding += granted
        return (self.row.window_start_ms, granted)

    @rule(lease=consumes(leases), share=st.fractions(0, 1))
    def settle(self, lease: tuple[int, int], share: object) -> None:
        window, amount = lease
        if window == self.row.window_start_ms:
            self.row = allowances.settle(self.row, amount, int(amount * share))  # type: ignore[operator]
            self.outstanding -= amount

    @rule(lease=consumes(leases))
    def give_back(self, lease: tuple[int, int]) -> None:
        window, amount = lease
        if window == self.row.window_start_ms:
            self.row = allowances.give_back(self.row, amount)
            self.outstanding -= amount

    @rule(by=st.integers(-5, 5))
    def roll(self, by: int) -> None:
        start = self.row.window_start_ms + by
        self.row = allowances.roll(self.row, start)
        if by > 0:
            self.outstanding = 0
            self.ceiling = self.row.limit

    @rule(limit=st.none() | AMOUNTS)
    def change_limit(self, limit: int | None) -> None:
        self.row = allowances.with_limit(self.row, limit)
        self.ceiling = None if None in (limit, self.ceiling) else max(limit or 0, self.ceiling or 0)

    @invariant()
    def the_row_is_sound(self) -> None:
        allowances.check(self.row)
        assert self.row.leased == self.outstanding
        if self.ceiling is not None:
            assert self.row.used + self.row.leased <= self.ceiling


TestAllowanceMachine = AllowanceMachine.TestCase
