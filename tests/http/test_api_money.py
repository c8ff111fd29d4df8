"""Balance, statement, limits and what operators do to them, over HTTP."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from bursar.store.database import Database
from bursar.store.limits import allowances
from bursar.store.plane import leases
from tests.databases import Clock
from tests.installations import JSON, NANOS, OPERATOR, Api, a_charge, lease, use

ACCOUNT = "/v1/operator/accounts/1"


async def pages(api: Api, path: str, name: str, **call: Any) -> list[list[Any]]:
    found: list[list[Any]] = []
    cursor = ""
    while True:
        page = await api.get(f"{path}{cursor}", **call)
        found.append(page[name])
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def test_the_balance_is_text_and_falls_by_what_is_used(api: Api, database: Database) -> None:
    assert await api.get("/v1/account/balance") == {"balance": "100.00"}
    await use(database, a_charge("a", 1), a_charge("b", 25 * NANOS))
    assert await api.get("/v1/account/balance") == {"balance": "74.999999999"}
    assert (await api.get("/v1/account"))["balance"] == "74.999999999"
    assert (await api.get(ACCOUNT, caller=OPERATOR))["balance"] == "74.999999999"


async def test_figures_wait_for_charges_on_their_way(api: Api, database: Database) -> None:
    is_settled = False
    path = ""

    async def settle() -> None:
        nonlocal is_settled
        if not is_settled:
            is_settled = True
            await use(database, a_charge(path, NANOS))

    for path in ("balance", "limits", "transactions", "usage/events", "activity?fresh=true"):
        is_settled = False
        database._barriers.clear()
        database.add_barrier(settle)
        before = await api.get(f"/v1/account/{path}")
        assert is_settled, path
        database._barriers.clear()
        after = await api.get(f"/v1/account/{path}")
        assert before == after, path


async def test_an_operator_opens_credits_and_stops_an_account(api: Api) -> None:
    account_id, key = await api.open_account(name="Acme", credit="10.00")
    path = f"/v1/operator/accounts/{account_id}"
    opened = {
        "id": account_id,
        "name": "Acme",
        "status": "active",
        "time_zone": "UTC",
        "created_at": "2026-11-21T12:34:56Z",
        "balance": "10.00",
        "plan_id": 1,
        "currency": "USD",
        "features": {},
    }
    assert await api.get(path, caller=OPERATOR) == opened
    assert await api.get("/v1/account", caller=key) == opened
    posted = await api.post(
        f"{path}/credit", {"amount": "0.50", "note": "Invoice 7"}, caller=OPERATOR
    )
    assert posted["balance"] == "10.50"
    assert posted["transaction"] == {
        "id": posted["transaction"]["id"],
        "at": "2026-11-21T12:34:56.789Z",
        "kind": "grant",
        "amount": "0.50",
        "note": "Invoice 7",
        "key_id": None,
        "model": None,
    }
    stopped = await api.post(f"{path}/suspend", {}, caller=OPERATOR)
    assert stopped["status"] == "suspended"
    response = await api.call("GET", "/v1/account", caller=key)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "account_suspended")
    assert (await api.post(f"{path}/resume", {}, caller=OPERATOR))["status"] == "active"
    assert (await api.get("/v1/account", caller=key))["balance"] == "10.50"


NO_MONEY: list[tuple[str, bytes, str]] = [
    *(
        ("credit", b'{"amount":%s}' % amount, "invalid_amount")
        for amount in (b'"0"', b'"-1"', b"10", b"10.5", b"true", b"null", b'"1e3"', b'" 1"')
    ),
    *(
        ("credit", b'{"amount":%s}' % amount, "invalid_amount")
        for amount in (b'"NaN"', b'"1_000"', b'"+1"', b'"\\uff11"', b'"9223372037"', b'""')
    ),
    ("credit", b'{"amount":"0.0000000001"}', "too_precise"),
    ("credit", b'{"amount":"9223372036"}', "balance_overflow"),
    ("credit", b'{"note":"x"}', "missing_field"),
    ("credit", b'{"amount":"1","note":"a\\u0000b"}', "invalid_characters"),
    ("credit", b'{"amount":"1","currency":"EUR"}', "unknown_field"),
    ("corrections", b'{"amount":"0","reason":"x"}', "invalid_amount"),
    ("corrections", b'{"amount":"-0","reason":"x"}', "invalid_amount"),
    ("corrections", b'{"amount":-5,"reason":"x"}', "invalid_amount"),
    ("corrections", b'{"amount":"-5"}', "missing_field"),
    ("corrections", b'{"amount":"-5","reason":" "}', "invalid_name"),
    ("corrections", b'{"amount":"-5","reason":5}', "invalid_value"),
]


async def test_money_that_cannot_be_moved_is_422_and_moves_nothing(api: Api) -> None:
    for route, body, code in NO_MONEY:
        response = await api.call(
            "POST", f"{ACCOUNT}/{route}", content=body, headers=JSON, caller=OPERATOR
        )
        assert (response.status_code, response.json()["error"]["code"]) == (422, code)
        assert await api.get("/v1/account/balance") == {"balance": "100.00"}
        assert len((await api.get("/v1/account/transactions"))["transactions"]) == 1


async def test_an_unknown_account_is_404_before_its_fields_are_read(api: Api) -> None:
    for number in ("9", "0", "x", "9223372036854775808"):
        for route in ("", "/credit", "/corrections", "/keys", "/suspend", "/resume"):
            response = await api.call(
                "POST" if route else "GET",
                f"/v1/operator/accounts/{number}{route}",
                content=b'{"bogus":1}' if route else None,
                headers=JSON,
                caller=OPERATOR,
            )
            assert response.status_code == 404, (number, route)


NO_ACCOUNTS: list[tuple[dict[str, object], str]] = [
    ({"name": ""}, "invalid_name"),
    ({"time_zone": "UTC"}, "missing_field"),
    ({"name": "x", "time_zone": "Mars/Olympus"}, "invalid_timezone"),
    ({"name": "x", "credit": "-1"}, "invalid_amount"),
    ({"name": "x", "credit": "0"}, "invalid_amount"),
    ({"name": "x", "credit": 10}, "invalid_amount"),
    ({"name": "x", "id": 5}, "unknown_field"),
    ({"name": "x", "status": "active"}, "unknown_field"),
    ({"name": "x", "balance": "5"}, "unknown_field"),
]


async def test_an_account_that_breaks_a_rule_is_not_opened(api: Api) -> None:
    for fields, code in NO_ACCOUNTS:
        response = await api.call("POST", "/v1/operator/accounts", json=fields, caller=OPERATOR)
        assert (response.status_code, response.json()["error"]["code"]) == (422, code)
        assert len((await api.get("/v1/operator/accounts", caller=OPERATOR))["accounts"]) == 1


async def test_accounts_are_paged(api: Api) -> None:
    for number in range(5):
        await api.open_account(name=f"Account {number}")
    path = "/v1/operator/accounts?limit=2"
    found = await pages(api, path, "accounts", caller=OPERATOR)
    assert [[account["id"] for account in page] for page in found] == [[1, 2], [3, 4], [5, 6]]


async def test_a_correction_waits_for_leases_and_then_says_that_they_are_in_its_way(
    api: Api, database: Database
) -> None:
    worker_id = await lease(database, allowances.wallet(1), 60 * NANOS)

    async def correct(amount: str) -> tuple[int, Any]:
        response = await api.call(
            "POST",
            f"{ACCOUNT}/corrections",
            json={"amount": amount, "reason": "Mistake"},
            caller=OPERATOR,
        )
        return response.status_code, response.json()

    waiting = asyncio.create_task(correct("-41.00"))
    await asyncio.sleep(0.25)
    async with database.write() as tx:
        returned = [(allowances.wallet(1), 0, 60 * NANOS)]
        await leases.give_back(tx, worker_id=worker_id, returns=returned)
    status, body = await waiting
    assert (status, body["balance"]) == (201, "59.00")
    status, body = await correct("-59.01")
    assert (status, body["error"]["code"]) == (409, "insufficient_credit")


async def test_limits_show_what_is_used_leased_and_left(api: Api, database: Database) -> None:
    await api.call("PATCH", "/v1/account/keys/3", json={"credit_limit": 5})
    await use(database, a_charge("a", NANOS))
    await lease(database, allowances.credit_limit(1, 3), 2 * NANOS)
    gone = await api.post("/v1/account/keys", {"name": "Gone"})
    await api.call("DELETE", f"/v1/account/keys/{gone['id']}")
    found = (await api.get("/v1/account/limits"))["limits"]
    figures = {
        limit["name"]: [limit[name] for name in ("limit", "used", "leased", "left", "resets_at")]
        for limit in found
    }
    assert figures == {
        "key:3/cost/lifetime": ["5.00", "1.00", "2.00", "4.00", None],
        "wallet/cost/lifetime": ["100.00", "1.00", "0.00", "99.00", None],
    }
    assert {limit["unit"] for limit in found} == {"usd"}


async def test_a_limit_in_a_new_window_is_shown_unused(
    api: Api, database: Database, clock: Clock
) -> None:
    ref = allowances.AllowanceRef(1, "key:3", "requests", "minute")
    start_ms = clock.now_ms - clock.now_ms % 60_000
    async with database.write() as tx:
        await allowances.insert_allowance(tx, ref=ref, limit=60)
    async with database.write() as tx:
        worker_id = await leases.workers.insert_worker(tx, host="test")
        want = leases.Want(ref, start_ms, 7, 7, 0)
        await leases.take(tx, worker_id=worker_id, wants=[want])

    async def show() -> list[Any]:
        limits = (await api.get("/v1/account/limits"))["limits"]
        limit = next(limit for limit in limits if limit["name"] == ref.name)
        return [limit[name] for name in ("unit", "limit", "used", "leased", "left", "resets_at")]

    assert await show() == ["requests", 60, 0, 7, 60, "2026-11-21T12:35:00Z"]
    clock.advance(60_000)
    assert await show() == ["requests", 60, 0, 0, 60, "2026-11-21T12:36:00Z"]


async def test_the_statement_is_paged_and_adds_up(
    api: Api, database: Database, clock: Clock
) -> None:
    await use(database, *(a_charge(f"e{n}", NANOS, at_ms=clock.now_ms + n) for n in range(5)))
    await api.post(f"{ACCOUNT}/credit", {"amount": "1.00"}, caller=OPERATOR)
    found = await pages(api, "/v1/account/transactions?limit=3", "transactions")
    assert [len(page) for page in found] == [3, 3, 1]
    lines = [line for page in found for line in page]
    assert [line["amount"] for line in lines] == [*["-1.00"] * 4, "1.00", "100.00", "-1.00"]
    usage = lines[0]
    assert (usage["kind"], usage["id"], usage["key_id"]) == ("usage", "e4", 3)
    assert usage["model"] == "gpt-4o-mini"
    assert await api.get("/v1/account/balance") == {"balance": "96.00"}


async def test_a_cursor_works_on_its_own_list_of_its_own_account_only(
    api: Api, database: Database, clock: Clock
) -> None:
    account_id, stranger = await api.open_account()
    await use(database, *(a_charge(f"e{n}", 1, at_ms=clock.now_ms + n) for n in range(3)))
    page = await api.get("/v1/account/transactions?limit=1")
    cursor = page["next_cursor"]
    text = base64.urlsafe_b64decode(cursor + "==").decode()
    forged = [
        text.replace("transactions 1", f"transactions {account_id}"),
        text.replace("transactions 1", "transactions 0"),
        text.replace("usage", "transfer"),
        text.replace("usage", "password"),
        text + "\n",
        text.replace("\n", "\r\n"),
        text[:-1] + "\x00",
    ]
    refused = [f"{cursor}=", cursor + "A", cursor.lower()]
    refused += [base64.urlsafe_b64encode(one.encode()).decode().rstrip("=") for one in forged]
    for bad in refused:
        response = await api.call("GET", f"/v1/account/transactions?cursor={bad}")
        assert response.json()["error"]["code"] == "invalid_cursor", bad
    for path, caller in (
        ("/v1/account/transactions", stranger),
        ("/v1/account/usage/events", "provisioning"),
        ("/v1/operator/accounts", OPERATOR),
    ):
        response = await api.call("GET", f"{path}?cursor={cursor}", caller=caller)
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_cursor")
