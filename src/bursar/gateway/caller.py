"""The caller's side of one exchange: reading head and body, sending the answer, noticing the end.

Owns what we ask of the ASGI server beyond ASGI, and which headers count. How long a caller may take
is the server's matter. Must not know what is exchanged.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from bursar.core.errors import Invalid, Unreadable
from bursar.gateway.access import labels
from bursar.gateway.asgi import Headers, Receive, Scope, Send
from bursar.gateway.http.cork import answer_at_once, may_answer_at_once, take_body

_PLAIN_JSON: Final = (b"content-type", b"application/json")
_JSON_CHARSETS: Final = frozenset((b"", b"charset=utf-8", b"charset=utf8"))
# Of all that a caller sends, these decide something; no other header is looked at or forwarded.
_DECISIVE: Final = frozenset(
    (
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"idempotency-key",
        b"x-api-key",
        labels.HEADER,
    )
)
_LONGEST_IDEMPOTENCY_KEY: Final = 255
# What most requests have of these: a secret, and that the body is JSON.
_ORDINARY: Final = 2
# Where in a scope what its head says is kept.
_SAID: Final = "bursar.said"
# As much of a body is read for whoever sends it; without a bound anybody could fill our memory.
_ANYBODYS_BYTES: Final = 1_000_000


class TooLarge(Invalid):
    """The body is longer than the gateway takes."""


class UnsupportedMedia(Unreadable):
    """The body is of a kind that this endpoint does not take."""


class CallerGone(Exception):
    """The caller hung up before its request was complete."""


class Said(msgspec.Struct, eq=False):
    """What a head says that decides something: headers, labels, and whose call it is.

    `digest` is that of the secret, once it has been looked at.
    """

    headers: Headers
    labels: Mapping[str, str] | None
    digest: bytes | None = None


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

    @property
    def peer(self) -> str | None:
        """The address at the other end of the connection; None where there is none."""
        transport = getattr(self._cycle, "transport", None)
        name = transport.get_extra_info("peername") if transport else self.scope.get("client")
        return name[0] if isinstance(name, tuple | list) else None

    def said(self) -> Said:
        """What the head says, read once for all requests that come with the same one.

        Raises as `read_headers` and `labels.read` do.
        """
        said: Said | None = self.scope.get(_SAID)
        if said is None:
            headers = read_headers(self.scope["headers"])
            named = None if len(headers) == _ORDINARY else labels.read(headers)
            said = self.scope[_SAID] = Said(headers, named)
        return said

    async def body(self, *, most: int, vouch: Callable[[], Awaitable[None]]) -> bytes:
        """The whole body. Raises TooLarge, before reading what says so itself, or CallerGone.

        `vouch` is asked before more than a little is read, and raises for a caller who may not.
        """
        for name, value in self.scope["headers"]:
            if name == b"content-length" and int(value) > most:
                raise _too_large()
        parts: list[bytes] = []
        size = 0
        is_vouched = False
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise CallerGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise _too_large()
            if not message.get("more_body", False):
                return b"".join(parts)
            if size > _ANYBODYS_BYTES and not is_vouched:
                await vouch()
                is_vouched = True

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send status and headers."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def body_at_hand(self, *, most: int) -> bytes | None:
        """The body if all of it is here already, as it mostly is. Raises TooLarge."""
        cycle = self._cycle
        if not isinstance(cycle, RequestResponseCycle):
            return None
        body = take_body(cycle)
        if body is not None and len(body) > most:
            raise _too_large()
        return body

    def answer_at_once(self, head: bytes, body: bytes) -> bool:
        """Send a good answer whose own header lines are ready made, in one write; False: cannot.

        The ordinary way, by `start` and `write`, costs as much as the rest of a request together.
        """
        cycle = self._cycle
        if not isinstance(cycle, RequestResponseCycle) or not may_answer_at_once(cycle):
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
        if getattr(self._cycle, "more_body", False):
            # The rest of the request is not read, so nothing can follow it.
            headers = [*headers, (b"connection", b"close")]
        await self.start(status, [*headers, (b"content-length", str(len(body)).encode())])
        await self.write(body, more=False)

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body, when the caller has read enough of what went before."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def read_headers(headers: Headers) -> Headers:
    """The headers that decide something at a model endpoint.

    Raises UnsupportedMedia for a body that is not plain JSON, and Unreadable for an Idempotency-Key
    that is none. A good one changes nothing: answers of models are not kept.
    """
    found = [header for header in headers if header[0] in _DECISIVE]
    is_ordinary = len(found) == _ORDINARY and _PLAIN_JSON in found
    if not is_ordinary or (found[0][0] != b"authorization" and found[1][0] != b"authorization"):
        _check(found)
    return found


def _check(headers: Headers) -> None:
    kinds: list[bytes] = []
    keys: list[bytes] = []
    for name, value in headers:
        if name == b"content-type":
            kinds.append(value)
        elif name == b"idempotency-key":
            keys.append(value)
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise UnsupportedMedia("unsupported_encoding", "Send the body without an encoding.")
    if len(kinds) != 1 or not _is_json(kinds[0]):
        raise UnsupportedMedia("unsupported_media_type", "Send content-type: application/json.")
    if keys and not (len(keys) == 1 and _is_idempotency_key(keys[0])):
        raise Unreadable(
            "invalid_idempotency_key",
            f"An Idempotency-Key has 1 to {_LONGEST_IDEMPOTENCY_KEY} printable ASCII characters.",
        )


def _is_json(content_type: bytes) -> bool:
    kind, _, parameters = content_type.partition(b";")
    charset = parameters.strip().lower().replace(b'"', b"")
    return kind.strip().lower() == b"application/json" and charset in _JSON_CHARSETS


def _is_idempotency_key(value: bytes) -> bool:
    is_printable = value.isascii() and value.decode("ascii").isprintable()
    return is_printable and 1 <= len(value) <= _LONGEST_IDEMPOTENCY_KEY


def _too_large() -> TooLarge:
    return TooLarge("body_too_large", "The body is longer than this endpoint takes.")
