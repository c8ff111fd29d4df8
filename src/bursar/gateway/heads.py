"""Heads in bytes: a request's without the upgrade that it offers, and the answer to one refused.

Owns how they are written. Must not know connections, or when a request is refused.
"""

import secrets
from typing import Final

import msgspec
from httptools import HttpRequestParser

from bursar.gateway.asgi import Headers

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
