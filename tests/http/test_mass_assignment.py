"""D-128: nobody sets what a body does not declare, and whoever tries changes nothing.

Generated from the registries: every field of power beside every body that is taken, at its top and
in whatever is in it, sent by who may call the route and with all else in order.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import select

from bursar.api.registry import Route
from bursar.api.routes import ROUTES
from bursar.dialects.cerevox import app as cerevox
from bursar.dialects.cerevox import routes as cerevox_routes
from bursar.dialects.cerevox import tokens as cerevox_tokens
from bursar.dialects.cerevox import users as cerevox_users
from bursar.dialects.venice import app as venice
from bursar.dialects.venice import keys as venice_keys
from bursar.edge.body import Model
from bursar.service.access import OperatorPrincipal
from bursar.store.database import Database
from bursar.store.tables import metadata
from tests import strangers
from tests.installations import Api
from tests.people.house import open_house
from tests.strangers import Stage

FIELDS = (
    *("role", "is_admin", "balance", "credit", "tenant_id", "account_id", "id", "created_at"),
    *("key_hash", "email_verified", "scopes", "limit_reset"),
)
UNKNOWN = (422, "unknown_field")
# Of dialects: what is sent to each route, who is told in which words.
VENICE: dict[tuple[str, str], type[Model]] = {
    ("POST", "/api/v1/api_keys"): venice_keys.NewKeyFields,
    ("PATCH", "/api/v1/api_keys"): venice_keys.KeyFields,
}
CEREVOX: dict[tuple[str, str], type[Model]] = {
    ("POST", "/users"): cerevox_users.NewUserFields,
    ("PUT", "/users/me"): cerevox_users.OwnFields,
    ("PUT", "/users/{user_id}"): cerevox_users.UserFields,
    ("DELETE", "/users/{user_id}"): cerevox_users.DeletionFields,
    ("POST", "/token/login"): cerevox_tokens.LoginFields,
    ("POST", "/token/refresh"): cerevox_tokens.RefreshFields,
}


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    return sqlite_database_url


@pytest.fixture
async def stage(api: Api) -> AsyncIterator[Stage]:
    """Two accounts with people and things."""
    async with open_house(api) as house, strangers.furnish(house) as made:
        yield made


def sample(schema: dict[str, Any], parts: dict[str, Any]) -> Any:
    """Something that fits a schema: of an object, what it must have."""
    if "$ref" in schema:
        return sample(parts[schema["$ref"].rpartition("/")[2]], parts)
    if "const" in schema or "enum" in schema:
        return schema.get("const") or schema["enum"][0]
    if "anyOf" in schema:
        return sample(schema["anyOf"][0], parts)
    match schema.get("type"):
        case "object":
            needed = schema.get("required", [])
            return {name: sample(schema["properties"][name], parts) for name in needed}
        case "array":
            return [sample(schema["items"], parts)]
        case "integer" | "number":
            return 1
        case "boolean":
            return False
        case _:
            return "x"


def bodies(model: type[Model]) -> Iterator[tuple[str, Any]]:
    """A body with one field too many, at each place where there is an object of ours."""
    schema = model.model_json_schema()
    parts = schema.get("$defs", {})
    good = sample(schema, parts)
    for name in FIELDS:
        for place, declared in _objects(schema, parts, good, ()):
            if name not in declared:
                body = copy.deepcopy(good)
                inner = body
                for step in place:
                    inner = inner[step]
                inner[name] = 1
                yield ".".join(map(str, (*place, name))), body


def _objects(
    schema: dict[str, Any], parts: dict[str, Any], value: Any, place: tuple[Any, ...]
) -> Iterator[tuple[tuple[Any, ...], set[str]]]:
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    if isinstance(value, dict) and schema.get("additionalProperties") is False:
        yield place, set(schema["properties"])
        for name, inner in value.items():
            yield from _objects(schema["properties"][name], parts, inner, (*place, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _objects(schema["items"], parts, inner, (*place, number))


async def everything(database: Database) -> dict[str, list[Any]]:
    """Every row of every table."""
    async with database.read() as tx:
        return {
            table.name: sorted(map(repr, await tx.execute(select(table))))
            for table in metadata.sorted_tables
        }


def caller_of(route: Route) -> str:
    if route.principal is None:
        return "nobody"
    return "operator" if route.principal is OperatorPrincipal else "owner"


async def test_a_field_that_a_body_does_not_declare_is_refused_and_changes_nothing(
    stage: Stage,
) -> None:
    before = await everything(stage.house.database)
    tried = 0
    ids = {**stage.of_a, "plan_id": 1}
    for route in (route for route in ROUTES if route.body is not None):
        assert route.body is not None
        for param, body in bodies(route.body):
            path = strangers.fill(route.path, ids)
            answer = await stage.call(route.method, path, caller_of(route), body=body)
            if answer.status_code == 404:
                # Of what there is none of here, such as identities at a sign-in service.
                assert "{identity_id}" in route.path, (route.path, answer.text)
                continue
            error = answer.json()["error"]
            case = (route.method, route.path, body, answer.text)
            assert (answer.status_code, error["code"], error["param"]) == (*UNKNOWN, param), case
            tried += 1
    assert tried > 500
    assert await everything(stage.house.database) == before


async def test_neither_in_the_words_of_another_service(stage: Stage) -> None:
    before = await everything(stage.house.database)
    made: dict[str, Any] = {
        "venice": venice.create(stage.plane, served=list),
        "cerevox": cerevox.create(stage.plane),
    }
    for dialect, routes in (("venice", VENICE), ("cerevox", CEREVOX)):
        for (method, path), model in routes.items():
            place = f"{cerevox_routes.PREFIX}{path}" if dialect == "cerevox" else path
            for param, body in bodies(model):
                if "id" in body and dialect == "venice":
                    body["id"] = str(stage.of_a["key_id"])
                answer = await stage.call(
                    method, strangers.fill(place, stage.of_a), "owner", body=body, app=made[dialect]
                )
                case = (method, path, param, body, answer.text)
                # Who wants tokens has to prove who they are before anything else is looked at.
                assert answer.status_code in ({400, 401} if "token" in path else {400, 422}), case
    assert await everything(stage.house.database) == before


def test_every_route_of_a_dialect_that_takes_a_body_is_tried() -> None:
    taken = {(each.method, each.path) for each in cerevox_routes.ROUTES if each.has_body}
    assert taken == set(CEREVOX)


def test_there_is_an_object_inside_another_that_is_tried_too() -> None:
    routes = [route.body for route in ROUTES if route.body is not None]
    assert any("." in param for body in routes for param, _ in bodies(body))
