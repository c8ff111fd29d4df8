"""Refusals on the wire: the one table from an error's class and code to its HTTP status and shape.

Owns statuses, the `type` of each, and the body's form. Must not know routes. The body is an
OpenAI-shaped object, which clients of both planes already read; never a stack, SQL or a path.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from typing_extensions import TypedDict

from bursar.api.wire.fields import format_moment
from bursar.core import errors
from bursar.core.errors import BursarError
from bursar.core.money import format_usd

_STATUSES: Final[Mapping[type[BursarError], int]] = {
    errors.Unreadable: 400,
    errors.Unauthenticated: 401,
    errors.MoneyRefused: 402,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.Invalid: 422,
    errors.RateRefused: 429,
    errors.InvariantViolated: 500,
    errors.Unavailable: 503,
}

# Codes for which HTTP has a status of its own.
_CODES: Final[Mapping[str, int]] = {"body_too_large": 413, "unsupported_media_type": 415}

_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    410: "not_found_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_exceeded",
    500: "server_error",
    503: "service_unavailable",
}


class ErrorDetail(TypedDict):
    """What went wrong: `code` for programs, `message` for people, `param` the field at fault."""

    type: str
    code: str
    message: str
    param: str | None
    request_id: str


class ErrorShape(TypedDict):
    """The body of every refusal."""

    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal with its status, before it is written."""

    status: int
    code: str
    message: str
    param: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


def problem_of(error: BursarError) -> Problem:
    """Return how a use case's refusal is answered; what broke inside stays inside."""
    status = _CODES.get(error.code) or _status(type(error))
    if status == 500:
        return INTERNAL
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status == 413:
        # The rest of the body is not read; a connection in the middle of one is of no more use.
        headers["connection"] = "close"
    return Problem(status, error.code, error.message, error.param, _published(error), headers)


def encode(problem: Problem, *, request_id: str) -> bytes:
    """Return the body."""
    return msgspec.json.encode(
        {
            "error": {
                "type": _TYPES[problem.status],
                "code": problem.code,
                "message": problem.message,
                "param": problem.param,
                "request_id": request_id,
                **problem.extra,
            }
        }
    )


INTERNAL: Final = Problem(
    500,
    "internal_error",
    "Something went wrong on our side. If you report it, give the request id.",
)


def method_not_allowed(allowed: list[str]) -> Problem:
    """The refusal of a method that an existing path does not have."""
    message = "This address does not have that method."
    return Problem(405, "method_not_allowed", message, headers={"allow": ", ".join(allowed)})


def _status(kind: type[BursarError]) -> int:
    return next(_STATUSES[base] for base in kind.__mro__ if base in _STATUSES)


def _published(error: BursarError) -> dict[str, object]:
    """The numbers of a limit as our API writes them: moments as text, money as text."""
    extra = dict(error.extra)
    resets_at_ms = extra.pop("resets_at_ms", None)
    if isinstance(resets_at_ms, int):
        extra["resets_at"] = format_moment(resets_at_ms)
    if extra.get("resource") == "cost":
        for name in ("limit", "left"):
            amount = extra.get(name)
            if isinstance(amount, int):
                extra[name] = format_usd(amount)
    return extra
