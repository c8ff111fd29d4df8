"""What is agreed with an account is a short list of plain values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core.errors import Invalid
from bursar.core.tenants.terms import (
    MOST_FEATURES,
    Feature,
    clean_currency,
    decode_features,
    encode_features,
    merge_features,
)

NAMES = st.from_regex(r"\A[a-z][a-z0-9_]{0,63}\Z")
VALUES: st.SearchStrategy[Feature] = st.one_of(
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=255),
)


@given(st.dictionaries(NAMES, VALUES, max_size=MOST_FEATURES))
def test_features_are_stored_and_read_as_they_were_given(features: dict[str, Feature]) -> None:
    found = decode_features(encode_features(merge_features({}, features)))
    assert found == features
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in features.items()
    }


def test_named_features_are_set_or_taken_away_and_others_stay() -> None:
    before: dict[str, Feature] = {"hippo_enabled": True, "max_users": 5}
    given = {"max_users": None, "lexa_enabled": False, "unknown": None}
    assert merge_features(before, given) == {"hippo_enabled": True, "lexa_enabled": False}
    assert before == {"hippo_enabled": True, "max_users": 5}


@pytest.mark.parametrize(
    "given",
    [
        {"": True},
        {"Max": 1},
        {"a-b": 1},
        {"\uff41": 1},
        {"a" * 65: 1},
        {"a": 1.5},
        {"a": 2**53},
        {"a": [1]},
        {"a": {}},
        {"a": "x" * 256},
        {"a": "line\nbreak"},
        {f"a{number}": True for number in range(MOST_FEATURES + 1)},
    ],
)
def test_anything_else_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(Invalid) as refusal:
        merge_features({}, given)
    assert (refusal.value.code, refusal.value.param) == ("invalid_value", "features")


def test_a_currency_is_three_capitals() -> None:
    assert clean_currency("EUR") == "EUR"
    for text in ("", "eur", "EURO", "E R", "\uff25UR", "EUR\n"):
        with pytest.raises(Invalid):
            clean_currency(text)
