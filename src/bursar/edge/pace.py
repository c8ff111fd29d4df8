"""Pace: how often an address may ask for something that needs no key, or be wrong about it.

Owns the count, in memory and bounded. A caller with a key is limited by allowances; this is for the
few things that anybody may do. Must not know what is asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from typing import Final

from bursar.core import refusals
from bursar.core.errors import BursarError, Gone, Unauthenticated, Unreadable
from bursar.core.permissions import Address
from bursar.core.refusals import Reason

_MINUTE_MS: Final = 60_000
_MOST_ADDRESSES: Final = 10_000
# Who has one address of version 6 mostly has all of its first 64 bits.
_SITE_BITS: Final = 64
# How something is refused that somebody may have made up.
_FAILURES: Final = (Gone, Unauthenticated, Unreadable)


class Pace:
    """Lets each address ask `most` times a minute, and all of them together `most_together`."""

    def __init__(self, most: int, *, most_together: int) -> None:
        self._most = most
        self._most_together = most_together
        self._minute = 0
        self._together = 0
        self._counts: dict[int, int] = {}

    @contextmanager
    def of_failures(self, address: Address | None, *, now_ms: Callable[[], int]) -> Iterator[None]:
        """Count one where the block refuses what was sent; raises as `take` does.

        Before the block only for an address that has used up its own share: nobody is kept out for
        what others send.
        """
        now = now_ms()
        if now // _MINUTE_MS == self._minute and self._counts.get(_site(address), 0) >= self._most:
            raise _refusal(now)
        try:
            yield
        except _FAILURES:
            self.take(address, now_ms=now_ms())
            raise

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
            raise _refusal(now_ms)
        self._counts[site] = count + 1
        self._together += 1


def _refusal(now_ms: int) -> BursarError:
    wait_s = -(-(_MINUTE_MS - now_ms % _MINUTE_MS) // 1_000)
    return refusals.as_error(refusals.deny(Reason.RATE, retry_after_s=wait_s))


def _site(address: Address | None) -> int:
    if address is None:
        return 0
    if isinstance(address, IPv6Address):
        return int(address) >> _SITE_BITS << _SITE_BITS
    return int(address)
