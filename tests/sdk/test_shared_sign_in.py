"""A sign-in that several programs share, at a server that forgives no token that comes twice."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import bursar
from bursar.sdk.sessions.stores import FileStore, SignedIn
from bursar.sdk.values import Secret

SOURCE = Path(bursar.__file__).parents[1]
PROGRAMS = 4
PROGRAM = """
from bursar import Bursar
with Bursar() as client:
    for _ in range(5):
        assert client.users.me().id == 2
"""


class Strict:
    """What is valid at the moment; each token is renewed once, slowly."""

    def __init__(self) -> None:
        self.turn = 0
        self.renewals = 0
        self.asked = threading.Event()
        self._lock = threading.Lock()

    def renew(self, token: str) -> dict[str, Any] | None:
        """The next tokens, None for a token that has been used."""
        with self._lock:
            self.renewals += 1
            if token != f"refresh {self.turn}":
                return None
            self.turn += 1
        self.asked.set()
        # Time for everybody else to come by.
        time.sleep(0.3)
        return tokens(self.turn)

    def knows(self, credential: str) -> bool:
        """Whether this is the access token of the moment."""
        return credential == f"Bearer access{self.turn}"


def tokens(turn: int) -> dict[str, Any]:
    """What the server answers; by its own clock, which is years behind, all of it is over."""
    return {
        "access_token": f"access{turn}",
        "token_type": "Bearer",
        "expires_in": 900,
        "expires_at": "2001-01-01T00:15:00Z",
        "refresh_token": f"refresh {turn}",
        "refresh_token_expires_at": "2001-01-31T00:00:00Z",
        "session_id": 3,
        "user_id": 2,
        "account_id": 1,
        "role": "admin",
    }


@contextmanager
def serving(strict: Strict) -> Iterator[str]:
    """The server, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = strict.renew(body["refresh_token"])
            self._answer(found, "refresh_reused")

        def do_GET(self) -> None:
            user = {"id": 2, "email": "a@b.example", "name": "", "role": "admin"}
            user |= {"is_enabled": True, "created_at": "2030-01-01T00:00:00Z"}
            is_known = strict.knows(self.headers["authorization"])
            self._answer(user if is_known else None, "invalid_token")

        def _answer(self, found: dict[str, Any] | None, code: str) -> None:
            said = found or {"error": {"type": "t", "code": code, "message": "No."}}
            body = json.dumps(said).encode()
            self.send_response(200 if found else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def signed_in(url: str) -> SignedIn:
    """Tokens of which the access token is over."""
    tokens = (Secret("access0"), Secret("refresh 0"))
    return SignedIn(url, "a@b.example", 1, 2, 3, "admin", *tokens, 0, 0)


def test_programs_that_share_a_sign_in_renew_it_once(tmp_path: Path) -> None:
    strict = Strict()
    with serving(strict) as url:
        FileStore("default").save(signed_in(url))
        environment = {"PYTHONPATH": str(SOURCE), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        running = [
            subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment)
            for _ in range(PROGRAMS)
        ]
        assert [each.wait() for each in running] == [0] * PROGRAMS
    # None came with a used one, and the server's clock made nobody renew again.
    assert (strict.renewals, strict.turn) == (1, 1)


async def test_whoever_is_cancelled_while_renewing_loses_no_sign_in() -> None:
    strict = Strict()
    with serving(strict) as url:
        FileStore("default").save(signed_in(url))
        async with bursar.AsyncBursar() as client:
            call = asyncio.create_task(client.users.me())
            await asyncio.to_thread(strict.asked.wait, 20)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        kept = FileStore("default").load()
        assert kept is not None
        assert kept.refresh_token == "refresh 1"
        async with bursar.AsyncBursar() as client:
            assert (await client.users.me()).id == 2
    assert (strict.renewals, strict.turn) == (1, 1)
