"""Callers that cost next to nothing: plain connections, whole answers, thousands a second.

Owns the wire of one call and what came back. For clients as people use them there is `loads`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call came to; status 0: the connection ended before it."""

    status: int
    request_id: str = ""
    body: bytes = b""

    @property
    def code(self) -> str:
        """The refusal's code."""
        return str(json.loads(self.body)["error"]["code"])


class Line:
    """One connection that is kept; opened when it is first used, and again when it has ended."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._where = (parts.hostname, parts.port)
        self._pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, request: bytes) -> Answer:
        """Send a request and read its answer to the end."""
        try:
            if self._pair is None:
                self._pair = await asyncio.open_connection(*self._where)
            reader, writer = self._pair
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            return await self._read(reader, head.lower())
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return Answer(0)

    async def _read(self, reader: asyncio.StreamReader, head: bytes) -> Answer:
        fields = dict(line.partition(b": ")[::2] for line in head.split(b"\r\n")[1:])
        if head[9:12] == b"204":
            body = b""
        elif b"content-length" in fields:
            body = await reader.readexactly(int(fields[b"content-length"]))
        else:
            body = await _chunks(reader)
        if fields.get(b"connection") == b"close":
            self.close()
        return Answer(int(head[9:12]), fields.get(b"x-request-id", b"").decode(), body)

    def close(self) -> None:
        """Let go of the connection."""
        if self._pair is not None:
            self._pair[1].close()
            self._pair = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(parts)


def chat(secret: str, *, model: str, words: str = "", **fields: Any) -> bytes:
    """A chat call as bytes; without words it says one of its own."""
    said = words or f"call-{next(_numbers)}"
    body = {"model": model, "messages": [{"role": "user", "content": said}], **fields}
    return ask("POST", "/v1/chat/completions", secret, body)


def ask(method: str, path: str, secret: str, body: Any = None, **headers: str) -> bytes:
    """Any call with a JSON body, or none, as bytes."""
    data = b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: x",
        f"authorization: Bearer {secret}",
        "content-type: application/json",
        f"content-length: {len(data)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def at_once(url: str, requests: list[bytes]) -> list[Answer]:
    """So many calls at the same time, each on a connection of its own."""
    lines = [Line(url) for _ in requests]
    try:
        return await asyncio.gather(
            *(line.call(request) for line, request in zip(lines, requests, strict=True))
        )
    finally:
        for line in lines:
            line.close()


async def until(holds: Callable[[], bool], *, within_s: float = 45.0) -> None:
    """Return once something holds that happens elsewhere; fails if it takes longer."""
    for _ in range(int(within_s / 0.005)):
        if holds():
            return
        await asyncio.sleep(0.005)
    assert holds()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run this to its end in a loop of its own."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


@contextlib.contextmanager
def meanwhile(work: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Run this in a thread while the block runs; it must end by itself soon after."""
    failures: list[BaseException] = []

    def thread() -> None:
        try:
            run(work())
        except BaseException as error:
            failures.append(error)

    running = threading.Thread(target=thread)
    running.start()
    try:
        yield
    finally:
        running.join(60)
        assert not running.is_alive()
    assert not failures, failures
