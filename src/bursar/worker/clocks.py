"""The worker's clock: the time of day, which never goes back.

Owns what happens when somebody sets the clock back. Windows, leases and the moments of charges all
follow from one clock; were it to step back, a charge could be booked into a window that lies after
its own moment, and no sum over that window would be right again. So while the time of day lies
behind what was shown already, time passes at half its speed until the two meet: limits by the
minute are then the smaller for it, never the larger. Must not know what asks.
"""

from collections.abc import Callable
from typing import Final

_SLOWER: Final = 2


def steady(clock_ms: Callable[[], int]) -> Callable[[], int]:
    """A clock that shows `clock_ms`, but never less than it has shown before."""
    shown_ms = last_ms = 0
    # Where the present step back began, by either clock; in force while the slow time is shown.
    began_ms = from_ms = 0
    slow_ms = -1

    def now_ms() -> int:
        nonlocal shown_ms
        found_ms = clock_ms()
        if found_ms >= shown_ms:
            shown_ms = found_ms
            return found_ms
        return behind(found_ms)

    def behind(found_ms: int) -> int:
        nonlocal shown_ms, last_ms, began_ms, from_ms, slow_ms
        if shown_ms != slow_ms or found_ms < last_ms:
            began_ms, from_ms = found_ms, shown_ms
        last_ms = found_ms
        shown_ms = slow_ms = max(shown_ms, from_ms + (found_ms - began_ms) // _SLOWER)
        return shown_ms

    return now_ms
