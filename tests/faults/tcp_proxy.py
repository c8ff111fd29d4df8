"""A TCP proxy between a server and its database that fails in the ways that networks fail.

Owns the bytes between the two and what is done to them; runs in a thread of its own. It knows of
PostgreSQL's protocol only the one text that `cut_after` looks for.

    with TcpProxy.before(port) as proxy:
        proxy.swallow()      # no answer, no error: as when a cable is pulled
        proxy.heal()         # new connections work; those from before stay dead
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self

_CHUNK = 65_536
_COMMIT = b"COMMIT;\0"


@dataclass
class _Way:
    """What happens to bytes: in both directions unless it says which."""

    delay_s: float = 0.0
    slice_bytes: int = _CHUNK
    swallows_requests: bool = False
    swallows_replies: bool = False
    refuses: bool = False


@dataclass(eq=False)
class _Pair:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    way: _Way
    is_dead: bool = False
    has_mark: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class TcpProxy:
    """The proxy; `port` is what a client connects to."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        # How many connections `cut_commits` has cut.
        self.cuts = 0
        self._way = _Way()
        self._to_cut = 0
        self._every = 1
        self._having = b""
        self._seen = 0
        self._pairs: set[_Pair] = set()
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None

    @classmethod
    @contextlib.contextmanager
    def before(cls, target: int) -> Iterator[Self]:
        """Run before this port of loopback."""
        proxy = cls(target)
        thread = threading.Thread(target=proxy._loop.run_forever, daemon=True)
        thread.start()
        try:
            proxy._do(proxy._start)
            yield proxy
            proxy._do(proxy._stop)
        finally:
            proxy._loop.call_soon_threadsafe(proxy._loop.stop)
            thread.join(10)
            proxy._loop.close()

    # What a test says

    def heal(self) -> None:
        """Let new connections pass untouched. Those that were tampered with stay as they are."""
        self._change(lambda: self._set(_Way(), keep=True))

    def slow(self, *, delay_s: float, slice_bytes: int = _CHUNK) -> None:
        """Hold every piece up, and cut it into small ones; connections that are open too."""
        self._change(lambda: self._set(_Way(delay_s=delay_s, slice_bytes=slice_bytes)))

    def swallow(self, *, requests: bool = True, replies: bool = True) -> None:
        """Take bytes and pass none on, without a word: a black hole, or a one-way street."""
        way = _Way(swallows_requests=requests, swallows_replies=replies)
        self._change(lambda: self._set(way))

    def cut(self, *, reset: bool = False, refuse: bool = False) -> None:
        """End every connection, by a reset if so; `refuse` those that come until healed."""

        def work() -> None:
            self._set(_Way(refuses=refuse), keep=True)
            for pair in tuple(self._pairs):
                _end(pair, reset=reset)

        self._change(work)

    def half_close(self) -> None:
        """Tell every client that no more will come, and go on listening to it."""

        def work() -> None:
            for pair in tuple(self._pairs):
                pair.way = _Way(swallows_replies=True)
                with contextlib.suppress(OSError, RuntimeError):
                    pair.client.write_eof()

        self._change(work)

    def cut_commits(self, count: int, *, every: int = 1, having: bytes = b"") -> None:
        """Pass the next `count` COMMITs on (each `every`-th) and cut before their replies.

        Only those of transactions that have sent these bytes.
        """

        def work() -> None:
            self._to_cut, self._every, self._having = count, every, having
            self._seen = 0

        self._change(work)

    # Beneath

    def _change(self, work: Callable[[], None]) -> None:
        async def run() -> None:
            work()

        self._do(run)

    def _do(self, work: Callable[[], object]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(10)  # type: ignore[arg-type]

    def _set(self, way: _Way, *, keep: bool = False) -> None:
        self._way = way
        if not keep:
            for pair in self._pairs:
                pair.way = way

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [task for pair in self._pairs for task in pair.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._way.refuses:
            client.transport.abort()
            return
        try:
            behind, server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            client.transport.abort()
            return
        pair = _Pair(client, server, self._way)
        self._pairs.add(pair)
        pair.tasks = [
            asyncio.create_task(self._pump(pair, reader, server, is_reply=False)),
            asyncio.create_task(self._pump(pair, behind, client, is_reply=True)),
        ]
        try:
            await asyncio.wait(pair.tasks)
        finally:
            self._pairs.discard(pair)
            for writer in (client, server):
                writer.close()

    async def _pump(
        self,
        pair: _Pair,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_reply: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                is_last = not is_reply and self._is_to_be_cut(pair, data)
                if is_last:
                    pair.way = _Way(swallows_replies=True)
                await self._pass_on(pair, data, writer, is_reply=is_reply)
                if is_last:
                    # The server has the COMMIT for sure; its reply is on its way to nobody.
                    self.cuts += 1
                    _end(pair, reset=self.cuts % 2 == 0)
            if not pair.is_dead and not _swallows(pair.way, is_reply=is_reply):
                writer.write_eof()

    async def _pass_on(
        self, pair: _Pair, data: bytes, writer: asyncio.StreamWriter, *, is_reply: bool
    ) -> None:
        for start in range(0, len(data), pair.way.slice_bytes):
            way = pair.way
            if way.delay_s and start == 0:
                await asyncio.sleep(way.delay_s)
            if _swallows(pair.way, is_reply=is_reply):
                return
            writer.write(data[start : start + way.slice_bytes])
            await writer.drain()

    def _is_to_be_cut(self, pair: _Pair, data: bytes) -> bool:
        pair.has_mark |= self._having in data
        if not self._to_cut or _COMMIT not in data:
            return False
        is_meant, pair.has_mark = pair.has_mark, False
        if not is_meant:
            return False
        self._seen += 1
        if self._seen % self._every:
            return False
        self._to_cut -= 1
        return True


def _swallows(way: _Way, *, is_reply: bool) -> bool:
    return way.swallows_replies if is_reply else way.swallows_requests


def _end(pair: _Pair, *, reset: bool) -> None:
    pair.is_dead = True
    if reset:
        sock = pair.client.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if reset:
        pair.client.transport.abort()
    else:
        pair.client.close()
    pair.server.close()
