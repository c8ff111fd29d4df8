"""The Cerevox dialect in process: whose tokens are good for what, what is refused and how."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pyotp
import pytest

from bursar.core.errors import InvariantViolated
from bursar.core.secrets import KeyKind
from bursar.dialects.cerevox import errors, routes
from bursar.service import accounts, keys
from bursar.service.accounts import AccountChange
from bursar.service.keys import KeyChange
from bursar.service.keys import sessions as of_keys
from bursar.service.people import second_factors
from bursar.store.database import Database
from bursar.store.tenants import users
from tests.databases import START_MS, Clock
from tests.dialects import cerevox_stage
from tests.dialects.cerevox_stage import DAY_MS, EMAIL, OWNER, PERSON, VIEWER, Spoken, basic
from tests.installations import a_charge, use
from tests.people.house import PASSWORD
from tests.tidy.sources import ROOT

HOUR_MS = 3_600_000


@pytest.fixture
async def spoken(database: Database) -> AsyncIterator[Spoken]:
    """The dialect over an installation with a past."""
    async with cerevox_stage.speaking(database) as speaking:
        yield speaking


async def tokens(spoken: Spoken, secret: str | None = None) -> dict[str, Any]:
    """The tokens that a key, or an address and a password, are good for."""
    response = await spoken.log_in(secret)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def refusal(response: httpx2.Response) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return response.status_code, response.json()["error_type"]


async def other_account(spoken: Spoken) -> tuple[int, str]:
    """Another account, and a key of it that acts for nobody."""
    async with spoken.database.write() as tx:
        made = await accounts.create(
            tx, name="Other", time_zone="UTC", credit_nanos=0, actor="test"
        )
        key = await keys.create(
            tx,
            account_id=made.row.id,
            user_id=None,
            name="other",
            random_bytes=os.urandom,
            kind=KeyKind.PROVISIONING,
        )
    return made.row.id, key.secret


# ── Tokens ──────────────────────────────────────────────────────────────────────────────────────


async def test_an_address_and_a_password_are_taken_in_the_header_and_in_the_body(
    spoken: Spoken,
) -> None:
    in_body = await spoken.http.post("/v1/token/login", json={"email": EMAIL, "password": PASSWORD})
    for found in (in_body.json(), await tokens(spoken, spoken.secrets[PERSON])):
        assert (found["token_type"], found["expires_in"]) == ("Bearer", 900)
        assert found["expires_at"] == START_MS // 1_000 + 900 + 1
        assert (found["account_id"], found["user_id"]) == ("1", "2")
        me = await spoken.call("GET", "/users/me", secret=found["access_token"])
        assert me.json()["email"] == EMAIL


async def test_who_does_not_say_who_they_are_gets_no_tokens(spoken: Spoken) -> None:
    cases: list[tuple[dict[str, str], dict[str, Any], tuple[int, str]]] = [
        ({}, {}, (401, "missing_api_key")),
        ({}, {"login": True}, (401, "missing_api_key")),
        ({}, {"email": EMAIL}, (400, "missing_field")),
        ({}, {"email": EMAIL, "password": "wrong"}, (401, "invalid_credentials")),
        ({}, {"email": {"$ne": None}, "password": PASSWORD}, (400, "invalid_value")),
        ({}, {"email": EMAIL, "password": PASSWORD, "role": "owner"}, (400, "unknown_field")),
        (basic("bpk_nobody"), {"login": True}, (401, "invalid_api_key")),
        (basic(f"{EMAIL}:wrong"), {"login": True}, (401, "invalid_credentials")),
        (basic(f"{EMAIL}:{PASSWORD}"), {"email": EMAIL}, (400, "ambiguous_credentials")),
        ({"authorization": "Basic !"}, {"login": True}, (401, "invalid_api_key")),
        ({"authorization": "Basic"}, {"login": True}, (401, "missing_api_key")),
        ({"authorization": "Basic /w=="}, {"login": True}, (401, "invalid_api_key")),
        ({"authorization": "Bearer nonsense"}, {"login": True}, (401, "missing_api_key")),
    ]
    for headers, body, expected in cases:
        response = await spoken.http.post("/v1/token/login", json=body, headers=headers)
        assert refusal(response) == expected, (headers, body)
        if response.status_code == 401:
            assert response.json()["error"].startswith("Authentication failed: ")


async def test_a_second_factor_is_asked_for_and_sent_in_the_body(
    spoken: Spoken, clock: Clock
) -> None:
    async with spoken.database.write() as tx:
        begun = await second_factors.begin(tx, people=spoken.people, user_id=2, email=EMAIL)
        code = pyotp.TOTP(begun.secret).at(clock.now_ms // 1_000)
        await second_factors.confirm(tx, people=spoken.people, user_id=2, code=code)
    refused = await spoken.log_in(spoken.secrets[PERSON])
    assert refusal(refused) == (401, "second_factor_required")
    body = {"email": EMAIL, "password": PASSWORD}
    wrong = await spoken.http.post("/v1/token/login", json={**body, "code": code})
    assert refusal(wrong) == (401, "invalid_code")
    clock.advance(30_000)
    good = pyotp.TOTP(begun.secret).at(clock.now_ms // 1_000)
    signed_in = await spoken.http.post("/v1/token/login", json={**body, "code": good})
    assert signed_in.json()["user_id"] == "2"
    # A key has no hand that could hold a phone.
    assert (await spoken.log_in(spoken.secrets[VIEWER])).status_code == 200


async def test_too_many_tries_are_told_how_long_to_wait(spoken: Spoken) -> None:
    for _ in range(10):
        assert (await spoken.log_in(f"{EMAIL}:wrong")).status_code == 401
    refused = await spoken.log_in(spoken.secrets[PERSON])
    assert refusal(refused) == (429, "too_many_attempts")
    assert refused.json()["retry_after"] == int(refused.headers["retry-after"]) > 0


async def test_somebody_of_several_accounts_says_which(spoken: Spoken) -> None:
    account_id, _ = await other_account(spoken)
    async with spoken.database.write() as tx:
        await users.insert_member(tx, account_id=account_id, user_id=2, role="admin")
    body = {"email": EMAIL, "password": PASSWORD}
    for asked, expected in (({}, "1"), ({"account_id": str(account_id)}, str(account_id))):
        found = await spoken.http.post("/v1/token/login", json={**body, **asked})
        assert found.json()["account_id"] == expected
    for asked, expected_refusal in (
        ({"account_id": "999"}, (401, "invalid_credentials")),
        ({"account_id": "my"}, (400, "invalid_value")),
    ):
        refused = await spoken.http.post("/v1/token/login", json={**body, **asked})
        assert refusal(refused) == expected_refusal


async def test_only_a_provisioning_key_itself_is_traded_for_tokens(spoken: Spoken) -> None:
    assert refusal(await spoken.log_in(spoken.installation.inference_key)) == (
        401,
        "wrong_key_type",
    )
    assert refusal(await spoken.log_in(spoken.installation.operator_key)) == (
        401,
        "wrong_key_type",
    )
    access = (await tokens(spoken))["access_token"]
    assert refusal(await spoken.log_in(access)) == (401, "invalid_api_key")


async def test_a_keys_session_goes_on_with_that_key_alone(spoken: Spoken) -> None:
    key = spoken.secrets[OWNER]
    first = await tokens(spoken)
    assert refusal(await spoken.refresh(first["refresh_token"])) == (401, "invalid_refresh_token")
    other = spoken.secrets[VIEWER]
    refused = await spoken.refresh(first["refresh_token"], other)
    assert refusal(refused) == (401, "invalid_refresh_token")
    _, foreign = await other_account(spoken)
    refused = await spoken.refresh(first["refresh_token"], foreign)
    assert refusal(refused) == (401, "invalid_refresh_token")
    second = (await spoken.refresh(first["refresh_token"], key)).json()
    assert second["session_id"] == first["session_id"]
    assert second["refresh_token"] != first["refresh_token"]
    # A session of a person's is no key's.
    person = await tokens(spoken, spoken.secrets[PERSON])
    refused = await spoken.refresh(person["refresh_token"], key)
    assert refusal(refused) == (401, "invalid_refresh_token")
    assert (await spoken.refresh(person["refresh_token"])).status_code == 200


async def test_a_refresh_token_works_once_and_a_second_use_ends_that_session_alone(
    spoken: Spoken, clock: Clock
) -> None:
    key = spoken.secrets[OWNER]
    first, bystander = await tokens(spoken), await tokens(spoken)
    second = (await spoken.refresh(first["refresh_token"], key)).json()
    # Within the grace, whoever did not get the answer gets it again.
    again = (await spoken.refresh(first["refresh_token"], key)).json()
    assert again["refresh_token"] == second["refresh_token"]
    clock.advance(10_001)
    reused = await spoken.refresh(first["refresh_token"], key)
    assert refusal(reused) == (401, "refresh_reused")
    dead = await spoken.call("GET", "/accounts/my", secret=second["access_token"])
    assert refusal(dead) == (401, "invalid_token")
    alive = await spoken.call("GET", "/accounts/my", secret=bystander["access_token"])
    assert alive.status_code == 200


async def test_a_revoked_token_ends_its_own_session_alone(spoken: Spoken) -> None:
    for secret in (spoken.secrets[OWNER], spoken.secrets[PERSON]):
        one, other = await tokens(spoken, secret), await tokens(spoken, secret)
        ended = await spoken.call("POST", "/token/revoke", secret=one["access_token"])
        assert ended.json() == {"message": "The session has ended.", "status": "success"}
        gone = await spoken.call("POST", "/token/revoke", secret=one["access_token"])
        assert refusal(gone) == (401, "invalid_token")
        refused = await spoken.refresh(one["refresh_token"], secret)
        assert refusal(refused) == (401, "invalid_refresh_token")
        alive = await spoken.call("GET", "/users/me", secret=other["access_token"])
        assert alive.status_code == 200
    assert refusal(await spoken.call("POST", "/token/revoke")) == (400, "invalid_value")


async def test_tokens_end_with_their_time(spoken: Spoken, clock: Clock) -> None:
    found = await tokens(spoken)
    clock.advance(901_000)
    late = await spoken.call("GET", "/accounts/my", secret=found["access_token"])
    assert refusal(late) == (401, "invalid_token")
    following = await spoken.refresh(found["refresh_token"], spoken.secrets[OWNER])
    assert following.status_code == 200
    clock.advance(30 * DAY_MS)
    refused = await spoken.refresh(following.json()["refresh_token"], spoken.secrets[OWNER])
    assert refusal(refused) == (401, "invalid_refresh_token")


@pytest.mark.parametrize(
    "change",
    [
        KeyChange(is_enabled=False),
        KeyChange(expires_ms=START_MS + 1_000),
        KeyChange(networks=["198.51.100.0/24"]),
        None,
    ],
    ids=["disabled", "expired", "elsewhere", "deleted"],
)
async def test_what_stops_a_key_stops_its_tokens(
    spoken: Spoken, clock: Clock, change: KeyChange | None
) -> None:
    found = await tokens(spoken)
    kind = KeyKind.PROVISIONING
    async with spoken.database.write() as tx:
        if change is None:
            await keys.delete(tx, account_id=1, key_id=2, kind=kind)
        else:
            await keys.update(tx, account_id=1, key_id=2, change=change, kind=kind)
    clock.advance(2_000)
    stopped = await spoken.call("GET", "/accounts/my", secret=found["access_token"])
    assert stopped.status_code in {401, 403}
    refused = await spoken.refresh(found["refresh_token"], spoken.secrets[OWNER])
    assert refused.status_code in {401, 403}


async def test_a_secret_that_is_rotated_away_takes_its_tokens_with_it(
    spoken: Spoken, clock: Clock
) -> None:
    found = await tokens(spoken)
    async with spoken.database.write() as tx:
        made = await keys.rotate(
            tx,
            account_id=1,
            key_id=2,
            random_bytes=os.urandom,
            grace_s=60,
            kind=KeyKind.PROVISIONING,
        )
    clock.advance(1_000)
    during = await spoken.call("GET", "/accounts/my", secret=found["access_token"])
    assert during.status_code == 200
    fresh = await tokens(spoken, made.secret)
    clock.advance(60_000)
    after = await spoken.call("GET", "/accounts/my", secret=found["access_token"])
    assert refusal(after) == (401, "invalid_token")
    assert (await spoken.refresh(found["refresh_token"], spoken.secrets[OWNER])).is_error
    alive = await spoken.call("GET", "/accounts/my", secret=fresh["access_token"])
    assert alive.status_code == 200


async def test_a_suspended_account_and_a_lost_role_hold_for_tokens_at_once(spoken: Spoken) -> None:
    owner, viewer = await tokens(spoken), await tokens(spoken, spoken.secrets[VIEWER])
    gone = await spoken.call("DELETE", "/users/2", json={"email": EMAIL})
    assert gone.status_code == 200
    refused = await spoken.call("GET", "/users/me", secret=viewer["access_token"])
    assert refusal(refused) == (401, "invalid_token")
    async with spoken.database.write() as tx:
        await accounts.suspend(tx, account_id=1)
    refused = await spoken.call("GET", "/accounts/my", secret=owner["access_token"])
    assert refusal(refused) == (403, "account_suspended")


async def test_of_too_many_sessions_of_a_key_the_least_used_ends(
    spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_keys, "MOST_OPEN", 2)
    found = [await tokens(spoken) for _ in range(3)]
    alive = [
        (await spoken.call("GET", "/accounts/my", secret=each["access_token"])).is_success
        for each in found
    ]
    assert alive == [False, True, True]


async def test_a_keys_token_is_no_sign_in_of_a_person(spoken: Spoken) -> None:
    """It counts neither as one of their sessions nor as somebody's last use."""
    await tokens(spoken)
    me = (await spoken.call("GET", "/users/me")).json()
    assert me["lastlogin"] is None
    await tokens(spoken, spoken.secrets[PERSON])
    everybody = (await spoken.call("GET", "/users")).json()["users"]
    assert [each["lastlogin"] is None for each in everybody] == [True, False]


