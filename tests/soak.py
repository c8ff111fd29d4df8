"""How long tests run that are worth running longer: shortly by default, long under `make soak`.

Owns the one environment variable that says so, `BURSAR_TEST_SOAK`: not set, each test does the few
rounds that `make test` has time for; a number, the many that it names times that number (1 is what
`make soak` says, `make soak FACTOR=10` ten times as much; 0.1 tries a soak out).

    pytestmark = pytest.mark.soak          # what `make soak` chooses
    rounds = soak.times(3, soaked=50)      # 3 by default, 50 under soak, 500 with FACTOR=10
    assert waited_s <= soak.at_most(0.2)
    pytestmark = soak.ended_after(120)     # seconds; under soak a test takes what it takes
"""

from __future__ import annotations

import os
from typing import Final

import pytest

_FACTOR: Final = os.environ.get("BURSAR_TEST_SOAK", "")

IS_ON: Final = bool(_FACTOR)


def at_most(seconds: float) -> float:
    """A bound on time: itself under soak, where a test has the machine to itself.

    By default other tests run beside it, and what they make it wait is not what it is about.
    """
    return seconds if IS_ON else 3 * seconds


def times(few: int, *, soaked: int) -> int:
    """How many rounds, requests, seeds or whatever is counted: `few`, or under soak `soaked`."""
    return max(1, round(soaked * float(_FACTOR))) if IS_ON else few


def ended_after(seconds: float) -> pytest.MarkDecorator:
    """The mark of a test that hangs if it takes longer; it says nothing of one that is soaked."""
    return pytest.mark.timeout(0 if IS_ON else seconds)
