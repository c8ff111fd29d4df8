"""cerevox 0.2.0 from the registry against a live server: every account method, good and bad.

Blocking and awaited. What its documentation has and it lacks (`seeds/cerevox-account-api.txt`) is
read with the client's own way to send a request.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from bursar.core.money import parse_usd
from bursar.core.secrets import KeyKind
from bursar.service import keys
from bursar.store.tenants import users
from tests.dialects.cerevox_clients import ASYNC, SYNC
from tests.dialects.clients import BUILD_S, Client, Raised
from tests.dialects.conftest import LiveServer
from tests.metering import meters
from tests.serving import House, serving

pytestmark = [
    # The first test of a run may have to wait for the client's installation.
    pytest.mark.timeout(BUILD_S + 60),
    # What differs between databases is tried without a client, which takes longer.
    pytest.mark.parametrize("kind", ["sqlite"]),
]
Start = Callable[[str], Client]


@pytest.fixture
async def house(database_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A server in this process with 40 USD."""
    async with serving(database_url, tmp_path, credit="40") as served:
        yield served


@pytest.fixture(params=[SYNC, ASYNC])
def client(request: pytest.FixtureRequest, house: House, cerevox_processes: Start) -> Client:
    """The client with the owner's key, once blocking and once awaited."""
    started = cerevox_processes(request.param)
    return started.at(house.url, house.installation.provisioning_key)


async def add_viewer(house: House) -> str:
    """Somebody who may look, and the key that acts for them."""
    async with house.server.database.write() as tx:
        user_id = await users.insert_user(
            tx, email="vera@example.com", name="Vera", password_hash="-"
        )
        await users.insert_member(tx, account_id=1, user_id=user_id, role="viewer")
        made = await keys.create(
            tx,
            account_id=1,
            user_id=user_id,
            name="looks",
            random_bytes=os.urandom,
            kind=KeyKind.PROVISIONING,
        )
    return made.secret


async def refused(client: Client, name: str, /, **arguments: Any) -> Raised:
    """What the client raises."""
    with pytest.raises(Raised) as raised:
        await client(name, retries=0, **arguments)
    return raised.value


async def test_the_account_its_plan_and_its_use_are_read(client: Client, house: House) -> None:
    for _ in range(3):
        assert (await house.chat()).status_code == 200
    limit = {"scope": "account", "resource": "requests", "window": "month", "limit": 1_000}
    assert (await house.control("PUT", "/v1/account/limits", json=limit)).is_success
    info = await client("get_account_info")
    assert info == {"account_id": "1", "account_name": "Default"}
    plan = await client("get_account_plan", account_id=info["account_id"])
    assert (plan["plan"], plan["status"], plan["base"]) == ("default", "active", 1_000)
    usage = await client("get_account_usage", account_id=info["account_id"])
    assert usage["files"] == {"processed": 0, "total": None}
    for path in ("/accounts/1/usage", "/accounts/my/usage"):
        shown = await client("request", method="GET", endpoint=path)
        assert (shown["total_requests"], shown["rate_limit"]) == (3, 1_000)
        assert round(shown["estimated_cost"] * 1e9) == house.sold_nanos()
    dates = {"start_date": "2020-01-01", "end_date": "2020-01-28"}
    past = await client("request", method="GET", endpoint="/accounts/1/usage", params=dates)
    assert (past["total_requests"], past["estimated_cost"]) == (0, 0)
    bill = await client("request", method="GET", endpoint="/accounts/my/billing")
    assert round(bill["total_cost"] * 1e9) == house.sold_nanos()
    assert bill["breakdown"]["gateway_cost"] == bill["total_cost"]