# ── The account ─────────────────────────────────────────────────────────────────────────────────


async def test_every_path_of_another_account_is_as_unknown_as_any(spoken: Spoken) -> None:
    account_id, foreign = await other_account(spoken)
    async with spoken.database.write() as tx:
        stranger = await users.insert_user(tx, email="x@example.com", name="X", password_hash="-")
        await users.insert_member(tx, account_id=account_id, user_id=stranger, role="owner")
    invited = await spoken.call(
        "POST", "/users", secret=foreign, json={"email": "y@example.com", "name": "Y"}
    )
    theirs = {"account_id": str(account_id), "user_id": invited.json()["user_id"]}
    unknown = {"account_id": "999", "user_id": "inv_999"}
    for route in routes.ROUTES:
        if "{" not in route.path:
            continue
        bodies = {"PUT": {"name": "N"}, "DELETE": {"email": "y@example.com"}}
        for ids, none in ((theirs, unknown), ({**theirs, "user_id": str(stranger)}, unknown)):
            there = await spoken.call(
                route.method, route.path.format(**ids), json=bodies.get(route.method)
            )
            nowhere = await spoken.call(
                route.method, route.path.format(**none), json=bodies.get(route.method)
            )
            assert (there.status_code, there.content) == (404, nowhere.content), route.path


