"""Why a request is refused: the reasons in their fixed order, and the answer's value.

Owns the order in which reasons win, and each one's public code and sentence. Must not know
HTTP; a reason's class says what the caller can do about it. Unknown, malformed, disabled,
expired and deleted keys share one code and one sentence, so that an answer never tells a
guesser which of them it was; logs and metrics have the reason.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bursar.core import errors
from bursar.core.allowances import AllowanceRef, Resource
from bursar.core.money import format_usd

_HELD_RETRY_S = 1
_INVALID_KEY = ("invalid_api_key", errors.Unauthenticated, "The API key is not valid.")


class Reason(StrEnum):
    """The reasons, first match wins: the order of the members is the order of the answers."""

    code: str
    error: type[errors.BursarError]
    message: str

    def __new__(
        cls, value: str, code: str, error: type[errors.BursarError], message: str
    ) -> "Reason":
        member = str.__new__(cls, value)
        member._value_ = value
        member.code = code
        member.error = error
        member.message = message
        return member

    MISSING = (
        "missing",
        "missing_api_key",
        errors.Unauthenticated,
        "No API key was sent. Send it as 'Authorization: Bearer <key>'.",
    )
    MALFORMED = ("malformed", *_INVALID_KEY)
    UNKNOWN = ("unknown", *_INVALID_KEY)
    DELETED = ("deleted", *_INVALID_KEY)
    DISABLED = ("disabled", *_INVALID_KEY)
    EXPIRED = ("expired", *_INVALID_KEY)
    ACCOUNT_SUSPENDED = (
        "account_suspended",
        "account_suspended",
        errors.Forbidden,
        "The account is suspended.",
    )
    WRONG_KEY_TYPE = (
        "wrong_key_type",
        "wrong_key_type",
        errors.Unauthenticated,
        "This kind of API key cannot be used here.",
    )
    IP_NOT_ALLOWED = (
        "ip_not_allowed",
        "ip_not_allowed",
        errors.Forbidden,
        "The API key may not be used from this address.",
    )
    ENDPOINT_NOT_ALLOWED = (
        "endpoint_not_allowed",
        "endpoint_not_allowed",
        errors.Forbidden,
        "The API key may not use this endpoint.",
    )
    LABEL_NOT_ALLOWED = (
        "label_not_allowed",
        "label_not_allowed",
        errors.Forbidden,
        "The API key may not set this label.",
    )
    MODEL_NOT_FOUND = (
        "model_not_found",
        "model_not_found",
        errors.NotFound,
        "The model does not exist.",
    )
    MODEL_NOT_ALLOWED = (
        "model_not_allowed",
        "model_not_allowed",
        errors.Forbidden,
        "The API key may not use this model.",
    )
    MODEL_NOT_PRICED = (
        "model_not_priced",
        "model_not_priced",
        errors.Forbidden,
        "The model has no price for this use, and what has no price is not served.",
    )
    # Money that is gone goes before money that is held: waiting would not help the caller.
    QUOTA = (
        "quota",
        "insufficient_quota",
        errors.MoneyRefused,
        "The credit that applies to this request is used up.",
    )
    RATE = (
        "rate",
        "rate_limit_exceeded",
        errors.RateRefused,
        "A rate limit is reached. Try again after it resets.",
    )
    CREDIT_HELD = (
        "credit_held",
        "credit_held",
        errors.RateRefused,
        "Requests in flight hold the rest of the credit. Try again when they have ended.",
    )
    STALE = (
        "stale",
        "ledger_unavailable",
        errors.Unavailable,
        "Limits cannot be checked at the moment. Try again shortly.",
    )
    STORAGE_FULL = (
        "storage_full",
        "storage_full",
        errors.Unavailable,
        "Usage cannot be recorded at the moment. Try again later.",
    )
    OVERLOADED = (
        "overloaded",
        "overloaded",
        errors.Unavailable,
        "The service is at its capacity. Try again shortly.",
    )


# Which of two reasons is the answer: the smaller number.
ORDER: Final = {reason: number for number, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True)
class Deny:
    """A refusal: which reason, in which words, and for a limit its numbers and its reset.

    `allowance` is the public name of the one that said no; `limit` and `left` are in units of
    `resource` (nano-USD for cost). `param` names the request's field at fault.
    """

    reason: Reason
    message: str
    allowance: str | None = None
    limit: int | None = None
    left: int | None = None
    resource: str | None = None
    resets_at_ms: int | None = None
    retry_after_s: int | None = None
    param: str | None = None


def deny(reason: Reason, *, param: str | None = None, retry_after_s: int | None = None) -> Deny:
    """Return the refusal for a reason that no limit is involved in, in the reason's words."""
    return Deny(reason, reason.message, param=param, retry_after_s=retry_after_s)


def reason_of(resource: str, *, needed: int, left: int) -> Reason:
    """Return why a request is refused that an allowance of this resource has too little for.

    Credit that only requests in flight hold is worth waiting for; credit that is spent is not.
    """
    if resource != Resource.COST:
        return Reason.RATE
    return Reason.CREDIT_HELD if needed <= left else Reason.QUOTA


def deny_by_limit(
    ref: AllowanceRef,
    *,
    limit: int | None,
    left: int,
    needed: int,
    resets_at_ms: int | None,
    now_ms: int,
) -> Deny:
    """Return the refusal of a request that needs more than `left`, or than nobody else holds."""
    reason = reason_of(ref.resource, needed=needed, left=left)
    retry_after_s = None
    if reason is Reason.RATE:
        what = "calls at once" if ref.resource == Resource.CONCURRENCY else ref.resource
        words = f"{left} of {limit} {what} are left"
        if needed <= left:
            words += ", but requests in flight hold them"
        retry_after_s = _seconds_until(resets_at_ms, now_ms)
    elif reason is Reason.CREDIT_HELD:
        words = f"{format_usd(left)} USD are left, but requests in flight hold them"
        retry_after_s = _HELD_RETRY_S
    else:
        words = f"{format_usd(left)} USD are left and this request may cost {format_usd(needed)}"
    return Deny(
        reason,
        f"{reason.message} ({ref.name}: {words}.)",
        allowance=ref.name,
        limit=limit,
        left=left,
        resource=ref.resource,
        resets_at_ms=resets_at_ms,
        retry_after_s=retry_after_s,
    )


def as_error(refusal: Deny) -> errors.BursarError:
    """Return the error with which a use case raises this refusal; `extra` has its numbers."""
    numbers = {
        "allowance": refusal.allowance,
        "resource": refusal.resource,
        "limit": refusal.limit,
        "left": refusal.left,
        "resets_at_ms": refusal.resets_at_ms,
    }
    return refusal.reason.error(
        refusal.reason.code,
        refusal.message,
        param=refusal.param,
        detail=refusal.reason.value,
        extra={name: value for name, value in numbers.items() if value is not None},
        retry_after_s=refusal.retry_after_s,
    )


def _seconds_until(moment_ms: int | None, now_ms: int) -> int:
    return 1 if moment_ms is None else max(1, -(-(moment_ms - now_ms) // 1000))
