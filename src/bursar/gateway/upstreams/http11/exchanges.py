"""One request's answer while it arrives and after.

Owns the buffered body, its limits and the one task that may wait for more of it. Must not know
sockets or parsing: a `Line` fills it, and is told to go on or to give up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from bursar import failpoints
from bursar.gateway.upstreams.port import FailureKind, UpstreamError

PAUSE_ABOVE = 65_536


class Line(Protocol):
    """What carries an exchange: a connection, or a fake one."""

    def resume(self) -> None:
        """Read on after a pause."""
        ...

    def fail(self, kind: FailureKind, message: str, *, request_sent: bool = True) -> None:
        """End the exchange with an error."""
        ...


class Exchange(msgspec.Struct, eq=False):
    """One request's answer, a `StartedResponse`; may outlive the connection that carried it."""

    connection: Line | None
    _loop: asyncio.AbstractEventLoop
    max_body: int
    sent_at: float  # the loop's time
    status: int = 0
    headers: list[tuple[bytes, bytes]] = []
    error: UpstreamError | None = None
    is_complete: bool = False
    is_stale: bool = False
    content_length: int = -1
    transfer_encoding: bytes = b""
    ends_with_connection: bool = False
    heard_at: float = 0.0
    chunks: list[bytes] = []
    buffered: int = 0
    ceiling: int = PAUSE_ABOVE
    reads_whole: bool = False
    told: Callable[[], None] | None = None
    _waiter: asyncio.Future[None] | None = None

    @failpoints.before("request.sent")
    async def head(self) -> None:
        """Wait until status and headers are there or the exchange has failed."""
        while not self.status and self.error is None:
            await self._news()

    async def answered(self) -> bool:
        """Wait for status and headers; see `StartedResponse.answered`."""
        await self.head()
        if self.is_stale:
            return False
        if not self.status and self.error is not None:
            raise self.error
        return True

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here, and not too much; see `StartedResponse.is_whole`."""
        return self.is_complete and self.error is None and self.buffered <= self.max_body

    async def read(self) -> bytes:
        """Return the whole body; see `UpstreamResponse.read`."""
        if self.connection is not None:
            await self._rest()
        if self.error is not None:
            raise self.error
        if self.buffered > self.max_body:
            raise self._too_large()
        return self.take()

    async def next_chunk(self) -> bytes:
        """Return what has arrived; see `UpstreamResponse.next_chunk`."""
        while not self.chunks:
            if self.error is not None:
                raise self.error
            if self.is_complete:
                return b""
            await self._news()
        chunk = self.take()
        if self.connection is not None:
            self.connection.resume()
        return chunk

    def abort(self) -> None:
        """End the exchange now; see `UpstreamResponse.abort`."""
        if self.connection is not None:
            self.connection.fail("closed", "the call was given up")

    def wake(self) -> None:
        """Tell whoever waits that something has changed."""
        if self.told is not None:
            self.told()
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _rest(self) -> None:
        self.reads_whole = True
        self.ceiling = self.max_body
        if max(self.content_length, self.buffered) > self.max_body:
            self.abort()
            raise self._too_large()
        while self.connection is not None:
            self.connection.resume()
            await self._news()

    async def _news(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        except BaseException:  # cancelled, or thrown away unfinished
            self.abort()
            raise
        finally:
            self._waiter = None

    def take(self) -> bytes:
        """Return what is here, and forget it."""
        chunks = self.chunks
        taken = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self.buffered = 0
        return taken

    def _too_large(self) -> UpstreamError:
        message = f"the upstream's answer is larger than {self.max_body} bytes"
        return UpstreamError("too_large", message, request_sent=True)