async def test_use_is_that_of_days_of_the_accounts_own_calendar(
    spoken: Spoken, database: Database
) -> None:
    midnight_ms = START_MS - START_MS % DAY_MS
    # Auckland is 13 hours ahead: this is yesterday in UTC, and today there.
    await use(database, a_charge("early", 7, at_ms=midnight_ms - 2 * HOUR_MS))
    day, before = "2026-11-21", "2026-11-20"
    path = f"/accounts/my/usage?start_date={day}&end_date={day}"
    assert (await spoken.call("GET", path)).json()["total_requests"] == 3
    async with database.write() as tx:
        change = AccountChange(time_zone="Pacific/Auckland")
        await accounts.update(tx, account_id=1, change=change)
    ahead = "2026-11-22"
    for first, last, expected in ((day, day, 2), (ahead, ahead, 3), (before, ahead, 5)):
        path = f"/accounts/my/usage?start_date={first}&end_date={last}"
        assert (await spoken.call("GET", path)).json()["total_requests"] == expected, path


async def test_use_without_days_is_the_present_months(spoken: Spoken) -> None:
    whole = (await spoken.call("GET", "/accounts/1/usage")).json()
    said = await spoken.call("GET", "/accounts/1/usage?start_date=2026-11-01&end_date=2026-11-30")
    assert whole == said.json()
    assert (whole["documents_processed"], whole["questions_asked"]) == (5, 3)
    assert (whole["rate_limit"], whole["rate_limit_reset"]) == (100_000, "2026-12-01T00:00:00Z")
    assert b'"estimated_cost":125.500000013' in said.content
    october = (await spoken.call("GET", "/accounts/1/usage?end_date=2026-10-31")).json()
    assert (october["total_requests"], october["questions_asked"]) == (1, 9)
    since = (await spoken.call("GET", "/accounts/1/usage?start_date=2026-10-01")).json()
    assert since["questions_asked"] == 12


