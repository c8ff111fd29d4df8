"""Credentials: the one place that takes an API key out of a request.

Owns where a key may stand (Authorization: Bearer, or x-api-key) and what is refused before anybody
looks it up. Must not know which kinds of keys there are or what they may do.
"""

from collections.abc import Iterable
from typing import Final

from bursar.core.errors import Unauthenticated, Unreadable

_SCHEME: Final = b"Bearer "
# Addresses end up in logs and histories: a key in one is refused even if it is a good one.
_IN_QUERY: Final = frozenset(
    {"access_token", "api-key", "api_key", "apikey", "authorization", "key", "token", "x-api-key"}
)


def find_secret(
    headers: Iterable[tuple[bytes, bytes]], *, query_names: Iterable[str]
) -> bytes | None:
    """Return the key that a request presents, unchecked; None when there is none.

    Raises Unreadable (`ambiguous_credentials`) for two headers of a kind, or two that differ: each
    reader would choose another. Raises Unauthenticated (`key_in_query`) for a key in the address.
    """
    authorizations, api_keys = [], []
    for name, value in headers:
        if name == b"authorization":
            authorizations.append(value)
        elif name == b"x-api-key":
            api_keys.append(value)
    if len(authorizations) > 1 or len(api_keys) > 1:
        raise _ambiguous()
    found = [_bearer(value) for value in authorizations] + api_keys
    if len(set(found)) > 1:
        raise _ambiguous()
    if any(name.lower() in _IN_QUERY for name in query_names):
        message = "An API key is not accepted in the address. Send it in a header."
        raise Unauthenticated("key_in_query", message)
    return found[0] if found else None


def _bearer(value: bytes) -> bytes:
    # Another scheme, or none, is what a malformed key is: nothing that could be looked up.
    return value[len(_SCHEME) :] if value.startswith(_SCHEME) else b""


def _ambiguous() -> Unreadable:
    return Unreadable("ambiguous_credentials", "Send exactly one API key.")
