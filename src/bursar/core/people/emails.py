"""E-mail addresses: the one spelling under which a person is known.

Owns what counts as the same address. Unicode's look-alikes of ASCII become ASCII, letters become
small, and what is left that is not ASCII is refused: two people must not have addresses that look
the same. Must not know whether an address can be reached.
"""

import re
import unicodedata
from typing import Final

from bursar.core.errors import Invalid

_MAX_LENGTH: Final = 254
_MAX_LOCAL: Final = 64
# Dots inside, none at the ends and no two in a row; no quotes, comments or routes.
_LOCAL: Final = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)


def clean_email(text: str, *, param: str = "email") -> str:
    """Return an address in its one spelling; raises Invalid (`invalid_email`)."""
    address = find_email(text)
    if address is None:
        raise Invalid("invalid_email", "An address looks like ann@example.com.", param=param)
    return address


def find_email(text: str) -> str | None:
    """Return an address in its one spelling, None for what is none."""
    if not 3 <= len(text) <= _MAX_LENGTH:
        return None
    address = unicodedata.normalize("NFKC", text).lower()
    local, _, domain = address.rpartition("@")
    is_good = (
        len(address) <= _MAX_LENGTH
        and len(local) <= _MAX_LOCAL
        and _LOCAL.fullmatch(local) is not None
        and _DOMAIN.fullmatch(domain) is not None
    )
    return address if is_good else None