async def test_spans_that_make_no_sense_are_refused(spoken: Spoken) -> None:
    for query, code in (
        ("start_date=2026-11-02&end_date=2026-11-01", "invalid_range"),
        ("start_date=2020-01-01&end_date=2026-11-01", "invalid_range"),
        ("start_date=2026-02-30", "invalid_timestamp"),
        ("start_date=2026-1-1", "invalid_timestamp"),
        ("start_date=20260101", "invalid_timestamp"),
        ("start_date=%EF%BC%99999-01-01", "invalid_timestamp"),
        ("end_date=9999-12-31", "invalid_timestamp"),
        ("end_date=1969-12-31", "invalid_timestamp"),
        ("days=3", "unknown_field"),
        ("start_date=2026-11-01&start_date=2026-11-02", "duplicate_parameter"),
    ):
        response = await spoken.call("GET", f"/accounts/my/usage?{query}")
        assert refusal(response) == (400, code), query


async def test_the_bill_is_the_months_by_product_to_the_nano(spoken: Spoken) -> None:
    answer = await spoken.call("GET", "/accounts/my/billing")
    bill = answer.json()
    assert (bill["period_start"], bill["period_end"]) == ("2026-11-01", "2026-11-30")
    assert (bill["next_invoice_date"], bill["currency"]) == ("2026-12-01", "USD")
    assert b'"total_cost":125.500000013' in answer.content
    assert set(bill["breakdown"]) == {"hippo_cost", "lexa_cost", "storage_cost", "gateway_cost"}
    assert b'"lexa_cost":45.000000001' in answer.content
    assert bill["breakdown"]["storage_cost"] == 5.5
    _, foreign = await other_account(spoken)
    nothing = (await spoken.call("GET", "/accounts/my/billing", secret=foreign)).json()
    assert nothing["total_cost"] == 0
    assert set(nothing["breakdown"].values()) == {0}


