"""Bars for a terminal: how much of the whole is whose.

Owns how long a bar is and what it is made of. Must not know what it measures.
"""

import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

_WIDTH: Final = 30
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_PLAIN: Final = " #"


def bars(amounts: Sequence[Decimal | int]) -> list[str]:
    """Return a bar for each amount, the longest for the most; whatever is above 0 has some."""
    steps = _EIGHTHS if _is_unicode() else _PLAIN
    most = max(amounts, default=0)
    return [_bar(amount, most, steps) for amount in amounts]


def share(amount: Decimal | int, whole: Decimal | int) -> str:
    """Return how much of the whole it is, in per cent."""
    return f"{amount * 100 / whole:.1f} %" if whole else "-"


def _bar(amount: Decimal | int, most: Decimal | int, steps: str) -> str:
    if amount <= 0 or most <= 0:
        return ""
    parts = len(steps) - 1
    # At least one step: what was used is never shown as nothing.
    length = max(1, int(amount * _WIDTH * parts / most))
    full, rest = divmod(length, parts)
    return steps[-1] * full + (steps[rest] if rest else "")


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
