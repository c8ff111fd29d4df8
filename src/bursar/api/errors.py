"""The one table from a refusal's class and code to its HTTP status.

Owns statuses and the headers that go with them. Must not know routes, nor how a refusal is written
(that is `problems`).
"""

from collections.abc import Mapping
from typing import Final

from bursar.api.problems import INTERNAL, Problem
from bursar.core import errors
from bursar.core.errors import BursarError
from bursar.core.money import format_usd
from bursar.edge.fields import format_moment

STATUSES: Final[Mapping[type[BursarError], int]] = {
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
CODES: Final[Mapping[str, int]] = {"body_too_large": 413, "unsupported_media_type": 415}


def problem_of(error: BursarError) -> Problem:
    """Return how a use case's refusal is answered; what broke inside stays inside."""
    status = CODES.get(error.code) or _status(type(error))
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


def _status(kind: type[BursarError]) -> int:
    return next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)


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
