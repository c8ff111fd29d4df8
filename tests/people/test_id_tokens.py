"""ID tokens: believed only whole, of this moment, for us, and signed with the issuer's own key."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from bursar.adapters.oidc import id_tokens
from bursar.adapters.oidc.id_tokens import NotBelieved
from tests.people.services import new_key, sign

ISSUER, CLIENT, NONCE = "https://login.acme.example", "bursar", "the nonce"
NOW_S = 1_800_000_000
KEY = new_key("first")
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": CLIENT,
    "sub": "ann-1",
    "iat": NOW_S,
    "exp": NOW_S + 300,
    "nonce": NONCE,
}


def read(token: str, *keys: Any) -> dict[str, Any]:
    """What is believed of a token."""
    published = {"keys": [key.as_dict(private=False) for key in (keys or (KEY,))]}
    found = id_tokens.read_keys(published)
    return id_tokens.verify(
        token,
        keys=[key for same in found.values() for key in same],
        issuer=ISSUER,
        client_id=CLIENT,
        nonce=NONCE,
        now_s=NOW_S,
    )


def encode(value: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def unsigned(header: dict[str, Any], claims: dict[str, Any] | None = None) -> str:
    """A token without a signature worth the name."""
    parts = [json.dumps(header).encode(), json.dumps(claims or GOOD).encode()]
    return ".".join([*map(encode, parts), encode(b"signature")])


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES384", "Ed25519", "EdDSA"])
def test_a_good_token_is_believed_whatever_kind_of_public_key_signed_it(algorithm: str) -> None:
    key: Any
    if algorithm[:2] in {"RS", "PS"}:
        key = RSAKey.generate_key(2_048)
    elif algorithm.startswith("ES"):
        key = ECKey.generate_key(f"P-{algorithm[2:]}")
    else:
        key = OKPKey.generate_key("Ed25519")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        token = jws.serialize_compact(
            {"alg": algorithm}, json.dumps(GOOD).encode(), key, algorithms=[algorithm]
        )
    assert read(token, key)["sub"] == "ann-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://login.acme.example/"},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "other"},
        {"aud": []},
        {"aud": None},
        {"aud": {"bursar": 1}},
        {"aud": [CLIENT, "other"]},
        {"aud": [CLIENT, "other"], "azp": "other"},
        {"azp": "other"},
        {"exp": NOW_S - 60},
        {"exp": None},
        {"exp": str(NOW_S + 300)},
        {"exp": True},
        {"exp": 1e300},
        {"exp": -1},
        {"iat": NOW_S + 61},
        {"iat": NOW_S - 661},
        {"iat": None},
        {"nbf": NOW_S + 61},
        {"nbf": "soon"},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": [NONCE]},
        {"sub": ""},
        {"sub": None},
        {"sub": 7},
        {"sub": "a" * 256},
        {"sub": "a\nb"},
    ],
    ids=str,
)
def test_a_token_with_a_claim_that_does_not_fit_is_not_believed(changes: dict[str, Any]) -> None:
    claims = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(NotBelieved):
        read(sign(claims, KEY))


def test_what_still_fits_is_believed() -> None:
    for changes in (
        {"aud": [CLIENT]},
        {"aud": [CLIENT, "other"], "azp": CLIENT},
        {"exp": NOW_S - 59},
        {"iat": NOW_S + 60, "nbf": NOW_S + 60},
        {"iat": NOW_S - 660},
        {"exp": NOW_S + 0.5},
    ):
        assert read(sign({**GOOD, **changes}, KEY))["sub"] == "ann-1"


def _hmac_with(secret: bytes) -> str:
    signed = f"{encode(json.dumps({'alg': 'HS256'}).encode())}.{encode(json.dumps(GOOD).encode())}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def test_no_token_is_believed_that_any_holder_of_public_things_can_make() -> None:
    key = RSAKey.generate_key(2_048)
    for token in (
        unsigned({"alg": "none"}),
        unsigned({"alg": "nOnE"}),
        unsigned({"alg": ""}),
        unsigned({}),
        unsigned({"alg": "RS256"}),
        unsigned({"alg": ["RS256"]}),
        _hmac_with(key.as_pem(private=False)),
        _hmac_with(json.dumps(KEY.as_dict(private=False)).encode()),
        _hmac_with(b""),
        sign(GOOD, new_key("first")),
    ):
        with pytest.raises(NotBelieved):
            read(token, key, KEY)


@pytest.mark.parametrize("name", ["jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "enc"])
def test_a_header_that_brings_its_own_key_or_rules_is_refused(name: str) -> None:
    forged = new_key("first")
    value = {"jwk": forged.as_dict(private=False), "crit": ["b64"], "b64": False}
    header = {"alg": "ES256", "kid": "first", name: value.get(name, "https://evil.example")}
    signed = jws.serialize_compact(
        {"alg": "ES256"}, json.dumps(GOOD).encode(), KEY, algorithms=["ES256"]
    )
    token = f"{encode(json.dumps(header).encode())}.{signed.partition('.')[2]}"
    with pytest.raises(NotBelieved, match="header"):
        read(token)


def test_keys_that_do_not_sign_or_are_too_weak_are_not_the_issuers_keys() -> None:
    weak = {"kty": "RSA", "e": "AQAB", "n": encode(b"\xc1" + b"\x01" * 127)}
    other = [
        {"kty": "oct", "k": encode(b"secret")},
        {"kty": "new", "x": "y"},
        {"kty": "EC", "crv": "P-256", "x": "?", "y": "?"},
        {"kty": "EC"},
        {**KEY.as_dict(private=False), "use": "enc"},
        weak,
        "EC",
        None,
    ]
    assert id_tokens.read_keys({"keys": other}) == {}
    for nothing in ({}, {"keys": None}, {"keys": {"kty": "EC"}}):
        assert id_tokens.read_keys(nothing) == {}
    found = id_tokens.read_keys({"keys": [*other, KEY.as_dict(private=False)]})
    assert set(found) == {"first"}


def test_a_key_counts_for_its_own_algorithm_alone() -> None:
    key = RSAKey.generate_key(2_048, {"alg": "RS512"})
    payload = json.dumps(GOOD).encode()
    good = jws.serialize_compact({"alg": "RS512"}, payload, key, algorithms=["RS512"])
    assert read(good, key)["sub"] == "ann-1"
    public = RSAKey.import_key(
        {name: value for name, value in key.as_dict(private=True).items() if name != "alg"}
    )
    other = jws.serialize_compact({"alg": "PS256"}, payload, public, algorithms=["PS256"])
    with pytest.raises(NotBelieved):
        read(other, key)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token + ".",
        lambda token: token.replace(".", "..", 1),
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token.rpartition(".")[0],
        lambda token: f" {token}",
        lambda token: f"{token}\n",
        lambda token: "",
        lambda token: "a.b.c",
        lambda token: "é.é.é",
        lambda token: token + "A" * 40_000,
        lambda token: "[" * 30_000 + ".a.b",
        lambda token: encode(b"[" * 9_000) + ".a.b",
    ],
)
def test_what_is_not_whole_is_not_believed(change: Callable[[str], str]) -> None:
    with pytest.raises(NotBelieved):
        read(change(sign(GOOD, KEY)))


@given(st.data())
def test_no_token_is_believed_in_which_anything_was_changed(data: st.DataObject) -> None:
    token = sign(GOOD, KEY)
    at = data.draw(st.integers(0, len(token) - 2))
    other = data.draw(st.sampled_from("Az09_-.="))
    changed = token[:at] + other + token[at + 1 :]
    if changed != token:
        with pytest.raises(NotBelieved):
            read(changed)


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    with pytest.raises(NotBelieved):
        read(text)
