"""Names: by which this server may be called, and which web pages may read its answers.

Owns the two lists and what is said to browsers of them. Neither decides who may do what: that is
bound to routes and keys. They keep pages that a browser is made to open (by a name that leads here,
or from another origin) from reading anything. Must not know connections or routes.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from bursar.gateway.asgi import Headers, Receive, Scope, Send

_HERE: Final = ("localhost", "127.0.0.1", "[::1]")
_METHODS: Final = b"GET, POST, PUT, PATCH, DELETE"
_SENT: Final = b"authorization, content-type, idempotency-key, x-api-key, x-bursar-labels"
_READ: Final = (
    b"idempotent-replayed, link, ratelimit, ratelimit-policy, retry-after, x-bursar-cost,"
    b" x-request-id"
)
_REMEMBERED_S: Final = b"600"


class Names:
    """Without `hosts` every name is one of ours; without `origins` no page reads anything.

    `origins` are as browsers send them (`https://app.example.com`). Cookies and other credentials
    of a browser's own are never allowed to come along.
    """

    def __init__(self, *, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        ours = {host.lower().encode() for host in hosts}
        self._hosts = ours | {host.encode() for host in _HERE} if ours else None
        self._origins = frozenset(origin.encode() for origin in origins)
        # What every answer says, so that a cache between us and a browser keeps them apart.
        self.always: list[tuple[str, str]] = [("vary", "origin")] if self._origins else []

    def is_ours(self, host: bytes, target: bytes) -> bool:
        """Whether a request means this server: by its Host, and by a target that names one."""
        if self._hosts is None:
            return True
        if target[:1] not in {b"/", b"*"}:
            try:
                named = urlsplit(target.lower()).netloc
            except ValueError:
                return False
            if _without_port(named) not in self._hosts:
                return False
        return _without_port(host.lower()) in self._hosts

    def answer_to(self, origin: bytes) -> Headers:
        """What answers to a page of this origin say besides; nothing where it may not read them."""
        if origin not in self._origins:
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _READ),
        ]


async def allow(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a browser's question of whether it may send what a page of a known origin asks for."""
    headers = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _SENT),
        (b"access-control-max-age", _REMEMBERED_S),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _without_port(host: bytes) -> bytes:
    name, _, port = host.rpartition(b":")
    return (name if name and port.isdigit() else host).removesuffix(b".")
