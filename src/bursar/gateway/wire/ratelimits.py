"""What answers say of the limits of requests and tokens: how much, what is left, and until when.

Owns the header fields: `x-ratelimit-*`, as model APIs have them, for the tightest limit of each
kind, and `ratelimit` with `ratelimit-policy` (draft-ietf-httpapi-ratelimit-headers-11) for all of
them. What is left is what this worker knows of; what other workers use shows with its next lease.
Must not know how limits are kept.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from bursar.gateway.asgi import Headers
from bursar.worker.purse import CONCURRENCY, COST, REQUESTS, TOKENS, Slot

_SHOWN: Final = ((REQUESTS, b"requests"), (TOKENS, b"tokens"))
_UNITS: Final = {REQUESTS: "", TOKENS: ';qu="tokens"', CONCURRENCY: ';qu="concurrent-requests"'}
# Clients and proxies bound what a head may have: the tightest limits are listed.
MOST_LISTED: Final = 16
# The largest number that a structured field can have.
_MOST: Final = 999_999_999_999_999


def fields(slots: Sequence[Slot], now_ms: int) -> Headers:
    """Return the header fields for these limits; none where only cost is limited."""
    for slot in slots:
        if slot.index:
            return _fields(
                [each for each in slots if each.index and each.limit is not None], now_ms
            )
    return []


def lines(headers: Headers) -> bytes:
    """Return header fields as they stand in a head."""
    return b"".join(b"%b: %b\r\n" % field for field in headers)


def _fields(slots: Sequence[Slot], now_ms: int) -> Headers:
    found: Headers = []
    for index, kind in _SHOWN:
        of_kind = [slot for slot in slots if slot.index == index]
        if of_kind:
            tightest = min(of_kind, key=lambda slot: (_left(slot, now_ms), -slot.lease.end_ms))
            numbers = (tightest.limit or 0, _left(tightest, now_ms), _reset_s(tightest, now_ms))
            for name, number in zip((b"limit", b"remaining", b"reset"), numbers, strict=True):
                found.append((b"x-ratelimit-%b-%b" % (name, kind), b"%d" % number))
    listed = _tightest(slots, now_ms)
    if listed:
        found.append((b"ratelimit-policy", _list(_policy(slot) for slot in listed)))
    # Of calls at once nobody can say what is left: other workers' are not known here.
    counted = [slot for slot in listed if slot.index != CONCURRENCY]
    if counted:
        found.append((b"ratelimit", _list(_state(slot, now_ms) for slot in counted)))
    return found


def _tightest(slots: Sequence[Slot], now_ms: int) -> Sequence[Slot]:
    """Those of which the smallest part is left, in their order, as many as are listed."""
    if len(slots) <= MOST_LISTED:
        return slots
    parts = [_left(slot, now_ms) * _MOST // max(1, slot.limit or 0) for slot in slots]
    order = sorted(range(len(slots)), key=parts.__getitem__)
    return [slots[position] for position in sorted(order[:MOST_LISTED])]


def _is_shown(slot: Slot) -> bool:
    return slot.index != COST and slot.limit is not None


def _left(slot: Slot, now_ms: int) -> int:
    return slot.free_at(now_ms) or 0


def _reset_s(slot: Slot, now_ms: int) -> int:
    return max(1, -(-(slot.lease.end_ms - now_ms) // 1000))


def _policy(slot: Slot) -> str:
    item = f"{_name(slot)};q={min(slot.limit or 0, _MOST)}{_UNITS[slot.index]}"
    if slot.ref.window == "lifetime":
        return item
    return f"{item};w={(slot.lease.end_ms - slot.lease.start_ms) // 1000}"


def _state(slot: Slot, now_ms: int) -> str:
    item = f"{_name(slot)};r={min(_left(slot, now_ms), _MOST)}"
    return item if slot.ref.window == "lifetime" else f"{item};t={_reset_s(slot, now_ms)}"


def _name(slot: Slot) -> str:
    """The limit's public name, as a refusal has it, as a structured field's string."""
    return '"' + slot.ref.name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _list(items: Iterable[str]) -> bytes:
    return ", ".join(items).encode("ascii")
