"""Another tenant's id is as an unknown one in the words of other services, too, byte for byte.

Every route of a dialect with an id in its path, its query or its body, asked by every kind of
caller.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from bursar.dialects.cerevox import app as cerevox
from bursar.dialects.cerevox import routes as cerevox_routes
from bursar.dialects.venice import app as venice
from bursar.dialects.venice import routes as venice_routes
from tests import strangers
from tests.http.test_strangers import IN_PATH, seen
from tests.installations import Api
from tests.people.house import open_house
from tests.strangers import UNKNOWN, Stage

CALLERS = (
    *("owner", "admin", "member", "viewer", "provisioning", "key of member"),
    *("nobody", "inference", "operator"),
)
BODIES: tuple[object, ...] = (
    {},
    {"name": "Stolen"},
    {"role": "viewer"},
    {"email": "owner@b.example.test"},
    {"no_such_field": 1},
)
# Where an id is not in the path: what is asked, with the id in its place.
VENICE_ELSEWHERE: tuple[tuple[str, str, object], ...] = (
    ("GET", "/api/v1/api_keys?id={id}", None),
    ("DELETE", "/api/v1/api_keys?id={id}", None),
    ("GET", "/api/v1/api_keys/rate_limits/log?api_key_id={id}", None),
    ("PATCH", "/api/v1/api_keys", {"id": "{id}", "description": "Stolen"}),
    ("PATCH", "/api/v1/api_keys", {"id": "{id}", "consumptionLimit": {"usd": 1}}),
    ("PATCH", "/api/v1/api_keys", {"id": "{id}", "expiresAt": "2027-01-01T00:00:00Z"}),
)
Case = tuple[str, str, object, str, object]


@pytest.fixture
async def stage(api: Api) -> AsyncIterator[Stage]:
    """Two accounts with people and things."""
    async with open_house(api) as house, strangers.furnish(house) as made:
        yield made


def in_paths(routes: Any, prefix: str, stage: Stage) -> Iterator[Case]:
    """Each route with an id in its path, with what is B's and with what is nobody's."""
    for route in routes:
        for name in IN_PATH.findall(route.path):
            path = prefix + route.path
            # Who is invited has an id of another form.
            forms = ("{}", "inv_{}") if name == "user_id" else ("{}",)
            for form in forms:
                own = "invitation_id" if form.startswith("inv_") else name
                pair = [
                    path.replace(f"{{{name}}}", form.format(number))
                    for number in (stage.of_b[own], UNKNOWN)
                ]
                for body in BODIES if route.has_body else (None,):
                    yield route.method, pair[0], body, pair[1], body


def elsewhere(stage: Stage) -> Iterator[Case]:
    """Venice's ids in queries and bodies likewise."""
    foreign, unknown = str(stage.of_b["key_id"]), str(UNKNOWN)
    for method, path, body in VENICE_ELSEWHERE:
        pair = [
            (path.replace("{id}", number), _with_id(body, number)) for number in (foreign, unknown)
        ]
        yield method, *pair[0], *pair[1]


def _with_id(body: object, number: str) -> object:
    return {**body, "id": number} if isinstance(body, dict) else body


@pytest.mark.parametrize("dialect", ["venice", "cerevox"])
async def test_an_id_that_is_anothers_is_as_one_that_is_not(stage: Stage, dialect: str) -> None:
    app: Any
    if dialect == "venice":
        app = venice.create(stage.plane, served=list)
        routes = venice_routes.make(served=list, shows_totals=True)
        cases = [*in_paths(routes, venice_routes.PREFIX, stage), *elsewhere(stage)]
    else:
        app = cerevox.create(stage.plane)
        cases = [*in_paths(cerevox_routes.ROUTES, cerevox_routes.PREFIX, stage)]
    for caller in CALLERS:
        for method, foreign, body, unknown, other in cases:
            answers = [
                await stage.call(method, foreign, caller, body=body, app=app),
                await stage.call(method, unknown, caller, body=other, app=app),
            ]
            case = (method, foreign, caller, [each.text for each in answers])
            assert seen(answers[0]) == seen(answers[1]), case
            assert answers[0].status_code in {200, 400, 401, 403, 404, 422}, case
            if answers[0].status_code == 200:
                assert "rate_limits/log" in foreign, case
    for caller, ids in (("owner", stage.of_a), ("owner of B", stage.of_b)):
        for path in ("/v1/account/keys/{key_id}", "/v1/account/users/{user_id}"):
            mine = await stage.call("GET", strangers.fill(path, ids), caller)
            assert (mine.status_code, mine.json()["name"] == "Stolen") == (200, False)


async def test_ones_own_ids_lead_somewhere(stage: Stage) -> None:
    """The control: the ids that are tried on strangers are the ids of real things."""
    made: Any = venice.create(stage.plane, served=list)
    own: Any = cerevox.create(stage.plane)
    for app, path in (
        (made, f"/api/v1/api_keys/{stage.of_b['key_id']}"),
        (made, f"/api/v1/api_keys?id={stage.of_b['key_id']}"),
        (own, f"/v1/accounts/{stage.b_id}"),
        (own, f"/v1/users/{stage.of_b['user_id']}"),
        (own, f"/v1/users/inv_{stage.of_b['invitation_id']}"),
    ):
        answer = await stage.call("GET", path, "owner of B", app=app)
        assert answer.status_code == 200, (path, answer.text)
