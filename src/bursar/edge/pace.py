"""Pace: how often an address may ask for something that needs no key.

Owns the count, in memory and bounded. A caller with a key is limited by allowances; this is for the
few things that anybody may do. Must not know what is asked for.
"""

from ipaddress import IPv6Address
from typing import Final

from bursar.core import refusals
from bursar.core.permissions import Address
from bursar.core.refusals import Reason

_MINUTE_MS: Final = 60_000
_MOST_ADDRESSES: Final = 10_000
# Who has one address of version 6 mostly has all of its first 64 bits.
_SITE_BITS: Final = 64


class Pace:
    """Lets each address ask `most` times a minute, and all of them together `most_together`."""

    def __init__(self, most: int, *, most_together: int) -> None:
        self._most = most
        self._most_together = most_together
        self._minute = 0
        self._together = 0
        self._counts: dict[int, int] = {}

    def take(self, address: Address | None, *, now_ms: int) -> None:
        """Count one; raises RateRefused (`rate_limit_exceeded`) for more than the bound."""
        minute = now_ms // _MINUTE_MS
        if minute != self._minute:
            self._minute, self._together = minute, 0
            self._counts.clear()
        site = _site(address)
        count = self._counts.get(site, 0)
        is_full = site not in self._counts and len(self._counts) >= _MOST_ADDRESSES
        if count >= self._most or self._together >= self._most_together or is_full:
            wait_s = -(-(_MINUTE_MS - now_ms % _MINUTE_MS) // 1_000)
            raise refusals.as_error(refusals.deny(Reason.RATE, retry_after_s=wait_s))
        self._counts[site] = count + 1
        self._together += 1


def _site(address: Address | None) -> int:
    if address is None:
        return 0
    if isinstance(address, IPv6Address):
        return int(address) >> _SITE_BITS << _SITE_BITS
    return int(address)
