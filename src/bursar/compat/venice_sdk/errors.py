"""Errors, as Venice's SDK names them; each has the SDK's own error as its cause.

VeniceAPIError
├── APIKeyError               a call about keys or rate limits failed
├── BillingError              a call about usage or money failed
├── UnauthorizedError         the key is not valid, or it takes an admin key
├── InsufficientBalanceError  the credit is used up
├── RateLimitError            too much at once: `retry_after` says when to try again
└── VeniceConnectionError     no answer came
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bursar.sdk import errors as sdk
from bursar.sdk.errors import BursarError


class VeniceAPIError(Exception):
    """Whatever this client raises."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.request_id = request_id
        self.retry_after = retry_after


class APIKeyError(VeniceAPIError):
    """A call about keys or rate limits failed."""


class BillingError(VeniceAPIError):
    """A call about usage or money failed."""


class UnauthorizedError(VeniceAPIError):
    """The key is not valid, or it takes an admin key."""


class InsufficientBalanceError(VeniceAPIError):
    """The credit that applies is used up."""


class RateLimitError(VeniceAPIError):
    """Too much at once."""


class VeniceConnectionError(VeniceAPIError):
    """No answer came, or not all of it."""


_UNAUTHORIZED: Final = (sdk.Unauthenticated, sdk.Forbidden)
# What a failed call of a model is.
_OF_CALLS: Final = (
    (sdk.InsufficientCredit, InsufficientBalanceError),
    (sdk.RateLimited, RateLimitError),
    (sdk.ConnectionFailed, VeniceConnectionError),
)


@contextmanager
def raising(kind: type[VeniceAPIError]) -> Iterator[None]:
    """Raise errors of the SDK as Venice's: as UnauthorizedError, or as this kind.

    Where the kind is VeniceAPIError itself, as the one that says most.
    """
    try:
        yield
    except BursarError as error:
        raise _translated(error, kind) from error


def _translated(error: BursarError, kind: type[VeniceAPIError]) -> VeniceAPIError:
    found = kind
    if isinstance(error, _UNAUTHORIZED):
        found = UnauthorizedError
    elif kind is VeniceAPIError:
        found = next((theirs for ours, theirs in _OF_CALLS if isinstance(error, ours)), kind)
    return found(
        str(error),
        status_code=getattr(error, "status", None),
        request_id=error.request_id,
        retry_after=getattr(error, "retry_after", None),
    )
