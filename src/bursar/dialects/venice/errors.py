"""How the Venice dialect says no: `{"error": text, "code": UPPER_CASE}`, and details of fields.

Owns the one table from our refusals to its statuses, codes and words. The words matter: venice-sdk
takes a 404 for a missing key only if it says "not found", and venice-py knows the refusal of an
address by its sentence. Must not know where a refusal came from.
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

_BY_STATUS: Final[Mapping[int, str]] = {
    400: "INVALID_REQUEST",
    401: "AUTHENTICATION_FAILED",
    402: "INSUFFICIENT_BALANCE",
    403: "UNAUTHORIZED",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "CONFLICT",
    410: "GONE",
    413: "PAYLOAD_TOO_LARGE",
    415: "INVALID_CONTENT_TYPE",
    422: "INVALID_REQUEST",
    429: "RATE_LIMIT_EXCEEDED",
    500: "UNKNOWN_ERROR",
    502: "INFERENCE_FAILED",
    503: "SERVICE_UNAVAILABLE",
    504: "REQUEST_TIMEOUT",
}
_BY_CODE: Final[Mapping[str, str]] = {
    "account_suspended": "API_ACCESS_DISABLED",
    "model_not_found": "MODEL_NOT_FOUND",
    "upstream_busy": "MODEL_AT_CAPACITY",
    "upstream_rate_limited": "MODEL_OVERLOADED",
    "upstream_unavailable": "MODEL_OFFLINE",
    "upstream_unreachable": "MODEL_OFFLINE",
}
_WORDS: Final[Mapping[str, str]] = {
    "ip_not_allowed": (
        "This API key is restricted to configured IP addresses, and this request's source IP is"
        " not allowed"
    ),
    "wrong_key_type": (
        "This kind of API key cannot be used here: an ADMIN key manages the account, an INFERENCE"
        " key calls models."
    ),
    "not_found": "Not found: there is nothing here, or it is not yours.",
    "model_not_found": "Model not found.",
}
_INVALID: Final = "Invalid request parameters"
_BROKEN: Final = "Something went wrong on our side. If you report it, give the request id."
_OUTAGE: Final = "The database cannot be reached at the moment. Try again shortly."


def status_of(error: BursarError) -> int:
    """Return the status with which a use case's refusal is answered."""
    found = CODES.get(error.code)
    return found or next(STATUSES[base] for base in type(error).__mro__ if base in STATUSES)


def encode(status: int, error: BursarError) -> bytes:
    """Return the body of a refusal; what broke inside stays inside."""
    if status == 500:
        return _body(_BROKEN, _BY_STATUS[500])
    message = _WORDS.get(error.code, error.message)
    code = _code(status, error)
    if isinstance(error, errors.Invalid) and error.param is not None and code == _BY_STATUS[400]:
        # Said twice, because venice-sdk throws details away.
        details = {"_errors": [], error.param: {"_errors": [message]}}
        return _body(f"{_INVALID}. {error.param}: {message}", code, details=details)
    return _body(message, code)


def excuse(is_outage: bool) -> tuple[int, bytes]:
    """Return status and body after an accident.

    It never says when to try again: clients take that as leave to send a creation a second time,
    and nobody knows whether the first one was carried out.
    """
    if is_outage:
        return 503, _body(_OUTAGE, _BY_STATUS[503])
    return 500, _body(_BROKEN, _BY_STATUS[500])


def method_not_allowed() -> bytes:
    """Return the body for a method that an existing path does not have."""
    return _body("This address does not have that method.", _BY_STATUS[405])


def not_found() -> bytes:
    """Return the body for a path that is not there."""
    return _body(_WORDS["not_found"], _BY_STATUS[404])


def _code(status: int, error: BursarError) -> str:
    if status == 402 and str(error.extra.get("allowance", "")).startswith("key:"):
        return "API_KEY_USD_SPEND_LIMIT_EXCEEDED"
    return _BY_CODE.get(error.code, _BY_STATUS.get(status, "UNKNOWN_ERROR"))


def _body(message: str, code: str, *, details: object = None) -> bytes:
    said: dict[str, object] = {"error": message, "code": code}
    if details is not None:
        said["details"] = details
    return msgspec.json.encode(said)
