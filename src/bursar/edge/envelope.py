"""The envelope: what every response of the control plane has, and the last resort for bugs.

Owns the request id and the headers for browsers, and what becomes of a request
whose caller left in the middle of it. An id that a client sends is not used: it would let one
write into the other's logs. Must not know routes, nor how a face words its refusals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bursar.store.database import is_outage

_log: Final = structlog.get_logger("bursar.api")
_ID_BYTES: Final = 12
# No answer is a page: nobody may frame it, run anything in it, keep it, or learn where it was.
_TO_BROWSERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


@dataclass(frozen=True, slots=True)
class Excuse:
    """What is answered after an accident, as JSON; `code` is for the log."""

    status: int
    code: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Envelope:
    """Wraps the application: headers on every response, an answer for every accident.

    `excuse` words that answer, for an outage of the database (True) or a bug, and a request id.
    `count_gone` is called for each caller who left before the request was complete.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        random_bytes: Callable[[int], bytes],
        excuse: Callable[[bool, str], Excuse],
        count_gone: Callable[[], None],
    ) -> None:
        self._app = app
        self._excuse = excuse
        self._random_bytes = random_bytes
        self._count_gone = count_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw: bytes | None = scope.get("raw_path")
        if raw is not None and b"%" in raw:
            # Paths match as they were sent: of a decoded %2F nobody could tell where it stood.
            scope["path"] = raw.decode("latin-1")
        request_id = f"req_{self._random_bytes(_ID_BYTES).hex()}"
        scope["request_id"] = request_id
        has_begun = False
        safe = ((b"x-request-id", request_id.encode()), *_TO_BROWSERS)

        async def seal(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message["headers"], *safe]
            await send(message)

        try:
            await self._app(scope, receive, seal)
        except ClientDisconnect:
            # Nothing has been done yet, nobody is there to be answered, and it is no fault of ours.
            self._count_gone()
        except Exception as error:
            excuse = self._excuse(is_outage(error), request_id)
            _log.exception("request_failed", request_id=request_id, code=excuse.code)
            if has_begun:
                raise
            await _send(seal, excuse)


async def _send(send: Send, excuse: Excuse) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(excuse.body)).encode()),
        *((name.encode(), value.encode()) for name, value in excuse.headers.items()),
    ]
    await send({"type": "http.response.start", "status": excuse.status, "headers": headers})
    await send({"type": "http.response.body", "body": excuse.body})
