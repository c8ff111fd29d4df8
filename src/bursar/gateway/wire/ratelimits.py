"""What answers say of the limits of requests and tokens: how much, what is left, and until when.

Owns the header fields: `x-ratelimit-*`, as model APIs have them, for the tightest limit of each
kind, and `ratelimit` with `ratelimit-policy` (draft-ietf-httpapi-ratelimit-headers-11) for all of
them. What is left is what this worker knows of; what other workers use shows with its next lease.
Must not know how limits are kept.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from bursar.core.windows import Window
from bursar.gateway.asgi import Headers
from bursar.worker.purse import CONCURRENCY, COST, REQUESTS, TOKENS, Slot

_SHOWN: Final = (
    (
        REQUESTS,
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-remaining-requests",
        b"x-ratelimit-reset-requests",
    ),
    (
        TOKENS,
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
    ),
)
_UNITS: Final = {REQUESTS: "", TOKENS: ';qu="tokens"', CONCURRENCY: ';qu="concurrent-requests"'}
# Clients and proxies bound what a head may have: the tightest limits are listed.
MOST_LISTED: Final = 16
# The largest number that a structured field can have.
_MOST: Final = 999_999_999_999_999


def fields(slots: Sequence[Slot], now_ms: int) -> Headers:
    """Return the header fields for these limits; none where only cost is limited."""
    for slot in slots:
        if slot.index != COST:
            return _fields([slot for slot in slots if _is_shown(slot)], now_ms)
    return []


def lines(headers: Headers) -> bytes:
    """Return header fields as they stand in a head."""
    return b"".join([b"%b: %b\r\n" % field for field in headers])


def _fields(slots: Sequence[Slot], now_ms: int) -> Headers:
    # One pass and few calls: this runs for every call of a key with rate limits.
    tightest: dict[int, tuple[int, int, int]] = {}
    policies: list[str] = []
    states: list[str] = []
    for slot in slots if len(slots) <= MOST_LISTED else _tightest_first(slots, now_ms):
        limit, left, index = slot.limit or 0, _left(slot, now_ms), slot.index
        end_ms = slot.lease.end_ms
        found = (left, -end_ms, limit)
        if index not in tightest or found < tightest[index]:
            tightest[index] = found
        if len(policies) == MOST_LISTED:
            continue
        name = slot.ref.name
        if "\\" in name or '"' in name:
            name = name.replace("\\", "\\\\").replace('"', '\\"')
        policy = f'"{name}";q={min(limit, _MOST)}{_UNITS[index]}'
        # Of calls at once nobody can say what is left: other workers' are not known here.
        state = "" if index == CONCURRENCY else f'"{name}";r={min(left, _MOST)}'
        if slot.ref.window != Window.LIFETIME:
            policy += f";w={(end_ms - slot.lease.start_ms) // 1000}"
            state = state and f"{state};t={_seconds(end_ms, now_ms)}"
        policies.append(policy)
        if state:
            states.append(state)
    return [*_shown(tightest, now_ms), *_listed(policies, states)]


def _shown(tightest: Mapping[int, tuple[int, int, int]], now_ms: int) -> Headers:
    shown: Headers = []
    for index, limit_name, remaining_name, reset_name in _SHOWN:
        if index in tightest:
            left, end_ms, limit = tightest[index]
            shown += (
                (limit_name, b"%d" % limit),
                (remaining_name, b"%d" % left),
                (reset_name, b"%d" % _seconds(-end_ms, now_ms)),
            )
    return shown


def _listed(policies: Sequence[str], states: Sequence[str]) -> Headers:
    listed = ((b"ratelimit-policy", policies), (b"ratelimit", states))
    return [(name, ", ".join(items).encode("ascii")) for name, items in listed if items]


def _tightest_first(slots: Sequence[Slot], now_ms: int) -> Sequence[Slot]:
    """These limits, those of which the smallest part is left before the others."""
    return sorted(slots, key=lambda slot: _left(slot, now_ms) * _MOST // max(1, slot.limit or 0))


def _is_shown(slot: Slot) -> bool:
    return slot.index != COST and slot.limit is not None


def _left(slot: Slot, now_ms: int) -> int:
    lease = slot.lease if now_ms < slot.lease.end_ms else slot.current(now_ms)
    return max(0, (slot.known_left or 0) - lease.held)


def _seconds(end_ms: int, now_ms: int) -> int:
    return max(1, -(-(end_ms - now_ms) // 1000))
