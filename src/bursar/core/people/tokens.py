"""Tokens that people carry: of sessions, in links, and recovery codes.

Owns their form and their digests. A refresh token has two halves: the family's, which never
changes, and the turn's, which changes at each use. So one that was used before is known as one of
its family, without a list of all that ever were. All of it is random, 128 bits at least, so a fast
hash is right. Must not know who has which token, nor where randomness comes from.
"""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from bursar.core.secrets import LINK_PREFIX, REFRESH_PREFIX

HALF_BYTES: Final = 16
LINK_BYTES: Final = 16
CODE_BYTES: Final = 15
CODES: Final = 10
_REFRESH: Final = re.compile(rf"{REFRESH_PREFIX}([0-9a-f]{{32}})([0-9a-f]{{32}})", re.ASCII)
_LINK: Final = re.compile(rf"{LINK_PREFIX}[0-9a-f]{{32}}", re.ASCII)
_RECOVERY: Final = re.compile(r"[a-z2-7]{24}", re.ASCII)
_GROUP: Final = 6


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token: its family's half and its turn's."""

    family: bytes = field(repr=False)
    turn: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The token as it is handed out."""
        return f"{REFRESH_PREFIX}{self.family.hex()}{self.turn.hex()}"

    @property
    def family_hash(self) -> bytes:
        """What its family is stored under."""
        return digest(b"family" + self.family)

    @property
    def turn_hash(self) -> bytes:
        """What tells it from the others of its family."""
        return digest(b"turn" + self.family + self.turn)

    @property
    def seal(self) -> bytes:
        """What all access tokens of the family carry, to open what was sealed for their bearer."""
        return digest(b"seal" + self.family)[:HALF_BYTES]

    def next(self, turn: bytes) -> "RefreshToken":
        """The family's token after this one."""
        return RefreshToken(self.family, turn)


def parse_refresh(text: str) -> RefreshToken | None:
    """Return a refresh token, None for anything else."""
    found = _REFRESH.fullmatch(text)
    return None if found is None else RefreshToken(*map(bytes.fromhex, found.groups()))


def make_link(random_bytes: bytes) -> str:
    """Return the token of a link that is sent by mail."""
    return f"{LINK_PREFIX}{random_bytes.hex()}"


def link_digest(text: str) -> bytes | None:
    """Return what a link's token is stored under, None for what cannot be one."""
    return digest(text.encode()) if _LINK.fullmatch(text) else None


def make_recovery_code(random_bytes: bytes) -> str:
    """Return a recovery code: 24 letters and digits in groups of six."""
    code = base64.b32encode(random_bytes).decode().lower()
    return "-".join(code[start : start + _GROUP] for start in range(0, len(code), _GROUP))


def recovery_digest(text: str) -> bytes | None:
    """Return what a recovery code is stored under, None for what cannot be one.

    Groups, spaces and capital letters do not matter: people copy these from paper.
    """
    code = text.strip().lower().replace("-", "").replace(" ", "")
    return digest(b"recovery" + code.encode()) if _RECOVERY.fullmatch(code) else None


def digest(value: bytes) -> bytes:
    """Return the SHA-256 of something that nobody can guess."""
    return hashlib.sha256(value).digest()
