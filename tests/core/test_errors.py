"""One class for each reaction that a caller can have; detail stays inside."""

import pytest

from bursar.core import errors

# Edges have kinds of their own beside these.
KINDS = [kind for kind in errors.BursarError.__subclasses__() if kind.__module__ == errors.__name__]


def test_the_tree_is_as_drawn_at_the_top_of_its_file() -> None:
    drawn = errors.__doc__ or ""
    for kind in KINDS:
        assert f"── {kind.__name__} " in drawn
    assert drawn.count("── ") == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_detail_is_kept_but_not_shown(kind: type[errors.BursarError]) -> None:
    error = kind("some_code", "A sentence.", param="name", detail="secret", extra={"left": 0})
    assert str(error) == "A sentence."
    assert "secret" not in repr(error)
    assert (error.code, error.message, error.param) == ("some_code", "A sentence.", "name")
    assert (error.detail, error.extra, error.retry_after_s) == ("secret", {"left": 0}, None)


def test_extras_are_not_shared_between_errors() -> None:
    assert errors.Invalid("a", "A.").extra == {}
    assert errors.Invalid("a", "A.").extra is not errors.Invalid("b", "B.").extra
