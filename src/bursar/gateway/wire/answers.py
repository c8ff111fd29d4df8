"""How the gateway says no, and what of an upstream's answer goes on to the caller.

Owns the gateway's one table from errors to statuses and OpenAI's error object, and the translation
of upstream failures: an upstream that refuses our credentials is our fault (502), never a 401 that
would make a caller doubt their own key. Must not know how requests are served.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from bursar.core import errors
from bursar.core.money import format_usd
from bursar.gateway.caller import TooLarge, UnsupportedMedia
from bursar.gateway.upstreams.port import FailureKind, UpstreamError

Headers = list[tuple[bytes, bytes]]
# A refusal's body in a dialect's own form, from its status and what it says.
Word = Callable[[int, errors.BursarError], bytes]

_encode = msgspec.json.Encoder(decimal_format="number").encode

_LATE: Final[frozenset[FailureKind]] = frozenset(
    ("timeout_connect", "timeout_headers", "timeout_idle", "timeout_total")
)
_MESSAGE_BYTES: Final = 2_000


class MethodNotAllowed(errors.Unreadable):
    """The path is served, but not with this method."""


class UpstreamRefused(errors.BursarError):
    """The upstream answered with an error, or with nothing usable; `status` is what we answer."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_s: int | None = None
    ) -> None:
        super().__init__(code, message, retry_after_s=retry_after_s)
        self.status = status


# The first class that fits, in this order.
_STATUSES: Final[tuple[tuple[type[errors.BursarError], int, str], ...]] = (
    (UnsupportedMedia, 415, "invalid_request_error"),
    (TooLarge, 413, "invalid_request_error"),
    (MethodNotAllowed, 405, "invalid_request_error"),
    (errors.Unreadable, 400, "invalid_request_error"),
    (errors.Unauthenticated, 401, "authentication_error"),
    (errors.Forbidden, 403, "permission_error"),
    (errors.NotFound, 404, "not_found_error"),
    (errors.Invalid, 400, "invalid_request_error"),
    (errors.MoneyRefused, 402, "insufficient_quota"),
    (errors.RateRefused, 429, "rate_limit_exceeded"),
    (errors.Unavailable, 503, "service_unavailable"),
)


class _ErrorBody(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()


class _Answer(msgspec.Struct):
    error: msgspec.Raw | None = None
    choices: msgspec.Raw | None = None
    data: msgspec.Raw | None = None


class _ErrorFields(msgspec.Struct):
    message: str = ""
    param: str | None = None


def refusal(
    error: errors.BursarError, *, request_id: str, word: Word | None = None
) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an error; `word` gives the body in another dialect's form."""
    status, kind = _classify(error)
    headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request_id.encode()),
    ]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if word is not None:
        return status, headers, word(status, error)
    fields: dict[str, object] = {
        "type": kind,
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "request_id": request_id,
    }
    fields.update(_numbers(error))
    return status, headers, _encode({"error": fields})


def not_allowed() -> MethodNotAllowed:
    """The refusal of a method that a path does not take."""
    return MethodNotAllowed("method_not_allowed", "This path does not take that method.")


def broken() -> errors.InvariantViolated:
    """What is said of a fault of ours; what it was stands in the log under the request's id."""
    return errors.InvariantViolated("internal_error", "Something went wrong here, not with you.")


def event(error: errors.BursarError, *, request_id: str, word: Word | None = None) -> bytes:
    """An error in the middle of a stream, as one event."""
    return b"data: " + refusal(error, request_id=request_id, word=word)[2] + b"\n\n"


def from_failure(error: UpstreamError) -> UpstreamRefused:
    """What a failed call upstream means to the caller."""
    if error.kind in _LATE:
        return UpstreamRefused(504, "upstream_timeout", "The model server did not answer in time.")
    if error.kind == "busy":
        return UpstreamRefused(
            503, "upstream_busy", "The model server has no capacity left.", retry_after_s=1
        )
    if error.kind == "too_large":
        return UpstreamRefused(502, "upstream_invalid", "The model server's answer is too large.")
    if error.kind == "protocol":
        return invalid()
    return UpstreamRefused(502, "upstream_unreachable", "The model server cannot be reached.")


def from_status(status: int, headers: Headers, body: bytes) -> UpstreamRefused:
    """What an upstream's error status means to the caller."""
    message = _message_of(body)
    if status == 429:
        return UpstreamRefused(
            429,
            "upstream_rate_limited",
            # In the model server's own words it is about whoever calls it: us, by name.
            "The model server is limiting requests.",
            retry_after_s=_retry_after(headers),
        )
    if status in (401, 403):
        return UpstreamRefused(502, "upstream_auth", "The model server refused our credentials.")
    if status in (400, 404, 409, 413, 415, 422):
        passed = 400 if status in (409, 415) else status
        return UpstreamRefused(passed, "upstream_rejected", message or "The model server refused.")
    if status in (502, 503, 504, 529):
        return UpstreamRefused(
            503, "upstream_unavailable", "The model server is unavailable.", retry_after_s=1
        )
    return UpstreamRefused(502, "upstream_error", "The model server failed.")


def invalid() -> UpstreamRefused:
    """An answer that is no answer: HTML, garbage, a redirect."""
    return UpstreamRefused(502, "upstream_invalid", "The model server's answer makes no sense.")


def is_only_error(body: bytes) -> bool:
    """Whether a 200 carries nothing but an error: a sale that was none."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return False
    return bool(answer.error) and not (answer.choices or answer.data)


def _classify(error: errors.BursarError) -> tuple[int, str]:
    if isinstance(error, UpstreamRefused):
        return error.status, "rate_limit_exceeded" if error.status == 429 else "upstream_error"
    for family, status, kind in _STATUSES:
        if isinstance(error, family):
            return status, kind
    return 500, "server_error"


def _numbers(error: errors.BursarError) -> dict[str, object]:
    """What a limit's refusal publishes beside its message; money as plain decimals."""
    extra = dict(error.extra)
    if extra.get("resource") == "cost":
        for name in ("limit", "left"):
            nanos = extra.get(name)
            if isinstance(nanos, int):
                extra[name] = format_usd(nanos)
    if "allowance" in extra:
        resets_at_ms = extra.pop("resets_at_ms", None)
        extra["resets_at"] = None
        if isinstance(resets_at_ms, int):
            moment = datetime.fromtimestamp(resets_at_ms / 1000, UTC)
            extra["resets_at"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return extra


def _message_of(body: bytes) -> str | None:
    try:
        raw = msgspec.json.decode(body, type=_ErrorBody)
        if raw.error:
            fields = msgspec.json.decode(raw.error, type=_ErrorFields)
            return fields.message[:_MESSAGE_BYTES] or None
        return msgspec.json.decode(raw.message, type=str)[:_MESSAGE_BYTES] if raw.message else None
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def _retry_after(headers: Headers) -> int | None:
    for name, value in headers:
        if name == b"retry-after" and value.isdigit() and len(value) <= 6:
            return int(value)
    return 1
