"""Another tenant's id is answered as an unknown one, byte for byte, wherever an id can stand.

Generated from the registry: every id in a path, in a query and in a body, asked by whoever may call
the route in one account about what belongs to another one.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import httpx2
import pytest
from pydantic import BaseModel

from bursar.adapters.oidc import Client, Service
from bursar.api.registry import Route
from bursar.api.routes import ROUTES
from bursar.service.access import OperatorPrincipal
from bursar.service.sso.ports import Provider
from tests import strangers
from tests.databases import Clock
from tests.installations import Api
from tests.people.devices import Device
from tests.people.house import PASSWORD, URL, open_house
from tests.people.services import CLIENT_ID, SECRET, SignInService, serving
from tests.strangers import UNKNOWN, Stage

IN_PATH = re.compile(r"\{(\w+)\}")
# Ids of nothing that belongs to anybody.
NOBODYS = {"plan_id", "provider", "identity_id"}
IDS = frozenset({"account_id", "key_id", "project_id", "session_id", "user_id"})
SCOPES = ("key", "project", "user")
REQUEST_ID = re.compile(rb"req_[0-9a-f]{24}")


@pytest.fixture
async def stage(api: Api) -> AsyncIterator[Stage]:
    """Two accounts with people and things."""
    async with open_house(api) as house, strangers.furnish(house) as made:
        yield made


def seen(response: httpx2.Response) -> tuple[object, ...]:
    """All that tells an answer from another one, but its id."""
    headers = sorted((name, value) for name, value in response.headers.items())
    kept = [(name, value) for name, value in headers if name != "x-request-id"]
    return response.status_code, REQUEST_ID.sub(b"", response.content), tuple(kept)


# In paths


def with_ids() -> list[Route]:
    """The routes of accounts and people with an id in their path."""
    return [
        route
        for route in ROUTES
        if route.principal not in {None, OperatorPrincipal}
        and set(IN_PATH.findall(route.path)) - NOBODYS
    ]


def mixtures(route: Route, own: Mapping[str, int], others: Mapping[str, int]) -> Iterator[Any]:
    """Ids of which one or all are another account's; and the same with unknown ones."""
    names = [name for name in IN_PATH.findall(route.path) if name in others]
    wanted = [{name} for name in names] + ([set(names)] if len(names) > 1 else [])
    for foreign in wanted:
        yield (
            {**own, **{name: others[name] for name in foreign}},
            {**own, **dict.fromkeys(foreign, UNKNOWN)},
        )


BODIES: list[object] = [{}, {"no_such_field": 1}, {"name": "Stolen"}, {"role": "viewer"}]
PROOFS: list[object] = [{}, {"password": PASSWORD}, {"password": PASSWORD, "code": "000000"}]


@pytest.mark.parametrize(
    "caller",
    [
        *("owner", "admin", "member", "viewer", "provisioning", "key of admin", "of B"),
        *("nobody", "inference", "operator"),
    ],
)
async def test_an_id_in_a_path_that_is_anothers_is_as_one_that_is_not(
    stage: Stage, caller: str
) -> None:
    callers = ["owner of B", "provisioning of B"] if caller == "of B" else [caller]
    own, others = (stage.of_b, stage.of_a) if caller == "of B" else (stage.of_a, stage.of_b)
    count = 0
    for route in with_ids():
        for foreign, unknown in mixtures(route, own, others):
            for body in BODIES + PROOFS if route.body else [None]:
                for who in callers:
                    answers = [
                        await stage.call(
                            route.method, strangers.fill(route.path, ids), who, body=body
                        )
                        for ids in (foreign, unknown)
                    ]
                    case = (route.method, route.path, who, body, [a.text for a in answers])
                    assert seen(answers[0]) == seen(answers[1]), case
                    assert answers[0].status_code in {401, 403, 404, 422}, case
                    if body in (None, {}, {"name": "Stolen"}) and "passkeys" not in route.path:
                        assert answers[0].status_code in {401, 403, 404}, case
                    count += 1
    assert count >= 40
    await _require_untouched(stage)


async def test_ones_own_ids_lead_somewhere(stage: Stage) -> None:
    """The control: what is tried on strangers above are the ids of real things."""
    for route in with_ids():
        if route.method == "GET":
            for caller, ids in (("owner", stage.of_a), ("owner of B", stage.of_b)):
                response = await stage.call("GET", strangers.fill(route.path, ids), caller)
                assert response.status_code == 200, (route.path, caller, response.text)
    for name in {name for route in with_ids() for name in IN_PATH.findall(route.path)}:
        assert name in NOBODYS or {name} <= stage.of_b.keys() & stage.of_a.keys(), name


