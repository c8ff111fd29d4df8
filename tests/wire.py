"""A caller that writes bytes: what no well-behaved HTTP client can be made to send.

Owns reading answers off a raw connection, exactly: whatever follows a complete answer is the next
one, so an answer too many is seen.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

# How long a server must say nothing more for its last answer to count as the last.
QUIET_S = 0.1


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error in our shape."""
        error = self.json()["error"]
        assert set(error) >= {"type", "code", "message", "param", "request_id"}, error
        assert error["request_id"] == self.headers["x-request-id"]
        return str(error["code"])


@dataclass(frozen=True)
class Talk:
    """What came back over one connection, and whether the server then ended it."""

    answers: list[Answer]
    is_closed: bool

    @property
    def statuses(self) -> list[int]:
        """The answers' statuses; 100 Continue does not count."""
        return [answer.status for answer in self.answers]


class Connection:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._received = b""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        """Connect to a server by its URL, and leave it at the end."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def send(self, *parts: bytes, gap_s: float = 0.02) -> None:
        """Send each part by itself; a server that has hung up meanwhile is for `talk` to tell."""
        for part in parts:
            self.writer.write(part)
            try:
                await self.writer.drain()
            except ConnectionError:
                return
            if len(parts) > 1:
                await asyncio.sleep(gap_s)

    async def talk(self, *, expect: int = 1, head_only: bool = False, within_s: float = 5) -> Talk:
        """Read until the server ends, or is quiet after `expect` answers; fails if it hangs."""
        is_closed = False
        async with asyncio.timeout(within_s):
            while not is_closed:
                answers, rest = parse(self._received, head_only=head_only)
                patience = QUIET_S if len(answers) >= expect and not rest else None
                try:
                    async with asyncio.timeout(patience):
                        data = await self.reader.read(2**20)
                except TimeoutError:
                    break
                except ConnectionError:
                    data = b""
                is_closed = not data
                self._received += data
        answers, rest = parse(self._received, head_only=head_only)
        assert rest == b"", rest
        return Talk(answers, is_closed)

    def hang_up(self) -> None:
        """Leave at once, with a reset if anything is unread."""
        self.writer.transport.abort()


async def talk(
    url: str, *parts: bytes, expect: int = 1, head_only: bool = False, within_s: float = 5
) -> Talk:
    """Send these bytes over a connection of their own and return what comes back."""
    async with Connection.open(url) as connection:
        await connection.send(*parts)
        return await connection.talk(expect=expect, head_only=head_only, within_s=within_s)


def parse(data: bytes, *, head_only: bool = False) -> tuple[list[Answer], bytes]:
    """The complete answers at the start of `data`, and the rest."""
    answers: list[Answer] = []
    while True:
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            return answers, data
        status_line, *lines = head.decode("latin-1").split("\r\n")
        assert status_line.startswith("HTTP/1.1 "), status_line
        status = int(status_line[9:12])
        headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        if status == 100:
            data = rest
            continue
        body = b"" if head_only else _body(headers, rest)
        if body is None:
            return answers, data
        answers.append(Answer(status, headers, _plain(headers, body)))
        data = rest[len(body) :]


def _body(headers: dict[str, str], rest: bytes) -> bytes | None:
    """The body's bytes as they were sent, None while they are not all there."""
    if headers.get("transfer-encoding") != "chunked":
        length = int(headers["content-length"])
        return rest[:length] if len(rest) >= length else None
    end = 0
    while True:
        size, separator, _ = rest[end:].partition(b"\r\n")
        end += len(size) + 4 + int(size or b"0", 16)
        if not separator or end > len(rest):
            return None
        if int(size, 16) == 0:
            return rest[:end]


def _plain(headers: dict[str, str], body: bytes) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return body
    plain = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        plain += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return plain
