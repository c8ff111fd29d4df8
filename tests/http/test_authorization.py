"""Who may call what, for every route and every kind of caller, as the table of roles has it.

Generated: from the registries of routes and from `core.people.roles`, so that a new route, role or
action is tried without a word here. Each caller asks with a parameter that no route knows: whoever
may call the route is told so (422, after everything that decides about access), and nothing is
changed by asking.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from bursar.api.routes import ROUTES
from bursar.core.people import roles
from bursar.core.people.roles import Role
from bursar.core.secrets import KeyKind
from bursar.dialects.cerevox import app as cerevox
from bursar.dialects.cerevox import routes as cerevox_routes
from bursar.dialects.venice import app as venice
from bursar.dialects.venice import routes as venice_routes
from bursar.edge.calls import default_action
from bursar.service.access import Principal, ProvisioningPrincipal, UserPrincipal
from tests import strangers
from tests.installations import Api
from tests.people.house import open_house
from tests.strangers import Stage

ODD = "?no_such_parameter=1"


@dataclass(frozen=True)
class Door:
    """One method of one path, as a registry has it, and the kinds of caller that it is for."""

    method: str
    path: str
    kinds: tuple[type[Principal], ...] | None
    action: roles.Action
    has_body: bool


def doors(routes: Iterable[Any], prefix: str = "") -> list[Door]:
    """The routes of one registry; ours names one kind of caller, a dialect's several."""
    found = []
    for route in routes:
        kinds = route.kinds if hasattr(route, "kinds") else route.principal
        has_body = route.has_body if hasattr(route, "has_body") else route.body is not None
        found.append(
            Door(
                route.method,
                prefix + route.path,
                kinds if kinds is None or isinstance(kinds, tuple) else (kinds,),
                route.action or default_action(route.method),
                has_body,
            )
        )
    return found


OURS = doors(ROUTES)
VENICE = doors(venice_routes.make(served=list, shows_totals=True), venice_routes.PREFIX)
CEREVOX = doors(cerevox_routes.ROUTES, cerevox_routes.PREFIX)


@dataclass(frozen=True)
class Caller:
    """A kind of caller: the key that they have, or that they have signed in; and their role."""

    name: str
    kind: KeyKind | None = None
    is_signed_in: bool = False
    role: Role | None = None

    def verdict(self, door: Door) -> str:
        """What the tables say of this caller at this door."""
        if door.kinds is None:
            return "may"
        if self.kind is None and not self.is_signed_in:
            return "unknown"
        if not any(self._is(kind) for kind in door.kinds):
            return "unknown"
        if self.role is not None and not roles.may(self.role, door.action):
            return "must not"
        return "may"

    def _is(self, kind: type[Principal]) -> bool:
        if self.is_signed_in:
            return issubclass(kind, ProvisioningPrincipal)
        return kind.kind == self.kind and not issubclass(kind, UserPrincipal)


CALLERS = [
    Caller("nobody"),
    Caller("operator", KeyKind.OPERATOR),
    Caller("inference", KeyKind.INFERENCE),
    Caller("provisioning", KeyKind.PROVISIONING, role=Role.OWNER),
    Caller("provisioning of B", KeyKind.PROVISIONING, role=Role.OWNER),
    *(Caller(f"key of {role}", KeyKind.PROVISIONING, role=role) for role in Role),
    *(Caller(str(role), is_signed_in=True, role=role) for role in Role),
    Caller("owner of B", is_signed_in=True, role=Role.OWNER),
]


@pytest.fixture
async def stage(api: Api) -> AsyncIterator[Stage]:
    """Two accounts with people of every role, and a credential of every kind of caller."""
    async with open_house(api) as house, strangers.furnish(house) as made:
        yield made


TOLD = {
    "may": (422, "unknown_field"),
    "must not": (403, "insufficient_role"),
    "unknown": (401, "wrong_key_type"),
    "nobody": (401, "missing_api_key"),
}


def refused(status: int) -> str:
    return {401: "unknown", 403: "must not"}.get(status, "may")


async def test_every_caller_at_every_route_is_let_in_as_the_roles_say(stage: Stage) -> None:
    wrong = []
    for door in OURS:
        path = strangers.fill(door.path, stage.unknown)
        for caller in CALLERS:
            response = await stage.call(
                door.method, path + ODD, caller.name, has_body=door.has_body
            )
            wanted = caller.verdict(door)
            told = (response.status_code, response.json()["error"]["code"])
            if wanted == "unknown" and caller.name == "nobody":
                wanted = "nobody"
            if told != TOLD[wanted]:
                wrong.append((door.method, door.path, caller.name, told, wanted))
    assert wrong == []
    assert len(OURS) * len(CALLERS) > 1_000


@pytest.mark.parametrize("dialect", ["venice", "cerevox"])
async def test_every_caller_at_every_route_of_a_dialect_likewise(
    stage: Stage, dialect: str
) -> None:
    plane = stage.plane
    made: Any = venice.create(plane, served=list) if dialect == "venice" else cerevox.create(plane)
    wrong = []
    for door in VENICE if dialect == "venice" else CEREVOX:
        path = strangers.fill(door.path, stage.unknown)
        for caller in CALLERS:
            response = await stage.call(
                door.method, path + ODD, caller.name, has_body=door.has_body, app=made
            )
            told, wanted = refused(response.status_code), caller.verdict(door)
            if told != wanted:
                wrong.append((door.method, door.path, caller.name, response.status_code, wanted))
    assert wrong == []


@pytest.mark.parametrize("role", list(Role))
def test_a_role_never_may_what_the_one_above_it_may_not(role: Role) -> None:
    above = list(Role)[: list(Role).index(role)]
    assert all(roles.ACTIONS[role] <= roles.ACTIONS[each] for each in above)
