"""A worker's time never goes back, whatever is done to the clock of its host."""

from __future__ import annotations

import random

import pytest

from bursar.core.windows import Window, bounds
from bursar.worker.clocks import steady
from tests.databases import Clock

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def test_time_passes_as_the_clock_says_while_it_goes_forward() -> None:
    clock = Clock()
    now_ms = steady(clock)
    for step in (0, 1, 999, HOUR_MS, 40 * DAY_MS):
        clock.advance(step)
        assert now_ms() == clock()


@pytest.mark.parametrize("jump_ms", [HOUR_MS, DAY_MS])
def test_after_a_step_back_time_goes_on_at_half_its_speed_until_the_clock_has_caught_up(
    jump_ms: int,
) -> None:
    clock = Clock()
    now_ms = steady(clock)
    before = now_ms()
    clock.advance(-jump_ms)
    assert now_ms() == before
    clock.advance(1_000)
    assert now_ms() == before + 500
    for _ in range(2 * jump_ms // 1_000 - 3):
        clock.advance(1_000)
        now_ms()
    assert now_ms() == clock() + 1_000
    clock.advance(2_000)
    assert now_ms() == clock() == before + jump_ms
    clock.advance(10)
    assert now_ms() == clock()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_clock_does_time_never_goes_back_and_never_lags_behind_it(seed: int) -> None:
    chance = random.Random(seed)
    clock = Clock()
    now_ms = steady(clock)
    shown = now_ms()
    for _ in range(2_000):
        sign = -1 if chance.random() < 0.2 else 1
        clock.advance(sign * chance.choice((0, 1, 250, 60_000, HOUR_MS, DAY_MS)))
        before, shown = shown, now_ms()
        assert shown >= before
        assert shown >= clock()


@pytest.mark.parametrize("window", [w for w in Window if w is not Window.LIFETIME])
def test_no_window_begins_twice(window: Window) -> None:
    clock = Clock()
    now_ms = steady(clock)
    begun = []
    for jump_ms in (0, HOUR_MS, -HOUR_MS, DAY_MS, -2 * DAY_MS, 31 * DAY_MS, -31 * DAY_MS):
        clock.advance(jump_ms)
        for _ in range(50):
            clock.advance(7_000)
            start = bounds(window, now_ms=now_ms(), zone="Europe/Berlin").start_ms
            if not begun or start != begun[-1]:
                begun.append(start)
    assert begun == sorted(set(begun))
