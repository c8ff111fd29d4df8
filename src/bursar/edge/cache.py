"""A small cache of finished answers, for reports that may be a few minutes old.

Owns their age and number. Must not know what they say.
"""

from typing import Final

_MOST: Final = 1_000


class Cache:
    """Bodies by what was asked, each with the moment at which it was made; the oldest go first."""

    def __init__(self, *, ttl_s: int) -> None:
        self._ttl_ms = ttl_s * 1_000
        self._kept: dict[tuple[int, int], tuple[int, bytes]] = {}

    def find(self, asked: tuple[int, int], *, now_ms: int) -> tuple[int, bytes] | None:
        """Return the moment in ms and the body of an answer that is young enough, or None."""
        found = self._kept.get(asked)
        # An answer from the future was made before the clock was set back: how old is it?
        return found if found and 0 <= now_ms - found[0] < self._ttl_ms else None

    def keep(self, asked: tuple[int, int], body: bytes, *, now_ms: int) -> None:
        """Keep an answer in place of the one before it."""
        self._kept.pop(asked, None)
        if len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[asked] = (now_ms, body)
