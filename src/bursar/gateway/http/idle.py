"""When to close a connection that nobody uses any more.

Owns one timer a connection, which looks now and then since when nothing has happened: to set one at
each answer and cancel it at the next request costs more than the arithmetic of a request's limits.
"""

import asyncio
from collections.abc import Callable


class Idle:
    """Calls `close` once `after_s` seconds have passed since a `begin` that no `end` followed."""

    __slots__ = ("_after_s", "_close", "_loop", "_since_s", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, after_s: float, close: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._after_s = after_s
        self._close = close
        # The loop's time when the connection fell idle; 0 while it is used.
        self._since_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """An answer is out, and nothing else is wanted so far."""
        self._since_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._look)

    def end(self) -> None:
        """Something has come."""
        self._since_s = 0.0

    def stop(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if not self._since_s:
            return
        left_s = self._since_s + self._after_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._close()
