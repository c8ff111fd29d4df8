"""Writes of one turn of the event loop, sent together at its end.

Owns nothing but the order. A write to a sleeping peer wakes it, which costs more than the write;
many writes in a row wake it once. Must not know what is written.
"""

import asyncio
from collections.abc import Callable


class Outbox:
    """What will be written before long; belongs to the loop in which it is first used.

    Whoever closes a transport that may have something in here calls `flush` first.
    """

    __slots__ = ("_loop", "_writes")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writes: list[tuple[Callable[[bytes], None], bytes]] = []

    def put(self, write: Callable[[bytes], None], data: bytes) -> None:
        """Have `write(data)` called soon, after everything that was put before."""
        if not self._writes:
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self.flush)
        self._writes.append((write, data))

    def flush(self) -> None:
        """Write everything now."""
        writes, self._writes = self._writes, []
        for write, data in writes:
            try:
                write(data)
            except RuntimeError:
                # Where asyncio keeps quiet, uvloop raises for a connection that is gone by now; its
                # write is for nobody, and the others' must not be lost with it.
                continue
