"""One-time codes by the clock (TOTP, RFC 6238): six digits that change every thirty seconds.

Owns their parameters, which every authenticator app knows. Must not know whose secret it is, nor
which steps were used.
"""

import hmac
import re
from typing import Final

import pyotp

SECRET_BYTES: Final = 20
STEP_MS: Final = 30_000
_DIGITS: Final = re.compile(r"[0-9]{6}", re.ASCII)
_DRIFT: Final = (0, -1, 1)


def find_step(secret: str, code: str, *, now_ms: int) -> int | None:
    """Return the step of time that a code belongs to: this one, or one beside it; else None.

    Whatever the code is, all three are compared, each in constant time.
    """
    if _DIGITS.fullmatch(code) is None:
        return None
    maker = pyotp.HOTP(secret)
    steps = [now_ms // STEP_MS + drift for drift in _DRIFT]
    right = [step for step in steps if hmac.compare_digest(maker.at(step), code)]
    return right[0] if right else None


def address(secret: str, *, email: str, issuer: str) -> str:
    """Return what an authenticator app takes as a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=issuer)
