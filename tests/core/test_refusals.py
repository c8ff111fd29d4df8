"""Reasons have one order, and an answer never tells a guesser what was wrong with a key."""

import pytest

from bursar.core import errors, refusals
from bursar.core.refusals import Deny, Reason

# In the order in which they win. A change here is a change of what clients see.
ORDER = [
    (Reason.MISSING, "missing_api_key", errors.Unauthenticated),
    (Reason.MALFORMED, "invalid_api_key", errors.Unauthenticated),
    (Reason.UNKNOWN, "invalid_api_key", errors.Unauthenticated),
    (Reason.DELETED, "invalid_api_key", errors.Unauthenticated),
    (Reason.DISABLED, "invalid_api_key", errors.Unauthenticated),
    (Reason.EXPIRED, "invalid_api_key", errors.Unauthenticated),
    (Reason.ACCOUNT_SUSPENDED, "account_suspended", errors.Forbidden),
    (Reason.WRONG_KEY_TYPE, "wrong_key_type", errors.Unauthenticated),
    (Reason.IP_NOT_ALLOWED, "ip_not_allowed", errors.Forbidden),
    (Reason.ENDPOINT_NOT_ALLOWED, "endpoint_not_allowed", errors.Forbidden),
    (Reason.LABEL_NOT_ALLOWED, "label_not_allowed", errors.Forbidden),
    (Reason.MODEL_NOT_FOUND, "model_not_found", errors.NotFound),
    (Reason.MODEL_NOT_ALLOWED, "model_not_allowed", errors.Forbidden),
    (Reason.MODEL_NOT_PRICED, "model_not_priced", errors.Forbidden),
    (Reason.QUOTA, "insufficient_quota", errors.MoneyRefused),
    (Reason.RATE, "rate_limit_exceeded", errors.RateRefused),
    (Reason.CREDIT_HELD, "credit_held", errors.RateRefused),
    (Reason.STALE, "ledger_unavailable", errors.Unavailable),
    (Reason.STORAGE_FULL, "storage_full", errors.Unavailable),
    (Reason.OVERLOADED, "overloaded", errors.Unavailable),
]
KEY_PROBLEMS = [reason for reason in Reason if reason.code == "invalid_api_key"]


def test_the_reasons_their_codes_and_their_order_are_fixed() -> None:
    assert [(reason, reason.code, reason.error) for reason in Reason] == ORDER


def test_a_reason_is_its_own_label_in_logs_and_metrics() -> None:
    assert [str(reason) for reason in KEY_PROBLEMS] == [
        "malformed",
        "unknown",
        "deleted",
        "disabled",
        "expired",
    ]


def test_what_is_wrong_with_a_key_looks_the_same_from_outside() -> None:
    answers = set()
    for reason in KEY_PROBLEMS:
        error = refusals.as_error(refusals.deny(reason))
        answers.add((type(error), error.code, error.message, error.param, str(error.extra)))
        assert error.detail == reason.value
    assert len(answers) == 1


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_sentence(reason: Reason) -> None:
    assert reason.message.endswith((".", "'."))
    assert reason.message[0].isupper()
    assert refusals.deny(reason, param="model").message == reason.message


def test_a_refused_limit_says_which_what_is_left_and_when_it_resets() -> None:
    refusal = Deny(
        Reason.RATE,
        "At most 60 requests a minute.",
        allowance="key:12/requests/minute",
        limit=60,
        left=0,
        resource="requests",
        resets_at_ms=1_800_000_000_000,
        retry_after_s=7,
    )
    error = refusals.as_error(refusal)
    assert isinstance(error, errors.RateRefused)
    assert error.code == "rate_limit_exceeded"
    assert error.message == "At most 60 requests a minute."
    assert error.retry_after_s == 7
    assert error.extra == {
        "allowance": "key:12/requests/minute",
        "resource": "requests",
        "limit": 60,
        "left": 0,
        "resets_at_ms": 1_800_000_000_000,
    }


def test_what_a_refusal_does_not_know_it_does_not_say() -> None:
    error = refusals.as_error(refusals.deny(Reason.MODEL_NOT_FOUND, param="model"))
    assert error.extra == {}
    assert error.param == "model"
    assert error.retry_after_s is None
