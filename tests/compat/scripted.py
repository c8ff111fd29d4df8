"""A server that answers as a test says, for the clients of other shapes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeAlias

HTML: Final = b"<!doctype html><title>It works!</title>"
# Method, path and bearer, and what was sent; None cuts the connection without an answer.
Asked: TypeAlias = tuple[str, str, str, dict[str, Any]]
Said: TypeAlias = tuple[int, bytes] | None


def words(status: int, document: object) -> Said:
    """An answer in JSON."""
    return status, json.dumps(document).encode()


@contextmanager
def scripted(answer: Callable[[Asked], Said]) -> Iterator[str]:
    """The server's address, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            sent = self.rfile.read(int(self.headers.get("content-length") or 0))
            bearer = (self.headers["authorization"] or "").removeprefix("Bearer ")
            said = answer((self.command, self.path, bearer, json.loads(sent or b"{}")))
            self.close_connection = True
            if said is None:
                return
            status, body = said
            self.send_response(status)
            self.send_header("content-type", "text/html" if body == HTML else "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            # Whoever does not read all of it closes the connection.
            for start in range(0, len(body), 65_536):
                try:
                    self.wfile.write(body[start : start + 65_536])
                except OSError:
                    return

        do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
