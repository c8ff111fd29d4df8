"""Two walls between accounts: with the first one switched off, the second one holds alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Executable, event, insert, true
from sqlalchemy.sql.elements import BinaryExpression, BindParameter
from sqlalchemy.sql.operators import eq
from sqlalchemy.sql.visitors import replacement_traverse

from bursar.api.registry import Route
from bursar.api.routes import ROUTES
from bursar.bootstrap import walls
from bursar.core.errors import Unavailable
from bursar.service.access import ProvisioningPrincipal
from bursar.store.database import Database
from bursar.store.tables import members, users
from tests.databases import Clock
from tests.installations import OPERATOR, Api, a_charge, use

MARK = "mine-a"
UNKNOWN = 999_999_999
READS = [
    route
    for route in ROUTES
    if route.method == "GET"
    and route.principal is not None
    and issubclass(route.principal, ProvisioningPrincipal)
    and not route.path.startswith("/v1/auth")
]


@pytest.fixture
def database_url(postgres_database_url: str) -> str:
    """SQLite has no second wall."""
    return postgres_database_url


@contextmanager
def first_wall_off(database: Database) -> Iterator[list[int]]:
    """Take `account_id = …` out of every statement that is sent; how often it was done."""
    taken: list[int] = []

    def take(element: Any, **_: Any) -> Any:
        if isinstance(element, BinaryExpression) and element.operator is eq:
            name = getattr(element.left, "name", None)
            table = getattr(getattr(element.left, "table", None), "name", None)
            is_owner = name == "account_id" or (name == "id" and table == "accounts")
            if is_owner and isinstance(element.right, BindParameter):
                taken.append(1)
                return true()
        return None

    def send(_: Any, statement: Executable, many: Any, one: Any, options: Any) -> Any:
        if not (statement.is_select or statement.is_update or statement.is_delete):  # type: ignore[attr-defined]
            return statement, many, one
        return replacement_traverse(statement, {}, take), many, one  # type: ignore[type-var]

    engine = database.engine.sync_engine
    event.listen(engine, "before_execute", send, retval=True)
    try:
        yield taken
    finally:
        event.remove(engine, "before_execute", send)


async def furnish(api: Api) -> dict[str, int]:
    """Things of account 1 with the mark on them; their ids by the names that paths have."""
    project = await api.post("/v1/account/projects", {"name": f"{MARK} project"})
    key = await api.post(
        "/v1/account/keys", {"name": f"{MARK} key", "project_id": project["id"], "credit_limit": 5}
    )
    limit = {"scope": f"key:{key['id']}", "resource": "requests", "window": "day"}
    await api.call("PUT", "/v1/account/limits", json={**limit, "limit": 7, "model": f"{MARK}-m"})
    await use(
        api.database,
        a_charge("event", 5, key_id=key["id"], project_id=project["id"], model=f"{MARK}-model"),
    )
    async with api.database.write() as tx:
        now: dict[str, Any] = {"created_ms": tx.now_ms, "password_hash": ""}
        await tx.execute(insert(users).values(id=77, email=f"{MARK}@x.test", name=MARK, **now))
        await tx.execute(
            insert(members).values(account_id=1, user_id=77, role="admin", created_ms=tx.now_ms)
        )
    invited = await api.call(
        "POST", "/v1/account/users", json={"email": f"{MARK}2@x.test", "role": "viewer"}
    )
    assert invited.status_code == 202, invited.text
    return {"key_id": key["id"], "project_id": project["id"], "user_id": 77}


def path(route: Route, ids: dict[str, int], *, instead: int | None = None) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: str(instead or ids.get(m[1], UNKNOWN)), route.path)


async def leaking(api: Api, ids: dict[str, int], caller: str) -> set[str]:
    """The routes in whose answers the caller finds the mark."""
    found = set()
    for route in READS:
        response = await api.call("GET", path(route, ids), caller=caller)
        if MARK in response.text:
            found.add(route.path)
    return found


async def test_with_the_first_wall_off_the_second_one_holds(api: Api) -> None:
    ids = await furnish(api)
    _, stranger = await api.open_account()
    assert len(await leaking(api, ids, "provisioning")) >= 8
    assert await leaking(api, ids, stranger) == set()
    with first_wall_off(api.database) as taken:
        assert await leaking(api, ids, stranger) == set()
    assert len(taken) >= 20


async def test_without_the_second_wall_that_would_have_shown_everything(api: Api) -> None:
    """The negative control: what the test above switches off does hold accounts apart."""
    ids = await furnish(api)
    _, stranger = await api.open_account()
    api.database.has_wall = False
    assert await leaking(api, ids, stranger) == set()
    with first_wall_off(api.database):
        found = await leaking(api, ids, stranger)
    assert {"/v1/account/projects", "/v1/account/users", "/v1/account/usage/events"} <= found
    assert len(found) >= 6, found


CHANGES = [
    ("PATCH", "/v1/account/keys/{key_id}", {"name": "stolen"}),
    ("POST", "/v1/account/keys/{key_id}/rotate", {}),
    ("DELETE", "/v1/account/keys/{key_id}", None),
    ("PATCH", "/v1/account/projects/{project_id}", {"name": "stolen"}),
    ("DELETE", "/v1/account/projects/{project_id}", None),
    ("PATCH", "/v1/account/users/{user_id}", {"role": "viewer"}),
    ("DELETE", "/v1/account/users/{user_id}", None),
]


@pytest.mark.parametrize(("method", "template", "body"), CHANGES)
async def test_with_the_first_wall_off_nothing_of_anothers_is_changed(
    api: Api, method: str, template: str, body: object
) -> None:
    ids = await furnish(api)
    _, stranger = await api.open_account()
    address = template.format(**ids)
    show = address.removesuffix("/rotate")
    before = await api.get(show)
    with first_wall_off(api.database):
        response = await api.call(method, address, caller=stranger, json=body)
    assert response.status_code == 404, response.text
    assert await api.get(show) == before


async def test_an_operator_sees_all_accounts_with_the_wall_up(api: Api) -> None:
    account_id, _ = await api.open_account()
    listed = await api.get("/v1/operator/accounts", caller=OPERATOR)
    assert {1, account_id} <= {each["id"] for each in listed["accounts"]}


# What a server does that finds no wall


@pytest.fixture
async def without_wall(postgres_database: str, clock: Clock) -> Any:
    """A database in which nobody has built anything."""
    database = Database(postgres_database, clock_ms=clock)
    async with database.write() as tx:
        await tx.driver("CREATE TABLE keys (account_id bigint)")
        await tx.driver(
            "DO $$ BEGIN CREATE ROLE bursar_tenant; EXCEPTION WHEN duplicate_object THEN END $$"
        )
    yield database
    await database.close()


async def test_a_server_that_finds_no_wall_says_so_and_serves(
    without_wall: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    await walls.take_up(without_wall, row_security="auto")
    assert "not walled yet: keys" in capsys.readouterr().out
    assert without_wall.bound(account_id=1, user_id=None) is without_wall


async def test_a_server_that_must_have_a_wall_does_not_start_without_it(
    without_wall: Database,
) -> None:
    with pytest.raises(Unavailable, match="keys") as caught:
        await walls.take_up(without_wall, row_security="required")
    assert caught.value.code == "row_security_missing"


async def test_a_server_that_shall_have_none_uses_none(api: Api) -> None:
    await walls.take_up(api.database, row_security="off")
    assert api.database.bound(account_id=1, user_id=None) is api.database


async def test_a_server_that_finds_the_wall_uses_it(api: Api) -> None:
    await walls.take_up(api.database, row_security="required")
    assert api.database.bound(account_id=1, user_id=None) is not api.database
