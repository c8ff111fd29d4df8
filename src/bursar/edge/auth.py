"""Credentials of the control API: the key in a request's headers, and never one in its address.

Must not know which kinds of keys there are or what they may do.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from bursar.core import secrets
from bursar.core.errors import Unauthenticated

# Addresses end up in logs and histories: a key in one is refused even if it is a good one.
_IN_QUERY: Final = frozenset(
    {"access_token", "api-key", "api_key", "apikey", "authorization", "key", "token", "x-api-key"}
)


def find_secret(
    headers: Sequence[tuple[bytes, bytes]], *, query_names: Iterable[str]
) -> bytes | None:
    """Return the key that a request presents, unchecked; None when there is none.

    Raises Unreadable (`ambiguous_credentials`) for two headers of a kind, or two that differ: each
    reader would choose another. Raises Unauthenticated (`key_in_query`) for a key in the address.
    """
    found = secrets.presented(headers)
    if any(name.lower() in _IN_QUERY for name in query_names):
        message = "An API key is not accepted in the address. Send it in a header."
        raise Unauthenticated("key_in_query", message)
    return found
