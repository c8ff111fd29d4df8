"""Whose a client's key is: an account's, an inference key's own, or an operator's.

Owns how that is found out: by what the server lets it see. Must not know how it is shown.
"""

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from bursar.sdk.client import Bursar
    from bursar.sdk.resources.account import AccountInfo
    from bursar.sdk.resources.api_keys import OwnApiKey

_WRONG_KIND: Final = "wrong_key_type"
T = TypeVar("T")


class Whose(NamedTuple):
    """The account that a key or a sign-in manages, or the inference key; an operator's has none."""

    account: "AccountInfo | None" = None
    key: "OwnApiKey | None" = None


def find(client: "Bursar") -> Whose:
    """Ask the server; raises what it says of a key that is not good."""
    account = _if_its_kind(client.account.get)
    if account is not None:
        return Whose(account=account)
    return Whose(key=_if_its_kind(client.api_keys.current))


def _if_its_kind(ask: "Callable[[], T]") -> "T | None":
    from bursar.sdk.errors import Unauthenticated

    try:
        return ask()
    except Unauthenticated as refused:
        # Which is said of good keys alone.
        if refused.code != _WRONG_KIND:
            raise
        return None