async def test_without_limits_the_largest_number_is_the_limit(spoken: Spoken) -> None:
    _, foreign = await other_account(spoken)
    usage = (await spoken.call("GET", "/accounts/my/usage", secret=foreign)).json()
    plan = (await spoken.call("GET", "/accounts/my/plan", secret=foreign)).json()["plan"]
    assert usage["rate_limit"] == plan["base"] == plan["bytes"] == 2**53 - 1
    assert (plan["messages"], plan["message_rate"], plan["plan"]) == (None, None, "default")
    info = (await spoken.call("GET", "/accounts/my", secret=foreign)).json()
    assert (info["email"], info["account_name"]) == (None, "Other")
    async with spoken.database.write() as tx:
        change = AccountChange(features={"storage_bytes": 10**9})
        await accounts.update(tx, account_id=1, change=change)
    assert (await spoken.call("GET", "/accounts/1/plan")).json()["plan"]["bytes"] == 10**9
    usage = (await spoken.call("GET", "/accounts/1/usage")).json()
    assert usage["storage"] == {"used": 524_288_000, "total": 10**9}


# ── Users ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_new_user_is_invited_and_has_the_name_and_the_role_that_were_given(
    spoken: Spoken,
) -> None:
    body = {"email": "New@Example.com", "name": "New User", "role": "admin"}
    made = (await spoken.call("POST", "/users", json=body)).json()
    assert (made["created"], made["status"], made["email"]) == (True, "success", "new@example.com")
    assert (made["role"], made["isadmin"]) == ("admin", True)
    assert [letter.to for letter in spoken.letters] == ["new@example.com"]
    listed = (await spoken.call("GET", "/users")).json()["users"]
    assert [each["status"] for each in listed] == ["active", "active", "pending"]
    again = (await spoken.call("POST", "/users", json={**body, "role": "member"})).json()
    assert again["user_id"] != made["user_id"]
    gone = await spoken.call("GET", f"/users/{made['user_id']}")
    assert refusal(gone) == (404, "not_found")


