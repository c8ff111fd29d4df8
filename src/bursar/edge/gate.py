"""The gate: how many calls of the control plane use the database at once.

Owns the bound, the queue before it and the refusal. Without one, a rush of calls would take every
connection, and the worker's own (leases, charges, the change feed) would wait behind them until
model calls are refused too. Must not know what a call does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bursar.core import refusals
from bursar.core.errors import BursarError
from bursar.core.refusals import Reason

_MOST_WAITING: Final = 1_000
_WAIT_S: Final = 5.0


class Gate:
    """Lets `most` in at a time, in the order in which they came."""

    def __init__(
        self, most: int, *, most_waiting: int = _MOST_WAITING, wait_s: float = _WAIT_S
    ) -> None:
        self._free = asyncio.Semaphore(most)
        self._waiting = 0
        self._most_waiting = most_waiting
        self._wait_s = wait_s

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Wait for a turn and keep it for the block.

        Raises Unavailable (`overloaded`) where the queue is full, or takes too long.
        """
        if self._waiting >= self._most_waiting:
            raise _overloaded()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise _overloaded() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._free.release()


def _overloaded() -> BursarError:
    return refusals.as_error(refusals.deny(Reason.OVERLOADED, retry_after_s=1))
