"""Heads of requests: what they say that the server must know, and which ones are refused.

Owns how they are read, a head without the upgrade that it offers, and the answer to one refused.
Must not know connections.
"""

import re
import secrets
from typing import Final, NamedTuple

import msgspec
from httptools import HttpRequestParser

from bursar.gateway.asgi import Headers
from bursar.gateway.http.names import Names

MOST_HEAD_BYTES: Final = 65_536
MOST_HEADERS: Final = 200

_UPGRADING: Final = frozenset((b"upgrade", b"http2-settings"))
_KEPT_TOKENS: Final = frozenset((b"close", b"keep-alive"))
_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    505: b"HTTP Version Not Supported",
}


_HOST: Final = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_WATCHED: Final = frozenset(
    (b"host", b"expect", b"transfer-encoding", b"origin", b"content-length")
)


class Fault(NamedTuple):
    """Why a head is refused."""

    status: int
    code: str
    message: str


TOO_LARGE: Final = Fault(431, "headers_too_large", "The request's headers are too large.")


class Heads:
    """The heads that come on one connection, one after the other.

    `expects` says that the caller waits for leave to send the body, `length` how long that is if
    this is said beforehand, `to_page` what an answer says to the web page that asks.
    """

    __slots__ = ("_known_host", "_names", "expects", "length", "to_page")

    def __init__(self, names: Names) -> None:
        self._names = names
        # The last one that was well-formed: a connection mostly names one.
        self._known_host: bytes | None = None
        self.expects = False
        self.length: int | None = None
        self.to_page: Headers = []

    def read(
        self, headers: Headers, url: bytes, parser: HttpRequestParser, most_bytes: int
    ) -> Fault | None:
        """Take in what this head says, which has at most so many bytes; return what is wrong."""
        if len(headers) > MOST_HEADERS or (
            most_bytes > MOST_HEAD_BYTES
            and sum(len(name) + len(value) for name, value in headers) > MOST_HEAD_BYTES
        ):
            return TOO_LARGE
        self.expects, self.length, self.to_page = False, None, []
        hosts: list[bytes] = []
        origins = 0
        for name, value in headers:
            if name not in _WATCHED:
                continue
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                self.length = int(value)
            elif name == b"origin":
                origins += 1
                self.to_page = self._names.answer_to(value) if origins == 1 else []
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    return Fault(417, "expectation_failed", "That expectation cannot be met.")
                self.expects = True
            elif value.lower() != b"chunked":
                return Fault(400, "invalid_http", "Send bodies plain or chunked.")
        if not self._is_one_host(hosts, parser):
            return Fault(400, "invalid_host", "The request must name one valid host.")
        if not self._names.is_ours(hosts[0] if hosts else b"", url):
            return Fault(421, "unknown_host", "This server does not go by that name.")
        return None

    def _is_one_host(self, hosts: list[bytes], parser: HttpRequestParser) -> bool:
        if len(hosts) != 1:
            return not hosts and bool(parser.get_http_version() == "1.0")
        if hosts[0] != self._known_host:
            if _HOST.fullmatch(hosts[0]) is None:
                return False
            self._known_host = hosts[0]
        return True


def is_question(headers: Headers, parser: HttpRequestParser) -> bool:
    """Whether a browser asks beforehand what it may send."""
    is_asked = any(name == b"access-control-request-method" for name, _ in headers)
    return is_asked and bool(parser.get_method() == b"OPTIONS")


def without_upgrade(parser: HttpRequestParser, url: bytes, headers: Headers) -> bytes:
    """The head that was parsed, as it would be without its offer: declining one is no error.

    The parser takes whatever follows an offer for another protocol, a body included.
    """
    version = parser.get_http_version().encode()
    lines = [b"%b %b HTTP/%b" % (parser.get_method(), url, version)]
    for name, value in headers:
        if name == b"connection":
            tokens = {token.strip() for token in value.lower().split(b",")}
            lines.append(b"connection: " + b", ".join(tokens & _KEPT_TOKENS))
        elif name not in _UPGRADING:
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def refusal(status: int, code: str, message: str) -> bytes:
    """A whole answer in our error shape, behind which the connection ends."""
    request_id = f"req_{secrets.token_hex(12)}"
    error = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
    body = msgspec.json.encode({"error": {**error, "request_id": request_id}})
    head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\n" % (status, _REASONS[status])
    safe = b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
    rest = b"x-request-id: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head + safe + rest % (request_id.encode(), len(body)) + body
