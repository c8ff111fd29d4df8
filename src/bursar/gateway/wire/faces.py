"""Faces: how the gateway's own words look in each dialect that has its paths.

Owns what a dialect may choose: the body of a refusal, and which header fields say what is left.
What is sold, charged and refused is the same behind every face. Must not know any dialect by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bursar.core.money import format_usd
from bursar.gateway.asgi import Headers
from bursar.gateway.wire import ratelimits
from bursar.gateway.wire.answers import Word
from bursar.worker.purse import COST, Slot

_RESET: Final = b"x-ratelimit-reset-requests"


@dataclass(frozen=True, slots=True)
class Face:
    """One dialect's wording; the one without any is ours, which is OpenAI's.

    `word` gives the body of a refusal. With `has_moments`, requests reset at a moment (seconds
    since the epoch) instead of after seconds. `balance` names the field that says what the key can
    still spend, in USD, as far as this worker knows.
    """

    word: Word | None = None
    has_moments: bool = False
    balance: bytes | None = None

    def limit_fields(self, slots: Sequence[Slot], now_ms: int) -> Headers:
        """Return the header fields that say what these limits have left."""
        found = ratelimits.fields(slots, now_ms)
        if self.has_moments:
            found = [_as_moment(field, now_ms) for field in found]
        if self.balance is not None:
            left = [slot.known_left for slot in slots if slot.index == COST]
            least = min((nanos for nanos in left if nanos is not None), default=None)
            if least is not None:
                found = [*found, (self.balance, format_usd(max(0, least)).encode())]
        return found


OURS: Final = Face()


def _as_moment(field: tuple[bytes, bytes], now_ms: int) -> tuple[bytes, bytes]:
    name, value = field
    return (name, b"%d" % (now_ms // 1000 + int(value))) if name == _RESET else field
