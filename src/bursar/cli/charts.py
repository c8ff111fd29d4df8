"""Bars for a terminal: how much of the whole is whose.

Owns how long a bar is and what it is made of. Must not know what it measures.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from bursar.cli import streams

WIDTH: Final = 30
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_PLAIN: Final = " #"


def bars(amounts: Sequence[Decimal | int]) -> list[str]:
    """Return a bar for each amount, the longest for the most; whatever is above 0 has some."""
    steps = _steps()
    most = max(amounts, default=0)
    return [_bar(amount, most, steps) for amount in amounts]


def fitted(bar: str, width: int) -> str:
    """Return a bar as it is where the longest one may have only so many characters."""
    steps = _steps()
    parts = len(steps) - 1
    length = sum(steps.index(character) for character in bar)
    return _drawn(max(1, length * width // WIDTH), steps, parts) if bar else ""


def _bar(amount: Decimal | int, most: Decimal | int, steps: str) -> str:
    if amount <= 0 or most <= 0:
        return ""
    parts = len(steps) - 1
    # At least one step: what was used is never shown as nothing.
    return _drawn(max(1, int(amount * WIDTH * parts / most)), steps, parts)


def _drawn(length: int, steps: str, parts: int) -> str:
    full, rest = divmod(length, parts)
    return steps[-1] * full + (steps[rest] if rest else "")


def _steps() -> str:
    return _EIGHTHS if streams.is_unicode() else _PLAIN
