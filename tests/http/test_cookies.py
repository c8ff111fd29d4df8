"""D-132, D-133: cookies mean nothing here, so no page can have a browser act for somebody."""

from __future__ import annotations

import re

import httpx2
import pytest

from bursar.api.routes import ROUTES
from bursar.dialects.cerevox import app as cerevox
from bursar.dialects.cerevox import routes as cerevox_routes
from bursar.dialects.venice import app as venice
from bursar.dialects.venice import routes as venice_routes
from bursar.edge.calls import make_plane
from tests import strangers
from tests.http.test_strangers import seen
from tests.installations import Api

NAMES = ("session", "sid", "access_token", "token", "authorization", "x-api-key", "__Host-bursar")
GUARDED = [(route.method, route.path) for route in ROUTES if route.principal is not None]


@pytest.fixture
def database_url(sqlite_database_url: str) -> str:
    return sqlite_database_url


def jars(api: Api) -> list[str]:
    """What a browser could send: good secrets under any name, two of a name, and far too much."""
    secret = api.secret("provisioning")
    return [
        "; ".join(f"{name}={secret}" for name in NAMES),
        f"authorization=Bearer {secret}; authorization=Bearer {api.secret('operator')}",
        f"sid=chosen-beforehand; csrf={secret}",
        f"sid={'x' * 5_000}",
    ]


async def test_a_request_with_cookies_alone_is_one_without_a_credential(api: Api) -> None:
    for method, template in GUARDED:
        path = strangers.fill(template, {})
        bare = await api.call(method, path, caller=None, json={})
        assert bare.status_code == 401
        for jar in jars(api):
            answer = await api.call(method, path, caller=None, json={}, headers={"cookie": jar})
            assert seen(answer) == seen(bare), (method, path)


async def test_cookies_change_nothing_of_what_is_answered_and_none_is_ever_set(api: Api) -> None:
    for method, template in GUARDED:
        if method != "GET":
            continue
        path = strangers.fill(template, {"account_id": 1, "key_id": 3, "plan_id": 1, "user_id": 1})
        caller = "operator" if "/operator/" in path else "provisioning"
        bare = await api.call(method, path, caller=caller)
        for jar in jars(api):
            answer = await api.call(method, path, caller=caller, headers={"cookie": jar})
            assert seen(answer) == seen(bare), path
            assert "set-cookie" not in answer.headers


async def test_neither_do_cookies_in_the_words_of_another_service(api: Api) -> None:
    plane = make_plane(api.database, why_not_ready=lambda: None, metrics=bytes)
    routes = [
        *((cerevox.create(plane), f"/v1{each.path}", each) for each in cerevox_routes.ROUTES),
        *(
            (venice.create(plane, served=list), f"{venice_routes.PREFIX}{each.path}", each)
            for each in venice_routes.make(served=list, shows_totals=True)
        ),
    ]
    for app, template, route in routes:
        if route.kinds is None:
            continue
        transport = httpx2.ASGITransport(app=app, client=("192.0.2.1", 5))
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            path = re.sub(r"\{\w+\}", "1", template)
            bare = await client.request(route.method, path, json={})
            assert bare.status_code == 401
            for jar in jars(api):
                answer = await client.request(route.method, path, json={}, headers={"cookie": jar})
                assert seen(answer) == seen(bare), path


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
async def test_what_a_page_can_send_without_asking_is_no_request(api: Api, media_type: str) -> None:
    headers = {
        "content-type": media_type,
        "origin": "https://sibling.example.test",
        "sec-fetch-site": "cross-site",
        "cookie": jars(api)[0],
    }
    body = b'{"name":"x"}'
    for caller, status in ((None, 401), ("provisioning", 415)):
        answer = await api.call(
            "POST", "/v1/account/keys", caller=caller, content=body, headers=headers
        )
        assert answer.status_code in {status, 415}
    assert len((await api.get("/v1/account/keys"))["keys"]) == 1
