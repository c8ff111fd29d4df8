"""What a limit may be: its scope, its resource and window, its model, its amounts.

Owns the rules that an account's limits and a plan's share. Must not know whose limit it is, nor
what is stored.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bursar.core import permissions
from bursar.core.allowances import Resource
from bursar.core.errors import Invalid
from bursar.core.money import MAX_NANOS
from bursar.core.windows import Window

ACCOUNT: Final = "account"
WALLET: Final = "wallet"
KINDS: Final = (ACCOUNT, "project", "user", "key")
_SHORT: Final = tuple(window for window in Window if window is not Window.LIFETIME)
# Calls at once are held and never used, so they know no windows.
WINDOWS: Final[Mapping[Resource, Sequence[Window]]] = {
    Resource.COST: tuple(Window),
    Resource.REQUESTS: _SHORT,
    Resource.TOKENS: _SHORT,
    Resource.CONCURRENCY: (Window.LIFETIME,),
}
# Requests, tokens and calls: beyond that a limit is a mistake.
MOST_UNITS: Final = 10**15
_SCOPE: Final = re.compile(r"(project|user|key):([1-9][0-9]{0,18})")
_MOST_ID: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Scope:
    """What a limit is for; `id` is 0 for the account itself and for its wallet."""

    kind: str
    id: int

    @property
    def name(self) -> str:
        """As allowances are named by it: "account", "key:12"."""
        return f"{self.kind}:{self.id}" if self.id else self.kind


def parse_scope(text: str) -> Scope:
    """Return the scope of this name; raises Invalid (`invalid_scope`)."""
    if text == ACCOUNT:
        return Scope(ACCOUNT, 0)
    match = _SCOPE.fullmatch(text)
    if match is None or int(match[2]) > _MOST_ID:
        message = 'A scope is "account", or "project:", "user:" or "key:" and an id.'
        raise Invalid("invalid_scope", message, param="scope")
    return Scope(match[1], int(match[2]))


def parse_shown_scope(text: str) -> Scope:
    """Return a scope to look at: the wallet too, which nobody sets; raises Invalid likewise."""
    return Scope(WALLET, 0) if text == WALLET else parse_scope(text)


def parse_kind(text: str) -> str:
    """Return the kind of scope that a plan's limit is for; raises Invalid (`invalid_scope`)."""
    if text not in KINDS:
        message = f"A plan limits every one of: {', '.join(KINDS)}."
        raise Invalid("invalid_scope", message, param="scope")
    return text


def parse_resource(text: str) -> Resource:
    """Return the resource of this name; raises Invalid (`invalid_value`)."""
    try:
        return Resource(text)
    except ValueError:
        message = f"A resource is one of: {', '.join(Resource)}."
        raise Invalid("invalid_value", message, param="resource") from None


def parse_window(text: str, *, resource: Resource) -> Window:
    """Return the window of this name if the resource can be limited in it.

    Raises Invalid (`invalid_window`).
    """
    for window in WINDOWS[resource]:
        if window == text:
            return window
    message = f"The windows of {resource} are: {', '.join(WINDOWS[resource])}."
    raise Invalid("invalid_window", message, param="window")


def clean_model(text: str | None) -> str:
    """Return the model or pattern, "" for every model; raises Invalid (`invalid_pattern`)."""
    return "" if text is None else permissions.clean_pattern(text, param="model")


def check_amount(amount: int | None, *, resource: Resource, param: str, least: int = 0) -> None:
    """Raise Invalid (`invalid_amount`) for an amount out of range; None is no amount."""
    most = MAX_NANOS if resource is Resource.COST else MOST_UNITS
    if amount is not None and not least <= amount <= most:
        message = "It must not be negative." if not least else "It must be above 0."
        if amount > most:
            message = f"It may be at most {most}."
        raise Invalid("invalid_amount", message, param=param)


def check_soft(soft: int | None, *, limit: int | None, resource: Resource, window: Window) -> None:
    """Raise Invalid unless a soft limit (None: there is none) can ever be reached, and is worth it.

    It needs something that is counted, in a window of an hour or longer (`invalid_window`), and
    must not be above the limit (`invalid_amount`).
    """
    if soft is None:
        return
    check_amount(soft, resource=resource, param="soft_limit", least=1)
    if resource is Resource.CONCURRENCY or window is Window.MINUTE:
        message = "A soft limit counts cost, requests or tokens over an hour or longer."
        raise Invalid("invalid_window", message, param="soft_limit")
    if limit is not None and soft > limit:
        message = "A soft limit above the limit would never be reached."
        raise Invalid("invalid_amount", message, param="soft_limit")
