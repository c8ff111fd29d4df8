"""Every response has an id and forbids caching; accidents are answered, once, without details."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from bursar.api.app import create
from bursar.core.errors import InvariantViolated
from bursar.edge.calls import make_plane
from bursar.service.access import OperatorPrincipal
from bursar.service.accounts import bootstrap_installation
from bursar.store import changes
from bursar.store.database import Database
from tests.databases import Clock
from tests.installations import OPERATOR, PROVISIONING, Api, Randomness

REQUEST_ID = re.compile(r"req_[0-9a-f]{24}")


async def test_every_response_has_the_envelope(api: Api) -> None:
    answers = [
        await api.call("GET", "/v1/account"),
        await api.call("GET", "/v1/account", caller=None),
        await api.call("GET", "/nowhere"),
        await api.call("PUT", "/v1/account"),
        await api.call("POST", "/v1/account/keys", content=b"{"),
        await api.call("DELETE", "/v1/account/keys/3"),
        await api.call("GET", "/healthz", caller=None),
        await api.call("GET", "/openapi.json", caller=None),
    ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 405, 415, 204, 200, 200]
    for answer in answers:
        assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert all(name == name.lower() for name in (n.decode() for n, _ in answer.headers.raw))
        assert "access-control-allow-origin" not in answer.headers
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert set(error) == {"type", "code", "message", "param", "request_id"}
            assert error["request_id"] == answer.headers["x-request-id"]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


async def test_an_id_from_outside_is_not_used(api: Api) -> None:
    response = await api.call("GET", "/healthz", headers={"x-request-id": "mine"})
    assert response.headers.get_list("x-request-id") != ["mine"]
    assert len(response.headers.get_list("x-request-id")) == 1


async def test_a_bug_is_a_500_with_an_id_and_nothing_else(
    api: Api, database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken() -> None:
        raise RuntimeError("secret detail in /srv/bursar")

    database.add_barrier(broken)
    response = await api.call("GET", "/v1/account/balance")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "detail" not in response.text
    assert response.headers["x-request-id"] == response.json()["error"]["request_id"]
    assert "secret detail" in capsys.readouterr().out


@pytest.mark.parametrize("sent", [b"", b'{"name": '])
async def test_a_caller_who_leaves_in_mid_request_is_counted_and_not_an_accident(
    database: Database, capsys: pytest.CaptureFixture[str], sent: bytes
) -> None:
    gone: list[int] = []
    plane = make_plane(database, why_not_ready=lambda: None, metrics=bytes)
    application = create(plane, version="0", count_gone=lambda: gone.append(1))
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": sent, "more_body": True},
        {"type": "http.disconnect"},
    ]
    outgoing: list[Any] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        outgoing.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/account/keys",
        "raw_path": b"/v1/account/keys",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"20")],
    }
    await application(scope, receive, send)
    assert (len(gone), outgoing) == (1, [])
    assert capsys.readouterr().out == ""


async def test_a_database_that_is_away_is_a_503_that_says_when_to_come_again(
    api: Api,
) -> None:
    gone = Database("postgresql+asyncpg://nobody@127.0.0.1:1/nothing", clock_ms=Clock())
    away = create(make_plane(gone, why_not_ready=lambda: None, metrics=bytes), version="0")
    transport = httpx2.ASGITransport(app=away)
    async with httpx2.AsyncClient(transport=transport, base_url="http://bursar.test") as client:
        key = api.secret(PROVISIONING)
        response = await client.get("/v1/account", headers={"x-api-key": key})
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "ledger_unavailable"
        assert response.headers["retry-after"] == "1"
        assert (await client.get("/healthz")).status_code == 200
    await gone.close()


async def test_a_connection_that_breaks_is_a_503_and_the_next_request_is_served(
    postgres_database_url: str,
) -> None:
    database = Database(postgres_database_url, clock_ms=Clock())
    plane = make_plane(database, why_not_ready=lambda: None, metrics=bytes)
    application = create(plane, version="0")

    async def cut() -> None:
        async with database.read() as tx:
            await tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    database.add_barrier(cut)
    async with database.write() as tx:
        made = await bootstrap_installation(
            tx,
            email="admin@localhost",
            password=None,
            credit_nanos=0,
            random_bytes=Randomness(),
            hash_password=lambda _: "hash",
        )
    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://bursar.test") as client:
        headers = {"x-api-key": made.provisioning_key}
        response = await client.get("/v1/account/balance", headers=headers)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        database._barriers.clear()
        response = await client.get("/v1/account/balance", headers=headers)
        assert response.json() == {"balance": "0.00"}
    await database.close()


async def test_a_broken_invariant_is_a_500_without_its_detail(api: Api, database: Database) -> None:
    async def broken() -> None:
        raise InvariantViolated("wallet_missing", "Account 5 has no wallet.", detail="row 7")

    database.add_barrier(broken)
    response = await api.call("GET", "/v1/account/balance")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "wallet" not in response.text


async def test_health_is_open_and_readiness_says_why_not(api: Api) -> None:
    assert (await api.get("/healthz", caller=None)) == {"status": "ok"}
    assert (await api.get("/readyz", caller=None)) == {"status": "ok"}
    api.reason = "starting"
    response = await api.call("GET", "/readyz", caller=None)
    assert (response.status_code, response.json()) == (503, {"status": "starting"})
    assert response.headers["retry-after"] == "1"
    assert (await api.get("/healthz", caller=None)) == {"status": "ok"}


async def test_figures_are_for_this_machine_and_operators(api: Api) -> None:
    assert (await api.call("GET", "/metrics", caller=None)).status_code == 401
    assert (await api.call("GET", "/metrics", caller=PROVISIONING)).status_code == 401
    response = await api.call("GET", "/metrics", caller=OPERATOR)
    assert (response.status_code, response.content) == (200, b"bursar_up 1\n")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert OperatorPrincipal.kind == "operator"


CLIENTS: list[tuple[str, dict[str, str], int]] = [
    ("127.0.0.1", {}, 200),
    ("::1", {}, 200),
    ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 401),
    ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, 401),
    ("10.0.0.1", {}, 401),
    ("10.0.0.1", {"x-forwarded-for": "127.0.0.1"}, 401),
    ("10.0.0.1", {"x-real-ip": "127.0.0.1", "host": "localhost"}, 401),
    ("not an address", {}, 401),
]


async def test_this_machine_is_known_by_the_socket_alone(api: Api) -> None:
    for client, headers, status in CLIENTS:
        api.client._transport.client = (client, 1)  # type: ignore[attr-defined]
        response = await api.call("GET", "/metrics", caller=None, headers=headers)
        assert response.status_code == status


async def test_nothing_is_announced_by_reading(api: Api, database: Database) -> None:
    async with database.read() as tx:
        seen = await changes.get_last(tx)
    for path in ("/v1/account", "/v1/account/keys", "/v1/account/limits", "/v1/account/activity"):
        await api.get(path)
    async with database.read() as tx:
        assert await changes.get_last(tx) == seen