async def test_what_is_deleted_by_its_owner_was_there(stage: Stage) -> None:
    routes = sorted(with_ids(), key=lambda route: -len(IN_PATH.findall(route.path)))
    gone = [route for route in routes if route.method == "DELETE"]
    for route in sorted(gone, key=lambda route: "session" in route.path):
        ids = stage.of_b
        if "members" in route.path:
            me = (await stage.call("GET", "/v1/account/users/me", "owner of B")).json()
            ids = {**ids, "user_id": me["id"]}
        elif "users" in route.path:
            listed = (await stage.call("GET", "/v1/account/users", "owner of B")).json()["users"]
            ids = {**ids, "user_id": max(user["id"] for user in listed)}
        response = await stage.call("DELETE", strangers.fill(route.path, ids), "owner of B")
        assert response.status_code == 204, (route.path, response.text)
    assert len(gone) >= 6


# In queries


async def test_an_id_in_a_query_that_is_anothers_is_as_one_that_is_not(stage: Stage) -> None:
    count = 0
    for route in ROUTES:
        if route.principal in {None, OperatorPrincipal}:
            continue
        for name in {*IDS, "scope"} & {*route.query}:
            for foreign, unknown in _queried(name, stage):
                more = "&resource=cost&window=day" if route.method == "DELETE" else ""
                path = strangers.fill(route.path, stage.of_a)
                answers = [
                    await stage.call(route.method, f"{path}?{name}={value}{more}", "owner")
                    for value in (foreign, unknown)
                ]
                case = (route.method, route.path, name, [a.text for a in answers])
                assert seen(answers[0]) == seen(answers[1]), case
                count += 1
    assert count >= 12
    await _require_untouched(stage)


def _queried(name: str, stage: Stage) -> list[tuple[object, object]]:
    if name == "scope":
        return [(f"{kind}:{stage.of_b[kind + '_id']}", f"{kind}:{UNKNOWN}") for kind in SCOPES]
    return [(stage.of_b[name], UNKNOWN)]


# In bodies

Body = Callable[[int], object]
LIMIT = {"resource": "requests", "window": "day", "limit": 5}
EVENT = {"id": "e", "at": "2026-11-21T12:00:00Z", "product": "lexa", "quantities": {"documents": 1}}
_A_KEY: dict[str, Body] = {
    "project_id": lambda number: {"name": "New", "project_id": number},
    "user_id": lambda number: {"name": "New", "user_id": number},
}
# What is sent with an id in each field that takes one.
SENT: dict[tuple[str, str], dict[str, Body]] = {
    ("POST", "/v1/account/keys"): _A_KEY,
    ("POST", "/v1/account/keys/bulk"): {
        "project_id": lambda number: {"keys": [{"name": "A"}, {"name": "B", "project_id": number}]},
        "user_id": lambda number: {"keys": [{"name": "A"}, {"name": "B", "user_id": number}]},
    },
    ("PATCH", "/v1/account/keys/{key_id}"): {"project_id": lambda number: {"project_id": number}},
    ("POST", "/v1/account/projects/{project_id}/members"): {
        "user_id": lambda number: {"user_id": number}
    },
    ("PUT", "/v1/account/limits"): {"scope": lambda number: {**LIMIT, "scope": f"key:{number}"}},
    ("POST", "/v1/account/explain"): {
        "key_id": lambda number: {"key_id": number, "model": "sandbox/echo"}
    },
    ("POST", "/v1/operator/accounts/{account_id}/keys"): _A_KEY,
    ("POST", "/v1/auth/login"): {
        "account_id": lambda number: {
            "email": "viewer@a.example.test",
            "password": PASSWORD,
            "account_id": number,
        }
    },
    ("POST", "/v1/meter/events"): {
        "key_id": lambda number: {"events": [{**EVENT, "key_id": number}]}
    },
}
# Without a token or a passkey that is good, nobody gets as far as to the id: tried below.
BEHIND_A_PROOF = {
    ("POST", "/v1/auth/refresh"),
    ("POST", "/v1/auth/passkeys/login"),
    ("POST", "/v1/auth/sso/finish"),
    # The scope of a plan's limit is a kind, no id.
    ("PUT", "/v1/operator/plans/{plan_id}/limits"),
}


def id_fields(model: type[BaseModel]) -> set[str]:
    """The fields of a body, and of what is in it, that take an id of something."""
    schema = json.dumps(model.model_json_schema())
    return {name for name in (*IDS, "scope") if f'"{name}": {{' in schema}


def test_every_field_that_takes_an_id_is_tried() -> None:
    for route in ROUTES:
        where = (route.method, route.path)
        if route.body is not None and where not in BEHIND_A_PROOF:
            assert id_fields(route.body) <= set(SENT.get(where, {})), where


