"""Money, moments, ids and secrets on their way out and in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar import UNSET, InvalidArgument
from bursar.sdk import values
from bursar.sdk.values import Secret

SECRET = "bsk_" + "Ab3" * 12

USD = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False, places=9)


@given(USD)
def test_money_is_sent_and_read_to_the_last_digit(amount: Decimal) -> None:
    for sent in (values.usd(amount), values.usd_text(amount)):
        body = values.encode({"amount": sent})
        assert b"E" not in body
        assert Decimal(values.decode(body)["amount"]) == amount


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (25.0, "25.0"),
        (3, "3"),
        ("1.50", "1.50"),
        (Decimal("1E+3"), "1000"),
    ],
)
def test_an_amount_means_what_python_prints_for_it(
    amount: Decimal | int | str | float, text: str
) -> None:
    assert values.encode([values.usd(amount)]) == f"[{text}]".encode()
    assert values.usd_text(amount) == text


@pytest.mark.parametrize(
    "amount", [True, float("nan"), float("inf"), "NaN", "ten", "", "1e999999999", object(), b"1"]
)
def test_what_is_no_amount_is_refused_before_anything_is_sent(amount: object) -> None:
    for write in (values.usd, values.usd_text):
        with pytest.raises(InvalidArgument, match="no amount"):
            write(amount)  # type: ignore[arg-type]


def test_what_is_not_given_differs_from_none() -> None:
    assert values.given(a=UNSET, b=None, c=1) == {"b": None, "c": 1}
    assert values.some(a=UNSET, b=None, c=0) == {"c": 0}
    assert (values.usd(None), values.usd_text(UNSET), values.moment(UNSET)) == (None, UNSET, UNSET)
    assert repr(UNSET) == "UNSET"


def test_a_moment_is_sent_in_utc_and_needs_a_time_zone() -> None:
    at = datetime(2027, 1, 2, 3, 4, 5, 600, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert values.moment(at) == "2027-01-01T21:34:05.000600Z"
    assert values.moment(datetime(2027, 1, 2, tzinfo=UTC)) == "2027-01-02T00:00:00Z"
    with pytest.raises(InvalidArgument, match="time zone"):
        values.moment(datetime(2027, 1, 2))  # noqa: DTZ001 - that is the point


@pytest.mark.parametrize("part", ["..", ".", ""])
def test_no_id_leaves_its_place_in_the_address(part: str) -> None:
    with pytest.raises(InvalidArgument):
        values.path("/v1/account/keys", part)


def test_ids_are_escaped() -> None:
    assert values.path("/v1/models", "a/b?c#d%/..") == "/v1/models/a%2Fb%3Fc%23d%25%2F.."


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | USD,
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_json_comes_back_as_it_went(value: object) -> None:
    assert values.decode(values.encode(value)) == value
    json.loads(values.encode(value))


@pytest.mark.parametrize("value", [float("nan"), {"a": object()}, Decimal("Infinity"), b"x"])
def test_what_json_cannot_say_is_refused(value: object) -> None:
    with pytest.raises(InvalidArgument):
        values.encode(value)


@pytest.mark.parametrize("body", [b"NaN", b"[Infinity]", b"{", b"\xff", b"[" * 100_000, b""])
def test_what_is_no_json_is_no_value(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        values.decode(body)


def test_a_secret_is_text_that_does_not_show_itself() -> None:
    secret = Secret(SECRET)
    assert secret == SECRET
    assert f"{secret}" == SECRET
    assert json.loads(json.dumps({"key": secret})) == {"key": SECRET}
    assert repr(secret) == "'bsk_…Ab3Ab3'"
    assert SECRET not in repr([secret]) + repr({"key": secret})
    assert repr(Secret("something else")) == "'…'"
    assert values.redact(f"of {SECRET}, {SECRET}") == "of bsk_…Ab3Ab3, bsk_…Ab3Ab3"
