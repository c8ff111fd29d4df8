"""The caller's side of one exchange: reading the body, sending the answer, noticing the end.

Owns what we ask of the ASGI server beyond ASGI: whether the caller is gone, and whether it reads.
Must not know what is exchanged.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from bursar.core.errors import Invalid, Unreadable
from bursar.gateway.asgi import Receive, Scope, Send
from bursar.gateway.cork import answer_at_once, may_answer_at_once, take_body

_NOT_READING_S: Final = 60.0
_PLAIN_JSON: Final = (b"content-type", b"application/json")


class TooLarge(Invalid):
    """The body is longer than the gateway takes."""


class CallerGone(Exception):
    """The caller hung up before its request was complete."""


class Caller:
    """One request's ASGI scope and channels."""

    __slots__ = ("_cycle", "_receive", "_send", "_was_cut", "scope", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        # What was answered; 0 until the answer has begun.
        self.status = 0
        self._receive = receive
        self._send = send
        # uvicorn's request cycle, behind its bound `send`: ASGI has no way to ask without waiting.
        self._cycle: Any = getattr(send, "__self__", None)
        self._was_cut = False

    @property
    def is_gone(self) -> bool:
        """True once nobody listens any more."""
        return self._was_cut or getattr(self._cycle, "disconnected", False)

    async def body(self, *, most: int) -> bytes:
        """The whole body. Raises TooLarge, Unreadable (a lying length) or CallerGone."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            return self._checked(body, most)
        parts = [body]
        size = len(body)
        while message.get("more_body", False):
            self._checked(b"", most - size)
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        return self._checked(b"".join(parts), most)

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def body_at_hand(self, *, most: int) -> bytes | None:
        """The body if all of it is here already, as it mostly is. Raises TooLarge."""
        cycle = self._cycle
        if type(cycle) is not RequestResponseCycle:
            return None
        body = take_body(cycle)
        return None if body is None else self._checked(body, most)

    def answer_at_once(self, head: bytes, body: bytes) -> bool:
        """Send a good answer whose own header lines are ready made, in one write; False: cannot.

        The ordinary way, by `start` and `write`, costs as much as the rest of a request together.
        """
        cycle = self._cycle
        if type(cycle) is not RequestResponseCycle or not may_answer_at_once(cycle):
            return False
        self.status = 200
        answer_at_once(cycle, head, body)
        return True

    async def answer_ready(self, head: bytes, body: bytes) -> None:
        """Send such an answer through the ordinary way."""
        lines = [line.partition(b": ") for line in head.split(b"\r\n") if line]
        await self.start(200, [(name, value) for name, _, value in lines])
        await self.write(body, more=False)

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole answer, unless one has begun already: then only end it."""
        if self.status:
            self._was_cut = True
            if self._cycle is not None:
                self._cycle.transport.abort()
            return
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.write(body, more=False)

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body. A caller that does not read for a minute is cut off."""
        message = {"type": "http.response.body", "body": body, "more_body": more}
        flow = getattr(self._cycle, "flow", None)
        if flow is None or not flow.write_paused:
            await self._send(message)
            return
        try:
            async with asyncio.timeout(_NOT_READING_S):
                await self._send(message)
        except TimeoutError:
            self._was_cut = True
            self._cycle.transport.abort()

    def _checked(self, body: bytes, most: int) -> bytes:
        if len(body) > most or most < 0:
            raise TooLarge("body_too_large", "The body is longer than this endpoint takes.")
        return body


def require_json(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse bodies that are not plain JSON. Raises UnsupportedMedia or Unreadable."""
    if _PLAIN_JSON in headers:
        return
    for name, value in headers:
        if name == b"content-type":
            kind, _, parameters = value.partition(b";")
            if kind.strip().lower() != b"application/json":
                break
            charset = parameters.strip().lower().replace(b'"', b"")
            if charset in {b"", b"charset=utf-8", b"charset=utf8"}:
                return
            break
    raise UnsupportedMedia("unsupported_media_type", "Send content-type: application/json.")


class UnsupportedMedia(Unreadable):
    """The body is of a kind that this endpoint does not take."""
