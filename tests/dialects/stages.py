"""A stage on which clients of other services can play: an HTTP server, each answer acted by a test.

Owns what of a request means something. Must not know any dialect.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Sent:
    """What a client sent, as far as it means something."""

    method: str
    path: str
    accept: str
    content_type: str | None
    authorization: str
    body: Any


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def stage(play: Callable[[Sent], Answer]) -> Iterator[str]:
    """Serve HTTP on a socket, each request answered by `play`; the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            length = int(self.headers.get("content-length", "0"))
            body = self.rfile.read(length)
            sent = Sent(
                method=self.command,
                path=self.path,
                accept=self.headers.get("accept", ""),
                content_type=self.headers.get("content-type"),
                authorization=self.headers.get("authorization", ""),
                body=json.loads(body) if body else None,
            )
            status, headers, answer = play(sent)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def in_loop(
    loop: asyncio.AbstractEventLoop, ask: Callable[[Sent], Awaitable[Answer]]
) -> Callable[[Sent], Answer]:
    """A play that is acted on the loop."""

    async def act(sent: Sent) -> Answer:
        return await ask(sent)

    def play(sent: Sent) -> Answer:
        return asyncio.run_coroutine_threadsafe(act(sent), loop).result(30)

    return play
