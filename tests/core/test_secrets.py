"""A secret carries its kind and its checksum; a malformed one is known without a look-up."""

import hashlib
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core import secrets
from bursar.core.errors import InvariantViolated, Unreadable

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
KINDS = st.sampled_from(secrets.KeyKind)
RANDOM_BYTES = st.binary(min_size=32, max_size=40)
MINTED = st.builds(lambda kind, raw: secrets.mint(kind, random_bytes=raw), KINDS, RANDOM_BYTES)


@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        ("inference", "bsk_0000000000000000000000000000001DxtS7"),
        ("provisioning", "bpk_0000000000000000000000000000000TRxuY"),
        ("operator", "bok_0000000000000000000000000000000nyI6u"),
    ],
)
def test_the_form_of_secrets_never_changes(kind: str, secret: str) -> None:
    assert secrets.mint(secrets.KeyKind(kind), random_bytes=bytes(32)) == secret
    assert secrets.parse(secret) == kind


@given(KINDS, RANDOM_BYTES)
def test_a_minted_secret_parses_as_its_kind(kind: secrets.KeyKind, raw: bytes) -> None:
    secret = secrets.mint(kind, random_bytes=raw)
    assert len(secret) == 40
    assert set(secret[4:]) <= set(BASE62)
    assert secrets.parse(secret) is kind
    assert secrets.parse(secret.encode()) is kind


@given(st.sets(st.binary(min_size=32, max_size=32), min_size=2, max_size=20))
def test_other_randomness_makes_other_secrets(many: set[bytes]) -> None:
    minted = {secrets.mint(secrets.KeyKind.INFERENCE, random_bytes=raw) for raw in many}
    assert len(minted) == len(many)


def test_a_secret_is_not_made_from_too_little_randomness() -> None:
    with pytest.raises(InvariantViolated):
        secrets.mint(secrets.KeyKind.INFERENCE, random_bytes=bytes(31))


def test_a_right_checksum_over_the_wrong_alphabet_is_malformed() -> None:
    for body in ("-" * 30, "_" * 30, "0" * 29 + " ", "0" * 29 + "\n"):
        number = zlib.crc32(f"bsk_{body}".encode())
        tail = "".join(BASE62[number // 62**place % 62] for place in range(5, -1, -1))
        assert secrets.parse(f"bsk_{body}{tail}") is None


@given(MINTED, st.integers(0, 39), st.characters(codec="utf-8"))
def test_a_wrong_character_is_noticed(secret: str, place: int, character: str) -> None:
    changed = secret[:place] + character + secret[place + 1 :]
    if changed != secret:
        assert secrets.parse(changed) is None
        assert secrets.parse(changed.encode()) is None


@given(MINTED, st.integers(0, 38))
def test_two_characters_the_wrong_way_round_are_noticed(secret: str, place: int) -> None:
    a, b = secret[place], secret[place + 1]
    if a != b:
        assert secrets.parse(secret[:place] + b + a + secret[place + 2 :]) is None


@pytest.mark.parametrize("junk", ["", "bsk_", "bsk_" + "0" * 36, "é" * 40, "\0" * 40, "x" * 10**6])
def test_junk_is_malformed(junk: str) -> None:
    assert secrets.parse(junk) is None
    assert secrets.parse(junk.encode()) is None


@given(MINTED)
def test_what_stands_around_a_secret_spoils_it(secret: str) -> None:
    for spoilt in (secret + "\n", " " + secret, secret + "A", secret[:-1], secret.upper()):
        assert secrets.parse(spoilt) is None


@given(st.binary(min_size=40, max_size=40) | st.text(min_size=40, max_size=40))
def test_parsing_never_fails(junk: str | bytes) -> None:
    assert secrets.parse(junk) is None


@given(MINTED)
def test_the_digest_is_sha256_of_either_form(secret: str) -> None:
    expected = hashlib.sha256(secret.encode()).digest()
    assert secrets.digest(secret) == secrets.digest(secret.encode()) == expected


def test_only_the_prefix_and_the_last_six_are_shown() -> None:
    secret = secrets.mint(secrets.KeyKind.OPERATOR, random_bytes=bytes(32))
    assert secrets.display(secret) == secrets.Display(prefix="bok_", last6=secret[-6:])


def test_nothing_is_shown_of_what_is_no_secret() -> None:
    with pytest.raises(InvariantViolated):
        secrets.display("password")


AUTHORIZATION, API_KEY = b"authorization", b"x-api-key"


@pytest.mark.parametrize(
    "headers",
    [
        [(AUTHORIZATION, b"Bearer s3")],
        [(API_KEY, b"s3")],
        [(b"host", b"x"), (AUTHORIZATION, b"Bearer s3"), (API_KEY, b"s3")],
    ],
)
def test_a_credential_is_read_from_either_header(headers: list[tuple[bytes, bytes]]) -> None:
    assert secrets.presented(headers) == b"s3"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"x"), (b"cookie", b"s3"), (b"proxy-authorization", b"Bearer s3")],
    ],
)
def test_no_credential_is_noticed(headers: list[tuple[bytes, bytes]]) -> None:
    assert secrets.presented(headers) is None


@pytest.mark.parametrize(
    "value",
    [
        b"Basic czM6",
        b"s3",
        b"",
        b"Digest s3",
        b"Bearers3",
        b"bearer s3",
        b"Bearer",
        b"Bearer ",
        b"Bearer  s3",
    ],
)
def test_another_scheme_is_a_credential_that_nobody_has(value: bytes) -> None:
    found = secrets.presented([(AUTHORIZATION, value)])
    assert found is not None
    assert secrets.parse(found) is None


@pytest.mark.parametrize(
    "headers",
    [
        [(AUTHORIZATION, b"Bearer s3"), (API_KEY, b"s4")],
        [(AUTHORIZATION, b"Basic s3"), (API_KEY, b"s3")],
        [(AUTHORIZATION, b"Bearer s3"), (AUTHORIZATION, b"Bearer s3")],
        [(AUTHORIZATION, b"Bearer s3"), (AUTHORIZATION, b"Bearer s4")],
        [(API_KEY, b"s3"), (API_KEY, b"s3")],
    ],
)
def test_which_of_two_credentials_counts_is_not_guessed(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(Unreadable) as refusal:
        secrets.presented(headers)
    assert refusal.value.code == "ambiguous_credentials"
