"""Money is exact on the way in, plain on the way out, and rounded in one way."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core import money
from bursar.core.errors import InvariantViolated

MAX_PARSED = 9_223_372_036 * money.NANOS_PER_USD


@pytest.mark.parametrize(
    ("value", "nanos"),
    [
        ("0", 0),
        ("-0", 0),
        ("-0.00", 0),
        ("00.10", 100_000_000),
        ("125.50", 125_500_000_000),
        ("0.000000001", 1),
        ("-0.000000001", -1),
        ("1.0000000000000000000", 1_000_000_000),
        ("9223372036", MAX_PARSED),
        ("1." + "0" * 64, 1_000_000_000),
        ("0" * 9 + "1." + "0" * 64, 1_000_000_000),
        (Decimal("-0.0"), 0),
        (Decimal("0E+999999999"), 0),
        (Decimal("1E+2"), 100_000_000_000),
        (Decimal("1E-9"), 1),
        (5, 5_000_000_000),
        (-9_223_372_036, -MAX_PARSED),
    ],
)
def test_an_amount_is_read_exactly(value: Decimal | int | str, nanos: int) -> None:
    assert money.parse_usd(value) == nanos


@pytest.mark.parametrize(
    "value",
    [
        "",
        "-",
        ".5",
        "5.",
        "+1",
        " 12\n",
        "12\n",
        "1_000",
        "\uff11\uff12",
        "1e3",
        "NaN",
        "Infinity",
        "0x10",
        "1,5",
        "12345678901",
        "9223372036.000000001",
        "-9223372037",
        "9" * 5000,
        "0." + "0" * 5000,
        "0." + "0" * 127,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
        Decimal("1E+400"),
        Decimal("1E+999999999"),
        Decimal("9" * 5000),
        9_223_372_037,
        2**63,
        pytest.param(10**5000, id="10**5000"),
        True,
        False,
        None,
        1.5,
        [],
        {},
        b"1",
    ],
)
def test_what_is_not_money_is_refused(value: object) -> None:
    with pytest.raises(money.InvalidAmount) as refusal:
        money.parse_usd(value)  # type: ignore[arg-type]
    assert refusal.value.code == "invalid_amount"


@pytest.mark.parametrize(
    "value",
    [
        "0.0000000001",
        "1." + "0" * 65,
        "1.0000000000000000001",
        Decimal("1E-10"),
        Decimal("1E-999999999"),
        Decimal("0." + "3" * 5000),
    ],
)
def test_less_than_a_nano_is_refused_and_never_rounded(value: Decimal | str) -> None:
    with pytest.raises(money.InvalidAmount) as refusal:
        money.parse_usd(value)
    assert refusal.value.code == "too_precise"


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (123, "0.000000123"),
        (-1_000_000_000, "-1.00"),
        (-1, "-0.000000001"),
        (125_500_000_000, "125.50"),
        (1_230_000_000, "1.23"),
        (1_234_000_000, "1.234"),
        (money.MAX_NANOS, "9223372036.854775807"),
    ],
)
def test_an_amount_is_written_as_a_plain_decimal(nanos: int, text: str) -> None:
    assert money.format_usd(nanos) == text


@given(st.integers(-MAX_PARSED, MAX_PARSED))
def test_what_is_written_reads_back_the_same(nanos: int) -> None:
    text = money.format_usd(nanos)
    assert money.parse_usd(text) == nanos
    assert money.parse_usd(Decimal(text)) == nanos


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_any_decimal_is_read_exactly_or_refused(value: Decimal) -> None:
    try:
        nanos = money.parse_usd(value)
    except money.InvalidAmount:
        return
    assert Fraction(nanos, money.NANOS_PER_USD) == Fraction(value)


@given(st.integers(0, 10**40), st.integers(1, 10**20))
def test_rounding_is_to_the_nearest_and_half_goes_up(numerator: int, denominator: int) -> None:
    rounded = money.round_half_up(numerator, denominator)
    distance = Fraction(rounded) - Fraction(numerator, denominator)
    assert Fraction(-1, 2) < distance <= Fraction(1, 2)


@pytest.mark.parametrize(("numerator", "denominator"), [(-1, 2), (1, 0), (1, -1)])
def test_rounding_refuses_what_money_never_is(numerator: int, denominator: int) -> None:
    with pytest.raises(InvariantViolated):
        money.round_half_up(numerator, denominator)
