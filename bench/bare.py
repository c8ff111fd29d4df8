"""A proxy that only passes through, on Bursar's own stack: the best that this stack can do.

`python -m bench.bare PORT UPSTREAM_PORT`. Must stay free of anything that Bursar adds to a call.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from bursar.gateway.upstreams.pool import KeepAlivePool
from bursar.gateway.upstreams.port import UpstreamResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"transfer-encoding"))


class BareProxy:
    """One raw ASGI callable in front of one pool."""

    def __init__(self, pool: KeepAlivePool) -> None:
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        body: bytes = message["body"]
        while message["more_body"]:
            message = await receive()
            body += message["body"]
        answer = await self._pool.send(
            scope["method"].encode(), scope["raw_path"], scope["headers"], body
        )
        headers = [header for header in answer.headers if header[0] not in HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if any(name == b"content-length" for name, _ in headers):
            await send({"type": "http.response.body", "body": await answer.read()})
        else:
            await _stream(answer, send)


async def _stream(answer: UpstreamResponse, send: Send) -> None:
    while chunk := await answer.next_chunk():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def serve(port: int, upstream_port: int) -> None:
    """Serve on loopback until a signal comes."""
    pool = KeepAlivePool(f"http://127.0.0.1:{upstream_port}")
    config = uvicorn.Config(
        BareProxy(pool),
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        backlog=4096,
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        await pool.close()


def main() -> None:
    """Run on uvloop, as Bursar does."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
