"""The error tree that use cases raise and edges translate.

    BursarError
    ├── Unreadable          the request cannot be read at all
    ├── Unauthenticated     the caller has not proved who they are
    ├── Forbidden           known, but not allowed to do this
    ├── NotFound            no such thing, or somebody else's (the two look alike)
    ├── Invalid             a field breaks a rule
    ├── Conflict            the thing's present state stands in the way
    ├── Gone                it was there once and will not come back
    ├── MoneyRefused        the money is used up
    ├── RateRefused         too fast, or money is held by requests in flight: try later
    ├── Unavailable         the service cannot answer now
    └── InvariantViolated   the books would not balance; nothing may be written

One class for each reaction that a caller can have. Must not know HTTP: each edge owns one
table from these classes to its own statuses and shapes.
"""

from collections.abc import Mapping


class BursarError(Exception):
    """A refusal with a code for programs, a sentence for people and detail for us.

    `param` names the field at fault. `extra` is published beside the message (for a limit:
    allowance, left, resets_at_ms). `retry_after_s` says when trying again makes sense.
    `detail` goes to the log only and is never sent to the caller.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        detail: str | None = None,
        extra: Mapping[str, object] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.detail = detail
        self.extra: Mapping[str, object] = dict(extra or {})
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r})"


class Unreadable(BursarError):
    """The request cannot be read: not JSON, a key twice, bad framing."""


class Unauthenticated(BursarError):
    """The caller has not proved who they are."""


class Forbidden(BursarError):
    """The caller is known and may not do this."""


class NotFound(BursarError):
    """There is no such thing, or it is another account's: both answer alike."""


class Invalid(BursarError):
    """A field breaks a rule; `param` names it."""


class Conflict(BursarError):
    """The present state of the thing does not allow this."""


class Gone(BursarError):
    """The thing existed and will not come back: a used invitation, an expired link."""


class MoneyRefused(BursarError):
    """The money is used up; only credit or a higher limit helps."""


class RateRefused(BursarError):
    """Too much at once; waiting helps."""


class Unavailable(BursarError):
    """The service cannot answer this now and fails closed."""


class InvariantViolated(BursarError):
    """A step would break the books: it is not done, and somebody must look."""
