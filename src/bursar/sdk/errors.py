"""The SDK's errors. Every message is a sentence that says what to do; secrets are in none.

BursarError
├── ConfigurationError       nothing was sent: no key, a bad address, an unreadable profile
├── InvalidArgument          nothing was sent: a value that no server would take (a ValueError)
├── MissingDependency        an optional package is not installed (an ImportError)
├── ConnectionFailed         no answer came
│   ├── TimedOut             not in time (a TimeoutError)
│   ├── TlsFailed            no secure connection: the server did not prove who it is
│   └── StreamCut            an answer began and did not end
├── InvalidAnswer            an answer came that is none of Bursar's
└── Refused                  the server said no; has `status`, `code`, `request_id`, …
    ├── InvalidRequest       400, 405, 413, 415, 422
    ├── Unauthenticated      401
    ├── InsufficientCredit   402
    ├── Forbidden            403
    ├── NotFound             404, 410
    ├── Conflict             409
    ├── RateLimited          429
    └── ServerFailed         5xx
"""

from collections.abc import Mapping
from typing import Any, Final


class BursarError(Exception):
    """Whatever the SDK raises; `request_id` is there where the server gave one."""

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id


class ConfigurationError(BursarError):
    """The client cannot be used as it is set up; nothing was sent."""


class InvalidArgument(BursarError, ValueError):
    """An argument means nothing: no server was asked."""


class MissingDependency(BursarError, ImportError):
    """An optional package is needed that is not installed."""


class ConnectionFailed(BursarError):
    """No answer came, or not all of it. What was asked for may have been done or not."""


class TimedOut(ConnectionFailed, TimeoutError):
    """No answer came in time."""


class TlsFailed(ConnectionFailed):
    """No secure connection was made, as for a certificate that is not trusted: nothing was sent."""


class StreamCut(ConnectionFailed):
    """A stream ended before its end."""


class InvalidAnswer(BursarError):
    """What came is no answer of a Bursar server: the address may be another program's."""

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.status = status


class Refused(BursarError):
    """The server said no.

    `code` is for programs (docs: Errors), `type` its family, `param` the field at fault,
    `retry_after` the seconds to wait. `details` has whatever else was said: of limits, `allowance`,
    `left` and `resets_at`.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        type: str | None = None,  # noqa: A002 - the wire's name
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, request_id=request_id)
        self.status = status
        self.code = code
        self.type = type
        self.param = param
        self.retry_after = retry_after
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        said = [str(self.status), *filter(None, (self.code, self.request_id))]
        return f"{self.message} ({', '.join(said)})"


class InvalidRequest(Refused):
    """The request cannot be read, or a field of it is wrong: `param` says which."""


class Unauthenticated(Refused):
    """The key is missing, not valid, or of another kind than this call takes."""


class InsufficientCredit(Refused):
    """The credit that applies is used up; `details["allowance"]` says which."""


class Forbidden(Refused):
    """The key is good, but may not do this."""


class NotFound(Refused):
    """There is no such thing, or it is not yours."""


class Conflict(Refused):
    """The present state does not allow it."""


class RateLimited(Refused):
    """Too much at once; `retry_after` says when to try again."""


class ServerFailed(Refused):
    """The server, or a model server behind it, failed or is not available."""


BY_STATUS: Final[Mapping[int, type[Refused]]] = {
    401: Unauthenticated,
    402: InsufficientCredit,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    429: RateLimited,
}

# For a refusal in the middle of a stream, which has no status of its own.
STATUS_BY_TYPE: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "insufficient_quota": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "upstream_error": 502,
    "service_unavailable": 503,
}


def kind_of(status: int) -> type[Refused]:
    """Return the class for a status that is no success."""
    if status in BY_STATUS:
        return BY_STATUS[status]
    return ServerFailed if status >= 500 else InvalidRequest