async def test_metered_use_and_its_bill_are_those_of_our_own_api(
    client: Client, house: House
) -> None:
    await meters.price_all(house.server.database)
    await meters.price(house.server.database, product="lexa", per_unit={"documents": 7})
    reports = [
        {"id": "a", "product": "hippo", "quantities": {"documents": 3, "questions": 2}},
        {"id": "b", "product": "lexa", "quantities": {"documents": 4}},
        {"id": "c", "product": "storage", "quantities": {"storage_bytes": 1_000}},
        {"id": "a", "product": "hippo", "quantities": {"documents": 3, "questions": 2}},
    ]
    answer = await house.control("POST", "/v1/meter/events", json={"events": reports})
    assert (answer.json()["accepted"], answer.json()["duplicates"]) == (3, 1)
    usage = await client("request", method="GET", endpoint="/accounts/my/usage")
    assert (usage["documents_processed"], usage["questions_asked"]) == (7, 2)
    assert (usage["storage_bytes"], usage["total_requests"]) == (1_000, 3)
    assert (await client("get_account_usage", account_id="1"))["files"]["processed"] == 7
    hippo = 3 * meters.DOCUMENT + 2 * meters.QUESTION
    storage = 1_000 * meters.BYTE
    bill = await client("request", method="GET", endpoint="/accounts/my/billing")
    nanos = {name: round(cost * 1e9) for name, cost in bill["breakdown"].items()}
    assert nanos == {"hippo_cost": hippo, "lexa_cost": 28, "storage_cost": storage}
    balance = (await house.control("GET", "/v1/account/balance")).json()["balance"]
    spent = 40_000_000_000 - parse_usd(balance)
    assert spent == round(bill["total_cost"] * 1e9) == hippo + 28 + storage


async def test_users_are_listed_made_found_renamed_and_deleted(
    client: Client, house: House
) -> None:
    await add_viewer(house)
    me = await client("get_user_me")
    assert (me["email"], me["isadmin"], me["isbanned"]) == ("owner@example.com", True, False)
    assert (await client("update_user_me", name="Olga"))["updated"] is True
    assert (await client("get_user_me"))["name"] == "Olga"

    made = await client("create_user", email="new@example.com", name="New User")
    assert made == {"created": True, "status": "success"}
    everybody = await client("get_users")
    assert [each["name"] for each in everybody] == ["Olga", "Vera", "New User"]
    for user in everybody[1:]:
        user_id = user["user_id"]
        assert (await client("get_user_by_id", user_id=user_id))["email"] == user["email"]
        renamed = await client("update_user_by_id", user_id=user_id, name="Other")
        assert renamed == {"updated": True, "status": "success"}
        assert (await client("get_user_by_id", user_id=user_id))["name"] == "Other"
        gone = await client("delete_user_by_id", user_id=user_id, email=user["email"])
        assert gone == {"deleted": True, "status": "success"}
    assert [each["user_id"] for each in await client("get_users")] == [me["user_id"]]


async def test_what_is_not_there_or_makes_no_sense_is_refused(client: Client) -> None:
    by_id: list[tuple[str, dict[str, Any]]] = [
        ("get_account_plan", {"account_id": "2"}),
        ("get_account_usage", {"account_id": "nobody's"}),
        ("get_user_by_id", {"user_id": "99"}),
        ("update_user_by_id", {"user_id": "99", "name": "N"}),
        ("delete_user_by_id", {"user_id": "99", "email": "a@example.com"}),
    ]
    for name, arguments in by_id:
        error = await refused(client, name, **arguments)
        assert (error.kinds[0], error.status) == ("LexaError", 404), name
        assert "Resource not found" in error.message
    invalid: list[tuple[str, dict[str, Any]]] = [
        ("create_user", {"email": "nobody", "name": "N"}),
        ("create_user", {"email": "new@example.com", "name": ""}),
        ("update_user_me", {"name": "\u200b"}),
        ("delete_user_by_id", {"user_id": "1", "email": "other@example.com"}),
        ("delete_user_by_id", {"user_id": "1", "email": "owner@example.com"}),
    ]
    for name, arguments in invalid:
        error = await refused(client, name, **arguments)
        assert (error.kinds[0], error.status) == ("LexaValidationError", 400), name
    taken = await refused(client, "create_user", email="owner@example.com", name="N")
    assert (taken.status, taken.code) == (409, "already_member")


