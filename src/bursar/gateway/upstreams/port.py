"""The port through which the gateway calls a model server.

Owns what every upstream client shares: what can be sent, what comes back, how it can fail, how
long it may take and how much it may hold. Must not know prices, keys or any one implementation:
`pool` speaks HTTP/1.1 over its own connections, `pool_aiohttp` goes through aiohttp, and
`sandbox` answers inside the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

FailureKind = Literal[
    "busy",  # every connection is taken and the queue for one is full, or waiting took too long
    "connect",  # no TCP connection: refused, unreachable, the name does not resolve
    "tls",  # the certificate or the handshake is not acceptable
    "timeout_connect",
    "timeout_headers",
    "timeout_idle",
    "timeout_total",
    "protocol",  # the answer is not HTTP/1.1 that has one meaning only
    "too_large",
    "closed",  # the connection or the client ended before the answer was whole
]

Headers = Sequence[tuple[bytes, bytes]]

# Set by the client itself from the base URL and the body: a caller's copy would be a second
# opinion about where a request goes or where it ends, so it is left out.
OWN_HEADERS = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"accept-encoding",
    )
)


class UpstreamError(Exception):
    """One call failed; `request_sent` tells whether the upstream may have begun to work on it."""

    def __init__(self, kind: FailureKind, message: str, *, request_sent: bool) -> None:
        super().__init__(message)
        self.kind: FailureKind = kind
        self.request_sent = request_sent


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one call may take, in seconds.

    `connect_s` bounds the wait for a free connection and, separately, the dialling of a new one;
    `headers_s` runs from the request to the last response header; `idle_s` is the longest silence
    within a body that somebody waits for; `total_s` runs from the request to the last byte.
    """

    connect_s: float = 5.0
    headers_s: float = 600.0
    idle_s: float = 120.0
    total_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one client may hold; reaching a limit is an answer: `busy` or `too_large`.

    Sizes are bytes, `idle_expiry_s` is the age at which an unused connection is closed.
    """

    max_connections: int = 512
    max_waiters: int = 1024
    max_idle: int = 128
    idle_expiry_s: float = 30.0
    max_head: int = 65_536
    max_body: int = 33_554_432


class UpstreamResponse(Protocol):
    """One answer: status and headers are there, the body is read whole or piece by piece."""

    status: int
    headers: list[tuple[bytes, bytes]]

    async def read(self) -> bytes:
        """Return the whole body.

        Raises `UpstreamError`: `too_large` above the client's `max_body`, `closed` if cut short.
        """
        ...

    async def next_chunk(self) -> bytes:
        """Return the bytes that have arrived since the last call, `b""` at the end.

        Raises `UpstreamError`; what arrived before a failure is returned first.
        """
        ...

    def abort(self) -> None:
        """End the exchange now; idempotent. A connection with an unread rest is closed."""
        ...


class StartedResponse(UpstreamResponse, Protocol):
    """An answer that is still to come, of a request that is on its way."""

    # Called, once set, whenever something has arrived or failed; must not raise.
    told: Callable[[], None] | None

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer is here, and `take` gives its body."""
        ...

    def take(self) -> bytes:
        """Return the body of a whole answer, without waiting."""
        ...

    async def answered(self) -> bool:
        """Wait for status and headers; False: the request never got there, and may be sent again.

        Raises `UpstreamError`.
        """
        ...


class UpstreamClient(Protocol):
    """Calls one upstream; one object for the life of the worker."""

    async def send(
        self, method: bytes, path: bytes, headers: Headers, body: bytes, *, is_again: bool = False
    ) -> UpstreamResponse:
        """Send one request and return when its response headers are there.

        `is_again` sends one that was started and did not get there, for the last time. `path`
        starts with a slash and follows the base URL's own path. Redirects are answers like any
        other. Raises `UpstreamError`.
        """
        ...

    def start(
        self, method: bytes, path: bytes, headers: Headers, body: bytes
    ) -> StartedResponse | None:
        """Send one request if that needs no waiting; None: nothing was sent, use `send`."""
        ...

    async def close(self) -> None:
        """Close every connection; what is in flight fails with `closed`."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an upstream lives: the parts of a base URL, checked once."""

    is_tls: bool
    host: str
    port: int
    authority: str
    prefix: str


def parse_origin(base_url: str) -> Origin:
    """Split a base URL such as `https://api.example.com/v1`; raises ValueError for others."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"upstream base_url must be http(s)://host[:port][/path]: {base_url!r}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("upstream base_url must carry no credentials, query or fragment")
    if not base_url.isascii() or any(character <= " " for character in base_url):
        raise ValueError("upstream base_url must be plain ASCII without spaces")
    is_tls = parts.scheme == "https"
    default_port = 443 if is_tls else 80
    port = default_port if parts.port is None else parts.port
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = name if port == default_port else f"{name}:{port}"
    return Origin(is_tls, parts.hostname, port, authority, parts.path.rstrip("/"))


def check_target(method: bytes, path: bytes) -> None:
    """Raise ValueError unless both can stand in a request line as they are."""
    if not method.isalpha() or not path.startswith(b"/"):
        raise ValueError("not a method and a path")
    if any(byte <= ord(" ") or byte >= 0x7F for byte in path):
        raise ValueError("a path must be printable ASCII without spaces")