@pytest.mark.parametrize("where", sorted(SENT))
async def test_an_id_in_a_body_that_is_anothers_is_as_one_that_is_not(
    stage: Stage, where: tuple[str, str]
) -> None:
    method, template = where
    if not any((route.method, route.path) == where for route in ROUTES):
        pytest.skip("there is no such route")
    caller = "operator" if "operator" in template else "owner"
    before = (await stage.call("GET", "/v1/account/keys?limit=200", "owner")).json()
    for name, body in SENT[where].items():
        foreign = stage.of_b["key_id" if name == "scope" else name]
        path = strangers.fill(template, stage.of_a)
        answers = [
            await stage.call(method, path, caller, body=body(number))
            for number in (foreign, UNKNOWN)
        ]
        case = [answer.text for answer in answers]
        assert seen(answers[0]) == seen(answers[1]), case
        assert answers[0].status_code in {200, 401, 403, 404, 422}, case
        if answers[0].status_code == 200:
            assert answers[0].json()["accepted"] == 0, case
    assert (await stage.call("GET", "/v1/account/keys?limit=200", "owner")).json() == before
    await _require_untouched(stage)


async def test_a_refresh_token_does_not_tell_anothers_account_from_one_that_is_not(
    stage: Stage,
) -> None:
    token = (await stage.house.sign_in("viewer@a.example.test"))["refresh_token"]

    async def answer(account_id: int) -> httpx2.Response:
        body = {"refresh_token": token, "account_id": account_id}
        return await stage.call("POST", "/v1/auth/refresh", "nobody", body=body)

    await _require_alike(stage, answer, 401)


async def test_a_passkey_does_not_tell_anothers_account_from_one_that_is_not(stage: Stage) -> None:
    house, device = stage.house, Device(URL)
    body = {"password": PASSWORD}
    path = "/v1/auth/passkeys"
    asked = await stage.call("POST", f"{path}/options", "viewer", body=body)
    made = {"name": "Mine", "credential": device.make(asked.json()["options"])}
    assert (await stage.call("POST", path, "viewer", body=made)).status_code == 201

    async def answer(account_id: int) -> httpx2.Response:
        options = (await house.call("POST", f"{path}/challenge", {})).json()["options"]
        body = {"passkey": device.use(options), "account_id": account_id}
        return await stage.call("POST", f"{path}/login", "nobody", body=body)

    await _require_alike(stage, answer, 401)


async def test_a_sign_in_service_does_not_tell_anothers_account_from_one_that_is_not(
    stage: Stage, clock: Clock
) -> None:
    says = {"sub": "1", "email": "viewer@a.example.test", "email_verified": True}
    with serving(SignInService(lambda: clock.now_ms / 1_000, claims=says)) as service:
        client = Client(
            issuer=service.issuer, client_id=CLIENT_ID, client_secret=SECRET, is_internal=True
        )
        provider = Provider(
            name="acme",
            title="Acme",
            issuer=service.issuer,
            service=Service(client),
            domains=frozenset(("a.example.test",)),
            redirect_urls=frozenset((f"{URL}/back",)),
        )
        stage.house.trust(provider)

        async def answer(account_id: int) -> httpx2.Response:
            body = {"provider": "acme", "redirect_uri": f"{URL}/back"}
            flow = (await stage.house.call("POST", "/v1/auth/sso/start", body)).json()
            back = service.visit(flow["authorization_url"])
            sent = {"flow_token": flow["flow_token"], **back, "account_id": account_id}
            return await stage.call("POST", "/v1/auth/sso/finish", "nobody", body=sent)

        await _require_alike(stage, answer, 403)


async def _require_alike(
    stage: Stage, answer: Callable[[int], Awaitable[httpx2.Response]], status: int
) -> None:
    """Another's account is refused as one that is not; the person's own one is not refused."""
    foreign, unknown = await answer(stage.b_id), await answer(UNKNOWN)
    assert seen(foreign) == seen(unknown), (foreign.text, unknown.text)
    assert foreign.status_code == status
    assert (await answer(1)).status_code == 200


async def _require_untouched(stage: Stage) -> None:
    """Everything is still there, under its name, for whom it belongs to."""
    for caller, ids in (("owner", stage.of_a), ("owner of B", stage.of_b)):
        for path in ("/v1/account/keys/{key_id}", "/v1/account/projects/{project_id}"):
            response = await stage.call("GET", strangers.fill(path, ids), caller)
            assert response.status_code == 200
            assert response.json()["name"] in {"Key", "Project"}
        user = await stage.call("GET", f"/v1/account/users/{ids['user_id']}", caller)
        role = "member" if caller == "owner" else "owner"
        assert (user.status_code, user.json()["role"]) == (200, role)