async def test_who_may_only_look_is_told_that_it_takes_an_admin(
    client: Client, house: House
) -> None:
    viewer = client.at(house.url, await add_viewer(house))
    assert len(await viewer("get_users")) == 2
    assert (await viewer("update_user_me", name="Vee"))["updated"] is True
    for name, arguments in (
        ("create_user", {"email": "a@example.com", "name": "N"}),
        ("update_user_by_id", {"user_id": "1", "name": "N"}),
        ("delete_user_by_id", {"user_id": "1", "email": "owner@example.com"}),
    ):
        error = await refused(viewer, name, **arguments)
        assert (error.kinds[0], error.cause) == ("InsufficientPermissionsError", "LexaAuthError")


async def test_a_wrong_key_a_wrong_kind_and_a_wrong_password_are_told_at_once(
    client: Client, house: House
) -> None:
    for key in ("bpk_nobody", house.installation.inference_key, "owner@example.com:wrong"):
        error = await refused(client.at(house.url, key), "start")
        assert (error.kinds[0], error.status) == ("LexaAuthError", 401)
        # What the documentation looks for.
        assert "authentication" in error.message.lower()


async def test_tokens_are_renewed_before_they_end_and_others_live_on(
    client: Client, house: House
) -> None:
    await client("start")
    before = await client("tokens")
    await client("age")
    assert (await client("get_account_info"))["account_id"] == "1"
    after = await client("tokens")
    assert before["refresh"] != after["refresh"]
    assert before["access"] != after["access"]
    answer = await client("refresh")
    assert answer["token_type"] == "Bearer"
    assert 60 < answer["expires_in"] <= 900

    ended = await client("revoke")
    assert ended["status"] == "success"
    assert "No access token" in (await refused(client, "get_account_info")).message
    await client("start")
    assert (await client("get_user_me"))["user_id"] == "1"


async def test_a_key_that_is_deleted_ends_the_client_that_has_its_tokens(
    client: Client, house: House
) -> None:
    viewer = client.at(house.url, await add_viewer(house))
    await viewer("get_user_me")
    user_id = (await client("get_users"))[1]["user_id"]
    await client("delete_user_by_id", user_id=user_id, email="vera@example.com")
    error = await refused(viewer, "get_user_me")
    assert (error.kinds[0], error.status) == ("LexaAuthError", 401)
    await viewer("age")
    assert (await refused(viewer, "get_user_me")).status == 401


async def test_too_many_tries_are_told_with_how_long_to_wait(client: Client, house: House) -> None:
    wrong = client.at(house.url, "owner@example.com:wrong")
    for _ in range(20):
        error = await refused(wrong, "start")
        if error.status == 429:
            break
        assert (error.kinds[0], error.status) == ("LexaAuthError", 401)
    assert (error.kinds[0], error.status) == ("LexaRateLimitError", 429)
    # Read from the body: headers are not passed on by this client.
    assert error.retry_after is not None
    assert error.retry_after > 0


async def test_an_outage_is_tried_again_and_then_told_as_one(client: Client, house: House) -> None:
    asked = 0

    async def away() -> None:
        nonlocal asked
        asked += 1
        raise ConnectionRefusedError

    await client("start", retries=3)
    house.server.database.add_barrier(away)
    with pytest.raises(Raised) as raised:
        await client("get_account_usage", account_id="1", retries=3)
    error = raised.value
    # The blocking one tries thrice more by itself, and has no status left to tell of then.
    blocking, awaited = (4, "LexaError", None), (1, "LexaServerError", 503)
    assert (asked, error.kinds[0], error.status) == (blocking if client.name == SYNC else awaited)


async def test_the_client_runs_against_the_server_that_people_run(
    installed_server: LiveServer, made: Any, cerevox_processes: Start
) -> None:
    server, secrets = installed_server, made.secrets
    for key in (secrets.provisioning_key, f"{secrets.email}:{secrets.password}"):
        for name in (SYNC, ASYNC):
            client = cerevox_processes(name).at(server.url, key)
            assert (await client("get_user_me"))["email"] == secrets.email
            assert (await client("get_account_info"))["account_id"] == "1"
    assert (await server.chat()).status_code == 200
    client = cerevox_processes(SYNC).at(server.url, secrets.provisioning_key)
    usage = await client("request", method="GET", endpoint="/accounts/my/usage")
    assert usage["total_requests"] == 1
    made_user = await client("create_user", email="dev1@company.com", name="Dev")
    assert made_user["created"] is True
    await asyncio.to_thread(made.verify)