async def test_what_an_account_calls_somebody_is_its_own_affair_until_they_speak(
    spoken: Spoken,
) -> None:
    account_id, foreign = await other_account(spoken)
    async with spoken.database.write() as tx:
        await users.insert_member(tx, account_id=account_id, user_id=2, role="member")

    async def names() -> list[str]:
        answers = [await spoken.call("GET", "/users/2", secret=s) for s in (None, foreign)]
        return [answer.json()["name"] for answer in answers]

    assert (await spoken.call("PUT", "/users/2", json={"name": "Sales"})).json()["updated"] is True
    assert await names() == ["Sales", "Vera Viewer"]
    person = (await tokens(spoken, spoken.secrets[PERSON]))["access_token"]
    await spoken.call("PUT", "/users/me", secret=person, json={"name": "Vera"})
    assert await names() == ["Vera", "Vera"]


async def test_what_makes_no_sense_is_refused(spoken: Spoken) -> None:
    cases: list[tuple[str, str, dict[str, Any] | None, tuple[int, str]]] = [
        ("POST", "/users", {"email": "a@example.com", "role": "king"}, (400, "invalid_value")),
        ("POST", "/users", {"email": "a@example.com", "isadmin": True}, (400, "unknown_field")),
        ("POST", "/users", {"name": "N"}, (400, "missing_field")),
        ("POST", "/users", {"email": "a@example.com", "name": "\u200b"}, (400, "invalid_name")),
        ("PUT", "/users/2", {"name": "x" * 256}, (400, "name_too_long")),
        ("PUT", "/users/1", {"role": "member"}, (409, "last_owner")),
        ("PUT", "/users/2", {"balance": 5}, (400, "unknown_field")),
        ("DELETE", "/users/2", {}, (400, "missing_field")),
        ("DELETE", "/users/2", {"email": "b@example.com"}, (400, "invalid_value")),
        ("GET", "/users/02", None, (404, "not_found")),
        ("GET", "/users/inv_", None, (404, "not_found")),
        ("GET", "/users/-1", None, (404, "not_found")),
        ("GET", "/nothing", None, (404, "not_found")),
        ("PATCH", "/users/2", {"name": "N"}, (405, "method_not_allowed")),
        ("GET", "/token/login", None, (405, "method_not_allowed")),
    ]
    for method, path, body, expected in cases:
        response = await spoken.call(method, path, json=body)
        assert refusal(response) == expected, (method, path, body)
        assert response.headers["x-request-id"].startswith("req_")
        assert isinstance(response.json()["error"], str)


