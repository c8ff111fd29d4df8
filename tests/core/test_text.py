"""A name shows something, fits its column, and cannot disturb the text around it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core import text
from bursar.core.errors import Invalid


@pytest.mark.parametrize(
    "name",
    [
        "Production",
        "a",
        "x" * 255,
        "Ключ для работы",
        "生产密钥",
        "مفتاح",
        "Zoë — test",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "e" + "\u0301" * 200,
        "\U0001f600" * 255,
        "<script>alert(1)</script>",
        "{{7*7}}",
        "=cmd()",
        "${jndi:ldap://x}",
        "'; DROP TABLE keys--",
        "100% _ \\",
        "NULL",
        "a\u200fb",
    ],
)
def test_a_name_is_kept_as_it_was_given(name: str) -> None:
    assert text.clean_name(name) == name


@pytest.mark.parametrize("name", ["  key ", "\u3000key\u00a0"])
def test_spaces_around_a_name_are_no_part_of_it(name: str) -> None:
    assert text.clean_name(name) == "key"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "\u00a0\u3000",
        "\u200b",
        "\u200b \u200d\ufeff",
        "\u3164",
        "\u2800\u2800",
        "\ufe00\ufe0f",
        "\U000e0100\U000e01ef",
        "\u115f\u1160",
        "\u00ad",
    ],
)
def test_a_name_that_shows_nothing_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        text.clean_name(name)
    assert (refusal.value.code, refusal.value.param) == ("invalid_name", "name")


@pytest.mark.parametrize("name", ["x" * 256, "\U0001f600" * 256, " " * 256, "\0" * 4_000_000])
def test_a_name_that_is_too_long_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refusal:
        text.clean_name(name)
    assert refusal.value.code == "name_too_long"


def test_the_length_counts_code_points() -> None:
    assert text.clean_name("éé", max_len=2) == "éé"
    with pytest.raises(Invalid) as refusal:
        text.clean_name("ééé", max_len=2, param="label")
    assert refusal.value.param == "label"


@pytest.mark.parametrize(
    "character",
    [
        *("\0", "\x07", "\t", "\n", "\r", "\x1b", "\x7f", "\x85", "\x9b"),
        *("\u2028", "\u2029"),
        *("\u202a", "\u202b", "\u202c", "\u202d", "\u202e"),
        *("\u2066", "\u2067", "\u2068", "\u2069"),
        *("\ud800", "\udfff"),
        *("\ue000", "\U000f0000", "\U0010fffd"),
        *("\ufffe", "\U0001fffe", "\u0378"),
    ],
)
@pytest.mark.parametrize("around", ["a{}b", "{}ab", "ab{}", "é{}", "{}"])
def test_a_character_that_disturbs_is_refused(around: str, character: str) -> None:
    with pytest.raises(Invalid) as refusal:
        text.clean_name(around.format(character))
    assert refusal.value.code == "invalid_characters"


@given(st.text(max_size=300))
def test_a_clean_name_stays_clean_and_can_be_written(value: str) -> None:
    try:
        name = text.clean_name(value)
    except Invalid:
        return
    assert text.clean_name(name) == name
    assert 0 < len(name) <= 255
    assert len(name.encode()) <= 4 * 255
    assert not set(name) & set("\0\r\n\u202e")
