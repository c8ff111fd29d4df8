"""The price book answers with the price that was in force, under its exact name."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core.pricebook import PriceBook
from tests.core.pricing import MINI

OLD = replace(MINI, id=1, effective_ms=100)
NEW = replace(MINI, id=2, effective_ms=200)
LEXA = replace(MINI, id=3, model="", product="lexa", effective_ms=150)
BOOK = PriceBook([NEW, LEXA, OLD])


@pytest.mark.parametrize(
    ("at_ms", "found"),
    [(0, None), (99, None), (100, OLD), (199, OLD), (200, NEW), (10**15, NEW)],
)
def test_the_latest_price_that_has_taken_effect_counts(at_ms: int, found: object) -> None:
    assert BOOK.find("mini", at_ms=at_ms) is found


@pytest.mark.parametrize("name", ["", "Mini", "mini ", "mini\n", "min", "lexa", "*"])
def test_a_model_is_found_under_its_exact_name_only(name: str) -> None:
    assert BOOK.find(name, at_ms=10**15) is None


def test_a_product_has_prices_of_its_own() -> None:
    assert BOOK.find_product("lexa", at_ms=150) is LEXA
    assert BOOK.find_product("lexa", at_ms=149) is None
    assert BOOK.find_product("mini", at_ms=10**15) is None


def test_the_list_holds_what_is_in_force() -> None:
    assert BOOK.list(99) == ()
    assert BOOK.list(120) == (OLD,)
    assert BOOK.list(at_ms=300) == (NEW, LEXA)
    assert PriceBook().list(300) == ()


def test_of_two_prices_for_one_moment_the_later_row_counts() -> None:
    again = replace(NEW, id=9)
    assert PriceBook([again, NEW]).find("mini", at_ms=200) is again


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 60))
def test_finding_agrees_with_a_search_of_every_row(moments: list[int], at_ms: int) -> None:
    rows = [replace(MINI, id=number, effective_ms=at) for number, at in enumerate(moments)]
    due = [row for row in rows if row.effective_ms <= at_ms]
    expected = max(due, key=lambda row: (row.effective_ms, row.id), default=None)
    assert PriceBook(rows).find("mini", at_ms=at_ms) is expected
