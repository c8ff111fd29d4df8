"""How long tests run that are worth running longer: shortly by default, long under `make soak`.

Owns the one environment variable that says so, `BURSAR_TEST_SOAK`: not set, each test does the few
rounds that `make test` has time for; a number, the many that it names times that number (1 is what
`make soak` says, `make soak FACTOR=10` ten times as much; 0.1 tries a soak out).

    pytestmark = pytest.mark.soak          # what `make soak` chooses
    rounds = soak.times(3, soaked=50)      # 3 by default, 50 under soak, 500 with FACTOR=10
"""

from __future__ import annotations

import os
from typing import Final

_FACTOR: Final = os.environ.get("BURSAR_TEST_SOAK", "")

IS_ON: Final = bool(_FACTOR)


def times(few: int, *, soaked: int) -> int:
    """How many rounds, requests, seeds or whatever is counted: `few`, or under soak `soaked`."""
    return max(1, round(soaked * float(_FACTOR))) if IS_ON else few
