"""ID tokens: what a sign-in service says of somebody, signed.

Owns what must hold before anything in one is believed (OpenID Connect Core 3.1.3.7): the signature
by one of the issuer's own keys, with an algorithm for public keys that suits the key, and issuer,
audience, times and nonce. No key, address or certificate in a token is looked at. Must not know how
a token is fetched.
"""

import base64
import binascii
import hmac
import warnings
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from joserfc import jwk, jws
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey

from bursar.core import strictjson
from bursar.core.errors import Unreadable

LONGEST: Final = 32_768
_SKEW_S: Final = 60
_OLDEST_S: Final = 600
_LEAST_RSA_BITS: Final = 2_048
_MOST_RSA_BITS: Final = 8_192
# By the kind of key: none is for a shared secret.
_ALGORITHMS: Final[Mapping[str, tuple[str, ...]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA", "Ed25519"),
}
# They would have us look for a key elsewhere, or read the token in another way.
_REFUSED_HEADERS: Final = {"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"}

PublicKey = RSAKey | ECKey | OKPKey


class NotBelieved(Exception):
    """The token does not hold; the text says why, for the log."""


def read_keys(document: Mapping[str, Any]) -> dict[str, list[PublicKey]]:
    """Return the keys of an issuer that sign, by their ids ("" where one has none).

    Kinds that nobody here knows are left out.
    """
    found: dict[str, list[PublicKey]] = {}
    listed = document.get("keys")
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict) or each.get("kty") not in _ALGORITHMS:
            continue
        if each.get("use", "sig") != "sig" or not _is_strong(each):
            continue
        try:
            key = jwk.import_key(each)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, PublicKey):
            found.setdefault(str(each.get("kid", "")), []).append(key)
    return found


def find_key_id(token: str) -> str:
    """Return which key a token says it is signed with; "" where it says nothing.

    Raises NotBelieved for what is no token, or has a header that no ID token needs.
    """
    parts = token.split(".")
    if len(token) > LONGEST or not token.isascii() or len(parts) != 3:
        raise NotBelieved("it is no signed token")
    header = _read(_decode(parts[0]))
    if _REFUSED_HEADERS & header.keys():
        raise NotBelieved("its header brings its own key, or says more than a header should")
    key_id = header.get("kid", "")
    if not isinstance(key_id, str):
        raise NotBelieved("the id of its key is no text")
    return key_id


def verify(
    token: str,
    *,
    keys: Sequence[PublicKey],
    issuer: str,
    client_id: str,
    nonce: str,
    now_s: float,
) -> dict[str, Any]:
    """Return the claims of a token; raises NotBelieved."""
    find_key_id(token)
    claims = _check_signature(token, keys)
    if claims.get("iss") != issuer:
        raise NotBelieved("it is of another issuer")
    _check_audience(claims, client_id)
    _check_times(claims, now_s)
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise NotBelieved("it answers another question")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= 255 or not subject.isprintable():
        raise NotBelieved("it is about nobody")
    return claims


def _check_signature(token: str, keys: Sequence[PublicKey]) -> dict[str, Any]:
    algorithm = _read(_decode(token.partition(".")[0])).get("alg")
    for key in keys:
        if algorithm not in _ALGORITHMS[key.key_type]:
            continue
        if key.as_dict(private=False).get("alg", algorithm) != algorithm:
            continue
        try:
            with warnings.catch_warnings():
                # The older name of Ed25519's algorithm is what services still write.
                warnings.simplefilter("ignore", SecurityWarning)
                found = jws.deserialize_compact(token, key, algorithms=[str(algorithm)])
        except (JoseError, ValueError, TypeError):
            continue
        return _read(found.payload)
    raise NotBelieved("no key of the issuer has signed it")


def _check_audience(claims: Mapping[str, Any], client_id: str) -> None:
    audience = claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    if client_id not in listed:
        raise NotBelieved("it is for somebody else")
    party = claims.get("azp")
    if party != client_id and (party is not None or len(listed) > 1):
        raise NotBelieved("it was asked for by somebody else")


def _check_times(claims: Mapping[str, Any], now_s: float) -> None:
    times = [claims.get("exp"), claims.get("iat"), claims.get("nbf", 0)]
    if not all(_is_time(each) for each in times):
        raise NotBelieved("its times are no times")
    expires, issued, begins = (float(each) for each in times if each is not None)
    if expires <= now_s - _SKEW_S or begins > now_s + _SKEW_S:
        raise NotBelieved("it is over, or not yet good")
    if not now_s - _OLDEST_S - _SKEW_S <= issued <= now_s + _SKEW_S:
        raise NotBelieved("it was not made just now")


def _is_time(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return False
    return 0 <= value < 2**53


def _is_strong(key: Mapping[str, Any]) -> bool:
    if key["kty"] != "RSA":
        return True
    try:
        modulus = int.from_bytes(_decode(str(key.get("n", ""))), "big")
    except NotBelieved:
        return False
    return _LEAST_RSA_BITS <= modulus.bit_length() <= _MOST_RSA_BITS


def _read(document: bytes) -> dict[str, Any]:
    try:
        found = strictjson.loads(document)
    except Unreadable as error:
        raise NotBelieved("it is not JSON") from error
    if not isinstance(found, dict):
        raise NotBelieved("it is no JSON object")
    return found


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise NotBelieved("it is not base64") from error
