"""Problems: refusals as they are written, whatever they are about.

Owns the body's form: an OpenAI-shaped object, which clients of both planes already read. Must not
know which refusal has which status (that is `api.errors`); never shows a stack, SQL or a path.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from typing_extensions import TypedDict

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
    """A refusal with its status; `extra` is published beside the message."""

    status: int
    code: str
    message: str
    param: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


INTERNAL: Final = Problem(
    500,
    "internal_error",
    "Something went wrong on our side. If you report it, give the request id.",
)
OUTAGE: Final = Problem(
    503,
    "ledger_unavailable",
    "The database cannot be reached at the moment. Try again shortly.",
    headers={"retry-after": "1"},
)
NOT_FOUND: Final = Problem(404, "not_found", "There is nothing here, or it is not yours.")
UNREADABLE: Final = Problem(400, "invalid_request", "The request cannot be read.")


def method_not_allowed(allowed: list[str]) -> Problem:
    """The refusal of a method that an existing path does not have."""
    message = "This address does not have that method."
    return Problem(405, "method_not_allowed", message, headers={"allow": ", ".join(allowed)})


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
