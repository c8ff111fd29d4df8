"""Sign-in services, as the operator has set them up, and what use cases ask of one.

Owns what is trusted: which service speaks for whom, and what its groups mean. Must not know how a
service is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bursar.adapters.oidc import Identity, Return
from bursar.core.people.roles import Role


class SignInService(Protocol):
    """What a use case needs of a service."""

    async def authorization_url(
        self, *, redirect_uri: str, state: str, nonce: str, verifier: str
    ) -> str:
        """Where a browser is sent."""

    async def redeem(self, back: Return, *, now_ms: int) -> Identity:
        """Whom the service means."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What being in a group of the service makes somebody in an account."""

    account_id: int
    group: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One service. It speaks for the addresses of `domains`, and of nobody else's.

    `creates_people` makes those who have a group with a role, and `counts_as_two` takes its word
    for both factors. Browsers may be sent back to `redirect_urls`, and to the machine that they run
    on.
    """

    name: str
    title: str
    issuer: str
    service: SignInService = field(repr=False)
    domains: frozenset[str] = frozenset()
    redirect_urls: frozenset[str] = frozenset()
    grants: tuple[Grant, ...] = ()
    creates_people: bool = False
    counts_as_two: bool = False

    def find_roles(self, groups: Sequence[str]) -> dict[int, Role]:
        """Return what somebody in these groups is in which account, the most that they are."""
        order = list(Role)
        found: dict[int, Role] = {}
        for grant in self.grants:
            if grant.group in groups:
                before = found.get(grant.account_id, Role.VIEWER)
                found[grant.account_id] = min(before, grant.role, key=order.index)
        return found

    @property
    def account_ids(self) -> list[int]:
        """The accounts in which its groups mean anything, in order."""
        return sorted({grant.account_id for grant in self.grants})
