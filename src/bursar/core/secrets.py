"""Secrets: how each that we hand out begins, and of API keys the form, checksum and digest.

A key is a four-character prefix, 30 base62 characters of randomness and 6 base62
characters of CRC32 over those 34, so a mistyped or cut secret is refused without a look-up
and scanners can match it. The checksum proves nothing about who made it.
Must not know which keys exist, nor where randomness comes from.
"""

import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bursar.core.errors import InvariantViolated, Unreadable

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX_LENGTH = 4
_BODY_LENGTH = 30
_TAIL_LENGTH = 6
_TAIL_START = _PREFIX_LENGTH + _BODY_LENGTH
_LENGTH = _TAIL_START + _TAIL_LENGTH
_MIN_RANDOM_BYTES = 32
_PLACES = tuple(62**place for place in range(_TAIL_LENGTH - 1, -1, -1))
# The value of each byte that may stand in a tail; other bytes never reach the table.
_VALUES = tuple(max(_ALPHABET.find(chr(byte)), 0) for byte in range(256))

_AUTHORIZATION = b"authorization"
_CREDENTIALS = frozenset((_AUTHORIZATION, b"x-api-key"))
_BEARER = b"Bearer "


class KeyKind(StrEnum):
    """What a key may reach: the gateway, the control API, or the whole installation."""

    INFERENCE = "inference"
    PROVISIONING = "provisioning"
    OPERATOR = "operator"


_PREFIXES = {KeyKind.INFERENCE: "bsk_", KeyKind.PROVISIONING: "bpk_", KeyKind.OPERATOR: "bok_"}
# How tokens begin: of sessions, in letters, and of sign-ins that other services are to finish.
REFRESH_PREFIX = "brt_"
LINK_PREFIX = "blt_"
FLOW_PREFIX = "bft_"
_FORMS = {
    **dict.fromkeys(_PREFIXES.values(), "[0-9A-Za-z]{36}"),
    REFRESH_PREFIX: "[0-9a-f]{64}",
    LINK_PREFIX: "[0-9a-f]{32}",
    FLOW_PREFIX: "[0-9a-f]{64}",
    # Access tokens are JWTs; whoever else's one is, it has no business where we blot.
    "eyJ": r"[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}",
}
_SECRET = re.compile("|".join(f"(?<={prefix}){form}" for prefix, form in _FORMS.items()), re.ASCII)
_KINDS = {prefix.encode(): kind for kind, prefix in _PREFIXES.items()}


@dataclass(frozen=True, slots=True)
class Display:
    """What may be kept and shown of a secret: "bsk_" and its last six characters."""

    prefix: str
    last6: str


def mint(kind: KeyKind, *, random_bytes: bytes) -> str:
    """Return a new secret of this kind from at least 32 bytes of randomness.

    The bytes are taken as one number modulo 62**30; with 256 bits the bias is below 2**-70.
    Raises InvariantViolated when there are fewer bytes.
    """
    if len(random_bytes) < _MIN_RANDOM_BYTES:
        raise InvariantViolated("invariant_violated", "A secret needs 32 random bytes.")
    number = int.from_bytes(random_bytes, "big") % 62**_BODY_LENGTH
    start = _PREFIXES[kind] + _base62(number, _BODY_LENGTH)
    return start + _base62(zlib.crc32(start.encode()), _TAIL_LENGTH)


def parse(text: str | bytes) -> KeyKind | None:
    """Return the kind of a well-formed secret, None for anything else.

    Checks length, alphabet and checksum only; whether the key exists is the keyring's matter.
    """
    if len(text) != _LENGTH:
        return None
    if isinstance(text, str):
        if not text.isascii():
            return None
        raw = text.encode()
    else:
        raw = text
    kind = _KINDS.get(raw[:_PREFIX_LENGTH])
    if kind is None or not raw[_PREFIX_LENGTH:].isalnum():
        return None
    a, b, c, d, e, f = raw[_TAIL_START:]
    p, q, r, s, t, _ = _PLACES
    v = _VALUES
    tail = v[a] * p + v[b] * q + v[c] * r + v[d] * s + v[e] * t + v[f]
    return kind if tail == zlib.crc32(raw[:_TAIL_START]) else None


def blot(text: str) -> str:
    """Return a text in which of our secrets, whatever kind, nothing but the beginning is left."""
    return _SECRET.sub("…", text)


def digest(secret: str | bytes) -> bytes:
    """Return the SHA-256 of a secret: the only form in which it is stored and looked up.

    A fast hash is right here: 178 bits of randomness cannot be searched for.
    """
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).digest()


def presented(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Return the credential in a request's headers (lower-case names): the one extractor.

    `Authorization: Bearer <secret>` or `x-api-key: <secret>`, to the letter; None when there is
    neither. Another scheme is a credential that nobody has. Raises Unreadable when a header came
    twice or the two differ: which of them counts must not be a matter of opinion.
    """
    named = dict(headers)
    if len(named) == len(headers) and b"x-api-key" not in named:
        # The usual case: one header of a kind, so there is nothing to be ambiguous about.
        value = named.get(_AUTHORIZATION)
        return None if value is None else _bearer(value)
    found: bytes | None = None
    names = b""
    for name, value in headers:
        if name in _CREDENTIALS:
            secret = _bearer(value) if name == _AUTHORIZATION else value
            if name in names or (found is not None and secret != found):
                raise Unreadable("ambiguous_credentials", "Send exactly one API key.")
            found = secret
            names += name
    return found


def display(secret: str) -> Display:
    """Return what may be shown of a secret; raises InvariantViolated if it is malformed."""
    if parse(secret) is None:
        raise InvariantViolated("invariant_violated", "A malformed secret is not displayed.")
    return Display(prefix=secret[:_PREFIX_LENGTH], last6=secret[-_TAIL_LENGTH:])


def _bearer(value: bytes) -> bytes:
    return value[len(_BEARER) :] if value.startswith(_BEARER) else b""


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
