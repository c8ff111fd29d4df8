"""Passwords: which ones may be chosen.

Owns length and the comparison with what everybody tries first, after OWASP ASVS 5.0 (6.2.1 to
6.2.11): no rule about kinds of characters, no expiry, nothing cut off. Must not know hashes, nor
where the list of common passwords is kept.
"""

import unicodedata
from collections.abc import Collection
from typing import Final

from bursar.core.errors import Invalid

SHORTEST: Final = 8
LONGEST: Final = 128


def normalise(password: str) -> str:
    """Return the form that is hashed: what looks the same on two keyboards is the same."""
    return unicodedata.normalize("NFC", password)


def check_new(
    password: str, *, email: str, name: str, common: Collection[str], param: str = "password"
) -> str:
    """Return a new password's normal form; raises Invalid (`weak_password`) for `param`.

    It has 8 to 128 code points, no control characters, and is neither a common one nor the person's
    own name or address. Spaces anywhere, and all scripts, are welcome.
    """
    chosen = normalise(password)
    if not SHORTEST <= len(chosen) <= LONGEST:
        raise _weak(f"A password has {SHORTEST} to {LONGEST} characters.", param)
    if any(unicodedata.category(letter) in {"Cc", "Cs", "Cn"} for letter in chosen):
        raise _weak("A password has no control characters.", param)
    plain = chosen.strip().lower()
    if plain in common:
        raise _weak("This password is one of the first that others would try.", param)
    if plain in _own_words(email, name):
        raise _weak("A password must not be your own name or address.", param)
    return chosen


def _own_words(email: str, name: str) -> set[str]:
    local, _, domain = email.lower().partition("@")
    words = {email.lower(), local, domain, domain.partition(".")[0], name.strip().lower()}
    return {word for word in words if word} | {"bursar" * 2, "bursar123", "bursar1234"}


def _weak(message: str, param: str) -> Invalid:
    return Invalid("weak_password", message, param=param)
