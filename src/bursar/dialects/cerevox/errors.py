"""How the Cerevox dialect says no: `{"error": text, "error_type": code}`, and what else it reads.

Owns the one table from our refusals to its statuses and words. The words matter: the client takes
"unsupported" anywhere in the text for a bad file, and its documentation looks for "authentication".
Must not know where a refusal came from.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from bursar.core import errors
from bursar.core.errors import BursarError

STATUSES: Final[Mapping[type[BursarError], int]] = {
    errors.Unreadable: 400,
    errors.Unauthenticated: 401,
    errors.MoneyRefused: 402,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.Invalid: 400,
    errors.RateRefused: 429,
    errors.InvariantViolated: 500,
    errors.Unavailable: 503,
}
# Our codes for which HTTP has a status of its own.
CODES: Final[Mapping[str, int]] = {"body_too_large": 413, "unsupported_media_type": 415}

_WORDS: Final[Mapping[str, str]] = {
    "not_found": "There is nothing here, or it is not yours.",
    "wrong_key_type": "This takes a provisioning key, or the tokens that it was traded for.",
}
_UNAUTHENTICATED: Final = "Authentication failed: "
_BROKEN: Final = "Something went wrong on our side. If you report it, give the request id."
_OUTAGE: Final = "The database cannot be reached at the moment. Try again shortly."


def status_of(error: BursarError) -> int:
    """Return the status with which a use case's refusal is answered."""
    found = CODES.get(error.code)
    return found or next(STATUSES[base] for base in type(error).__mro__ if base in STATUSES)


def encode(status: int, error: BursarError) -> bytes:
    """Return the body of a refusal; what broke inside stays inside."""
    if status == 500:
        return _body(_BROKEN, "internal_error")
    message = _WORDS.get(error.code, error.message)
    if status == 401:
        return _body(_UNAUTHENTICATED + message, error.code)
    more: dict[str, object] = {}
    if error.param is not None:
        more["validation_errors"] = {error.param: message}
        message = f"{error.param}: {message}"
    if error.retry_after_s is not None:
        more["retry_after"] = error.retry_after_s
    return _body(message, error.code, **more)


def excuse(is_outage: bool) -> tuple[int, bytes]:
    """Return status and body after an accident."""
    if is_outage:
        return 503, _body(_OUTAGE, "ledger_unavailable")
    return 500, _body(_BROKEN, "internal_error")


def method_not_allowed() -> bytes:
    """Return the body for a method that an existing path does not have."""
    return _body("This address does not have that method.", "method_not_allowed")


def not_found() -> bytes:
    """Return the body for a path that is not there."""
    return _body(_WORDS["not_found"], "not_found")


def _body(message: str, code: str, **more: object) -> bytes:
    return msgspec.json.encode({"error": message, "error_type": code, **more})
