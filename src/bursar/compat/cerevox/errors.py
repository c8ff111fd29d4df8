"""The error of the account API; it has the SDK's own error as its cause.

AccountError    whatever failed: "authentication" is in the text of a credential that is not good,
                "forbidden" in that of one that may not do this
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from bursar.sdk import errors as sdk
from bursar.sdk.errors import BursarError


class AccountError(Exception):
    """A call failed: `status_code` is None where no answer came.

    `code` is for programs (docs: Errors), `validation_errors` says what is wrong with which field,
    `retry_after` how many seconds to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        validation_errors: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.validation_errors: dict[str, str] = dict(validation_errors or {})


@contextmanager
def raising() -> Iterator[None]:
    """Raise errors of the SDK as AccountError."""
    try:
        yield
    except BursarError as error:
        raise _translated(error) from error


def _translated(error: BursarError) -> AccountError:
    if not isinstance(error, sdk.Refused):
        return AccountError(str(error), request_id=error.request_id)
    details = error.details.get("validation_errors")
    return AccountError(
        f"Access forbidden: {error}" if isinstance(error, sdk.Forbidden) else str(error),
        status_code=error.status,
        code=error.code,
        request_id=error.request_id,
        retry_after=error.retry_after,
        validation_errors=details if isinstance(details, Mapping) else None,
    )
