"""Roles form a ladder, addresses have one spelling, and passwords have no rules but good ones."""

from __future__ import annotations

from importlib import resources
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.adapters import passwords as adapter
from bursar.core.errors import Invalid
from bursar.core.people import emails, passwords, roles, tokens
from bursar.core.people.roles import ACTIONS, Action, Role

COMMON = adapter.list_common()
LETTERS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), max_size=200)


# ── Roles ───────────────────────────────────────────────────────────────────────────────────────


def test_each_role_may_all_that_the_next_lower_one_may_and_more() -> None:
    for higher, lower in pairwise(Role):
        assert ACTIONS[lower] < ACTIONS[higher]
    assert ACTIONS[Role.OWNER] == set(Action)


def test_only_owners_make_owners_and_nobody_below_an_admin_gives_anything() -> None:
    gives = {own: {given for given in Role if roles.may_give(own, given)} for own in Role}
    assert gives == {
        Role.OWNER: set(Role),
        Role.ADMIN: set(Role) - {Role.OWNER},
        Role.MEMBER: set(),
        Role.VIEWER: set(),
    }


# ── Addresses ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "spelling"),
    [
        ("Ann@Example.COM", "ann@example.com"),
        ("\uff41dmin@x.test", "admin@x.test"),
        ("a+tag@x.test", "a+tag@x.test"),
        ("a@b", "a@b"),
        ("admin@localhost", "admin@localhost"),
        ("\u212aelvin@x.test", "kelvin@x.test"),
        ("x" * 64 + "@" + "d." * 90 + "test", "x" * 64 + "@" + "d." * 90 + "test"),
    ],
)
def test_an_address_has_one_spelling(given: str, spelling: str) -> None:
    assert emails.clean_email(given) == spelling
    assert emails.clean_email(spelling) == spelling


@pytest.mark.parametrize(
    "given",
    [
        *("", "@", "a@", "@b", "a", "a@b@c", "a b@c", " a@b", "a@b ", "a@b.", "a@.b", "a@b..c"),
        *(".a@b", "a.@b", "a..b@c", '"a b"@c', "a@-b", "a@b-", "a@[127.0.0.1]", "a@b\r\nBcc: c@d"),
        *("a@b\n", "a\x00@b", "İ@x.test", "\u0430dmin@x.test", "a@\u0435xample.test", "a,b@c"),
        *("x" * 65 + "@y.test", "a@" + "x" * 64, "x" * 250 + "@y.test", "<a@b>", "a@b;c@d"),
    ],
)
def test_what_is_no_address_or_looks_like_another_is_refused(given: str) -> None:
    with pytest.raises(Invalid) as refused:
        emails.clean_email(given)
    assert (refused.value.code, refused.value.param) == ("invalid_email", "email")


@given(st.text(max_size=300))
def test_no_text_has_two_spellings(text: str) -> None:
    found = emails.find_email(text)
    if found is not None:
        assert emails.find_email(found) == found
        assert emails.find_email(found.upper()) == found
        assert found.isascii()


# ── Passwords ───────────────────────────────────────────────────────────────────────────────────


def check(password: str) -> str:
    return passwords.check_new(password, email="ann.lee@acme.test", name="Ann Lee", common=COMMON)


@pytest.mark.parametrize(
    "password",
    [
        *("correct horse battery staple", " leading and trailing ", "kaffeetasse im regen"),
        *(
            "\u1e9e" * 8,
            "passwort für später",
            "日本語のパスワード",
            "x" * 64,
            "y" * 128,
            "zq8#kw1!",
        ),
        *("🐎🔋🐎🔋🐎🔋🐎🔋", "aaaabbbbccccddddeeee"),
    ],
)
def test_long_enough_and_not_everybodys_is_good(password: str) -> None:
    assert check(password) == passwords.normalise(password)


@pytest.mark.parametrize(
    "password",
    [
        *(
            "",
            "1234567",
            "x" * 129,
            "e\u0301" * 7,
            "password1",
            "PASSWORD1",
            "12345678",
            "iloveyou1",
        ),
        *("ann.lee@acme.test", "ANN.LEE@ACME.TEST", "acme.test", "Ann Lee ", "bursarbursar"),
        *("nul\x00 inside it", "tab\tinside it", " qwertyuiop "),
    ],
)
def test_too_short_too_long_common_or_ones_own_is_weak(password: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(password)
    assert refused.value.code == "weak_password"


def test_what_looks_the_same_is_the_same_password() -> None:
    assert check("cafe\u0301 au lait") == check("caf\u00e9 au lait")


@given(LETTERS)
def test_length_counts_code_points_and_nothing_is_cut_off(password: str) -> None:
    try:
        chosen = check(password)
    except Invalid:
        return
    assert chosen == passwords.normalise(password)
    assert 8 <= len(chosen) <= 128


def test_the_list_has_more_than_the_three_thousand_that_are_asked_for() -> None:
    assert len(COMMON) > 3_000
    assert all(len(each) >= passwords.SHORTEST for each in COMMON)
    assert all(each == each.lower() for each in COMMON)


@pytest.mark.parametrize(
    "password",
    [
        *("987654321", "0987654321", "11111111", "88888888", "123123123", "12341234", "zzzzzzzz"),
        *("1212121212", "abcdefgh", "asdfghjkl", "poiuytrewq", "23456789", "0123456789"),
    ],
)
def test_what_needs_no_list_to_be_guessed_is_weak_too(password: str) -> None:
    with pytest.raises(Invalid):
        check(password)


def test_the_list_has_the_terms_under_which_it_is_ours_beside_it() -> None:
    terms = resources.files("bursar.adapters").joinpath("common_passwords.LICENSE.txt")
    assert "Permission is hereby granted" in terms.read_text("utf-8")


# ── Tokens ──────────────────────────────────────────────────────────────────────────────────────


def test_a_refresh_token_is_read_as_it_was_written_and_its_hashes_say_nothing_of_it() -> None:
    token = tokens.RefreshToken(b"f" * 16, b"t" * 16)
    assert tokens.parse_refresh(token.text) == token
    following = token.next(b"u" * 16)
    assert following.family_hash == token.family_hash
    assert following.turn_hash != token.turn_hash
    assert following.seal == token.seal
    assert token.text[4:] not in repr(token)


def test_recovery_codes_are_read_however_people_write_them() -> None:
    code = tokens.make_recovery_code(bytes(range(15)))
    assert len(code) == 27
    found = tokens.recovery_digest(code)
    assert found is not None
    for spelling in (code.upper(), code.replace("-", ""), f" {code.replace('-', ' ')} "):
        assert tokens.recovery_digest(spelling) == found
    for other in ("", "123456", code[:-1], code + "a", "0" + code[1:]):
        assert tokens.recovery_digest(other) is None
