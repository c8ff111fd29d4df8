"""Access tokens: JSON Web Tokens, signed with Ed25519.

Owns how one is written and what must hold before anything in it is believed. The algorithm is the
key's; a token that names another, or names anything but its algorithm, type and key in its header,
is none of ours. One token has one spelling. Must not know what the claims mean.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from bursar.core import strictjson
from bursar.core.errors import Unreadable

ALGORITHM: Final = "Ed25519"
TYPE: Final = "at+jwt"
_LONGEST: Final = 2_048
_FORM: Final = re.compile(r"([\w-]{1,512})\.([\w-]{1,1500})\.([\w-]{1,128})", re.ASCII)
_HEADER: Final = {"alg", "typ", "kid"}
_KEY_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_RAW: Final = serialization.Encoding.Raw


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 pair as its raw 32 bytes each."""

    public: bytes
    private: bytes = field(repr=False)


def make_pair() -> KeyPair:
    """Return a new pair of keys."""
    private = Ed25519PrivateKey.generate()
    return KeyPair(
        public=private.public_key().public_bytes(_RAW, serialization.PublicFormat.Raw),
        private=private.private_bytes(
            _RAW, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        ),
    )


def looks_like_one(credential: bytes) -> bool:
    """Whether a credential may be an access token, by its form alone."""
    return len(credential) <= _LONGEST and credential[:2] == b"ey" and credential.count(b".") == 2


def sign(claims: dict[str, object], *, key_id: str, pair: KeyPair) -> str:
    """Return a token with these claims."""
    header = {"alg": ALGORITHM, "typ": TYPE, "kid": key_id}
    key = _key(pair.public, pair.private)
    payload = json.dumps(claims, separators=(",", ":")).encode()
    return jws.serialize_compact(header, payload, key, algorithms=[ALGORITHM])


def find_key_id(token: bytes) -> str | None:
    """Return the id of the key that a token says it is signed with; None for what is no token."""
    parts = _split(token)
    if parts is None:
        return None
    header = _read(_decode(parts[0]))
    if header is None or header.keys() != _HEADER:
        return None
    key_id = header["kid"]
    is_ours = header["alg"] == ALGORITHM and header["typ"] == TYPE
    return key_id if is_ours and isinstance(key_id, str) and _KEY_ID.fullmatch(key_id) else None


def verify(token: bytes, *, public_key: bytes) -> dict[str, object] | None:
    """Return the claims of a token of one of our keys; None unless its signature holds."""
    if find_key_id(token) is None:
        return None
    try:
        found = jws.deserialize_compact(
            token.decode("ascii"), _key(public_key), algorithms=[ALGORITHM]
        )
    except (JoseError, ValueError):
        return None
    return _read(found.payload)


def _key(public: bytes, private: bytes | None = None) -> OKPKey:
    parts: dict[str, str | list[str]] = {"kty": "OKP", "crv": ALGORITHM, "x": _encode(public)}
    if private is not None:
        parts["d"] = _encode(private)
    return OKPKey.import_key(parts)


def _split(token: bytes) -> tuple[str, ...] | None:
    if not looks_like_one(token):
        return None
    found = _FORM.fullmatch(token.decode("latin-1"))
    if found is None or any(_encode(_decode(part)) != part for part in found.groups()):
        return None
    return found.groups()


def _read(document: bytes) -> dict[str, object] | None:
    try:
        found = strictjson.loads(document)
    except Unreadable:
        return None
    return found if isinstance(found, dict) else None


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