async def test_a_body_that_is_no_json_is_refused(spoken: Spoken) -> None:
    for content, kind, expected in (
        (b"{", "application/json", (400, "invalid_json")),
        (b'{"email": 1, "email": 2}', "application/json", (400, "duplicate_key")),
        (b"email=a", "application/x-www-form-urlencoded", (415, "unsupported_media_type")),
        (b"[" * 70_000, "application/json", (413, "body_too_large")),
    ):
        response = await spoken.call(
            "POST", "/users", content=content, headers={"content-type": kind}
        )
        assert refusal(response) == expected


async def test_the_same_creation_is_sent_twice_and_done_once(spoken: Spoken) -> None:
    found = await tokens(spoken)
    options: dict[str, Any] = {
        "json": {"email": "new@example.com", "name": "New"},
        "headers": {"idempotency-key": "once"},
    }
    first = await spoken.call("POST", "/users", secret=found["access_token"], **options)
    # The answer outlives the token under which it was given.
    fresh = (await spoken.refresh(found["refresh_token"], spoken.secrets[OWNER])).json()
    second = await spoken.call("POST", "/users", secret=fresh["access_token"], **options)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.content == first.content
    assert len(spoken.letters) == 1


async def test_every_role_may_do_what_its_own_api_lets_it_do(spoken: Spoken) -> None:
    viewer = spoken.secrets[VIEWER]
    for path in ("/accounts/my", "/accounts/1/usage", "/accounts/1/billing", "/users", "/users/1"):
        assert (await spoken.call("GET", path, secret=viewer)).status_code == 200
    renamed = await spoken.call("PUT", "/users/me", secret=viewer, json={"name": "Vee"})
    assert renamed.status_code == 200
    for method, path, body in (
        ("POST", "/users", {"email": "a@example.com"}),
        ("PUT", "/users/2", {"role": "owner"}),
        ("DELETE", "/users/1", {"email": "admin@localhost"}),
    ):
        refused = await spoken.call(method, path, secret=viewer, json=body)
        assert refusal(refused) == (403, "insufficient_role")
    inference = await spoken.call("GET", "/accounts/my", secret=spoken.installation.inference_key)
    assert refusal(inference) == (401, "wrong_key_type")


async def test_who_is_invited_is_shown_to_those_who_may_invite_alone(spoken: Spoken) -> None:
    made = (await spoken.call("POST", "/users", json={"email": "new@example.com"})).json()
    path = f"/users/{made['user_id']}"
    assert (await spoken.call("GET", path)).json()["status"] == "pending"
    viewer = spoken.secrets[VIEWER]
    listed = (await spoken.call("GET", "/users", secret=viewer)).json()["users"]
    assert {each["status"] for each in listed} == {"active"}
    answers = [
        await spoken.call("GET", each, secret=viewer)
        for each in (path, "/users/inv_99", "/users/99")
    ]
    assert {refusal(each) for each in answers} == {(404, "not_found")}
    assert len({each.content for each in answers}) == 1


# ── Words ───────────────────────────────────────────────────────────────────────────────────────


def test_no_words_of_ours_make_the_client_think_of_files() -> None:
    """It takes "unsupported" in any text for a bad file, whatever the status."""
    for path in (ROOT / "src" / "bursar").rglob("*.py"):
        if path.relative_to(ROOT / "src" / "bursar").parts[0] in {"core", "edge", "service"}:
            said = re.findall(r'"([^"\n]*unsupported[^"\n]*)"', path.read_text("utf-8"), re.I)
            assert [each for each in said if " " in each] == [], path


def test_an_accident_says_nothing_of_what_broke() -> None:
    broken, away = errors.excuse(is_outage=False), errors.excuse(is_outage=True)
    assert (broken[0], away[0]) == (500, 503)
    hidden = InvariantViolated("invariant_violated", "row 5 of wallets is wrong")
    assert errors.encode(errors.status_of(hidden), hidden) == broken[1]
