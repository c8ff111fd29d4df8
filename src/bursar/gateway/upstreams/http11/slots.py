"""A bounded number of slots and a bounded, fair queue for them.

Owns who may proceed. Must not know what a slot is for. A slot that is given back goes to the
longest waiter, so nobody overtakes; giving back is a plain call, so a cancelled task can do it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from bursar.gateway.upstreams.port import UpstreamError


class Slots:
    """`size` slots, at most `max_waiters` calls waiting for one."""

    __slots__ = ("_is_closed", "_max_waiters", "_size", "_waiters", "taken")

    def __init__(self, size: int, max_waiters: int) -> None:
        self.taken = 0
        self._size = size
        self._max_waiters = max_waiters
        self._waiters: deque[tuple[asyncio.Future[bool], float]] = deque()
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return len(self._waiters)

    def try_take(self) -> bool:
        """Take a slot if one is free now."""
        if self.taken >= self._size or self._is_closed:
            return False
        self.taken += 1
        return True

    async def take(self) -> None:
        """Take a slot, waiting for one.

        Raises `UpstreamError`: `busy` if the queue is full or `expire` ended the wait, `closed`.
        """
        if self.try_take():
            return
        if not self._is_closed and len(self._waiters) >= self._max_waiters:
            raise UpstreamError("busy", "too many calls wait for this upstream", request_sent=False)
        if not self._is_closed and await self._wait():
            return
        if self._is_closed:
            raise UpstreamError("closed", "the upstream client is closed", request_sent=False)
        raise UpstreamError("busy", "no connection became free in time", request_sent=False)

    def give_back(self) -> None:
        """Hand the slot to the longest waiter, or free it."""
        while self._waiters:
            if _answer(self._waiters.popleft()[0], is_granted=True):
                return
        self.taken -= 1

    def expire(self, before: float) -> None:
        """Refuse those who have waited since `before`, in the loop's seconds, or longer."""
        while self._waiters and self._waiters[0][1] <= before:
            _answer(self._waiters.popleft()[0], is_granted=False)

    def close(self) -> None:
        """Refuse everybody, now and later; slots that are out still come back."""
        self._is_closed = True
        while self._waiters:
            _answer(self._waiters.popleft()[0], is_granted=False)

    async def _wait(self) -> bool:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        entry = (waiter, loop.time())
        self._waiters.append(entry)
        try:
            return await waiter
        except BaseException:  # cancelled, or thrown away unfinished
            if entry in self._waiters:
                self._waiters.remove(entry)
            elif not waiter.cancelled() and waiter.result():
                self.give_back()  # Granted and cancelled in the same turn of the loop.
            raise


def _answer(waiter: asyncio.Future[bool], *, is_granted: bool) -> bool:
    if waiter.done():
        return False
    waiter.set_result(is_granted)
    return True
