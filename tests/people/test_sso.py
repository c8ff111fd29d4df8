"""Single sign-on: a service's word counts once, for whom it may speak, and as its groups say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pyotp
import pytest

from bursar.adapters.oidc import Client, Service
from bursar.core.people.roles import Role
from bursar.service.sso.ports import Grant, Provider
from bursar.store.people import members
from bursar.store.tenants import users
from tests.audit import logs
from tests.databases import Clock
from tests.people.devices import Device
from tests.people.house import PASSWORD, URL, House, code_of
from tests.people.services import CLIENT_ID, SECRET, SignInService, new_key, serving, sign

EMAIL = "ann@acme.example"
BACK = "https://bursar.example.test/back"
REFUSED = (401, "sso_refused")
NO_ACCESS = (403, "sso_no_access")
ANN = {"sub": "ann-1", "email": EMAIL, "email_verified": True, "name": "Ann", "groups": ["devs"]}


@pytest.fixture
def service(clock: Clock) -> Iterator[SignInService]:
    """A service that says who Ann is."""
    with serving(SignInService(lambda: clock.now_ms / 1_000, claims=dict(ANN))) as running:
        yield running


@pytest.fixture
def trust(house: House, service: SignInService) -> Callable[..., None]:
    """Have the house trust the service, as the operator sets it up; again with other terms."""

    def set_up(**terms: Any) -> None:
        secret = terms.pop("secret", SECRET)
        client = Client(
            issuer=service.issuer, client_id=CLIENT_ID, client_secret=secret, is_internal=True
        )
        given = {
            "domains": frozenset(("acme.example",)),
            "redirect_urls": frozenset((BACK,)),
            "grants": (Grant(1, "devs", Role.MEMBER), Grant(1, "chiefs", Role.ADMIN)),
            "creates_people": True,
            **terms,
        }
        provider = Provider(
            name="acme", title="Acme", issuer=service.issuer, service=Service(client), **given
        )
        house.trust(provider)

    set_up()
    return set_up


async def start(house: House, redirect_uri: str = BACK) -> dict[str, Any]:
    """Begin to sign in at the service."""
    body = {"provider": "acme", "redirect_uri": redirect_uri}
    began = await house.call("POST", "/v1/auth/sso/start", body)
    assert began.status_code == 200, began.text
    found: dict[str, Any] = began.json()
    return found


async def finish(house: House, flow: dict[str, Any], back: dict[str, Any], **more: Any) -> Any:
    """Come back from the service."""
    body = {"flow_token": flow["flow_token"], **back, **more}
    return await house.call("POST", "/v1/auth/sso/finish", body)


async def enter(house: House, service: SignInService, **more: Any) -> Any:
    """Sign in at the service and come back."""
    flow = await start(house)
    return await finish(house, flow, service.visit(flow["authorization_url"]), **more)


async def role_of(house: House, email: str = EMAIL, account_id: int = 1) -> str | None:
    """What somebody is in the account."""
    async with house.database.read() as tx:
        row = await members.find_by_email(tx, account_id=account_id, email=email)
    return None if row is None else row.role


async def test_whoever_the_service_knows_by_a_group_is_made_and_let_in(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    listed = await house.call("GET", "/v1/auth/sso")
    assert listed.json() == {"providers": [{"name": "acme", "title": "Acme"}]}
    entered = await enter(house, service)
    assert entered.status_code == 200, entered.text
    token = entered.json()["access_token"]
    me = (await house.call("GET", "/v1/account/users/me", token=token)).json()
    assert (me["email"], me["name"], me["role"]) == (EMAIL, "Ann", "member")
    own = (await house.call("GET", "/v1/auth/sso/identities", token=token)).json()
    assert [each["provider"] for each in own["identities"]] == ["acme"]
    for guess in ("", "nobody has this password"):
        assert code_of(await house.try_in(EMAIL, guess)) == (401, "invalid_credentials")


async def test_the_same_person_comes_back_whatever_their_address_is_now(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    first = (await enter(house, service)).json()
    service.claims |= {"email": "married@elsewhere.example", "email_verified": False}
    again = (await enter(house, service)).json()
    assert again["user_id"] == first["user_id"]
    service.claims |= ANN | {"sub": "ann-2"}
    # The address is in use, by the person whom the service called by another name: the same one.
    assert (await enter(house, service)).json()["user_id"] == first["user_id"]


async def test_a_service_speaks_for_no_address_that_it_has_not_verified_or_is_not_its(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    await house.add("owner@example.test", "owner")
    await house.add(EMAIL)
    for claims in (
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "true"},
        {"email_verified": 1},
        {"email": None},
        {"email": "owner@example.test"},
        {"email": "ann@acme.example.evil.example"},
        {"email": "ann@evil.example@acme.example"},
        {"email": "ann@ACME.example\n"},
        {"email": ["ann@acme.example"]},
    ):
        service.claims = {**ANN, **claims}
        assert code_of(await enter(house, service)) == NO_ACCESS, claims
    assert await role_of(house, "owner@example.test") == "owner"


async def test_a_person_of_the_services_domain_is_linked_and_nobody_is_made_unasked(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    trust(creates_people=False)
    assert code_of(await enter(house, service)) == NO_ACCESS
    user_id = await house.add(EMAIL, "viewer")
    entered = await enter(house, service)
    assert entered.json()["user_id"] == user_id
    assert entered.json()["role"] == "member"
    assert (await house.try_in(EMAIL)).status_code == 200
    trust(domains=frozenset(), grants=())
    # By now the two know each other; the domain does not matter any more.
    assert (await enter(house, service)).json()["user_id"] == user_id


async def test_several_windows_that_come_back_at_once_make_one_person(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    found = await asyncio.gather(*(enter(house, service) for _ in range(4)))
    assert [each.status_code for each in found] == [200] * 4
    assert len({each.json()["user_id"] for each in found}) == 1


async def test_groups_make_roles_at_each_sign_in_and_none_ends_what_they_gave(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    token = (await enter(house, service)).json()["access_token"]
    service.claims["groups"] = ["chiefs", "devs"]
    assert (await enter(house, service)).json()["role"] == "admin"
    service.claims["groups"] = "devs"
    assert (await enter(house, service)).json()["role"] == "member"
    for groups in (["DEVS", "dev", "devs "], [], None, {"devs": 1}, [["devs"]]):
        service.claims["groups"] = groups
        assert code_of(await enter(house, service)) == NO_ACCESS
        assert await role_of(house) is None
        ended = await house.call("GET", "/v1/account", token=token)
        assert code_of(ended) == (401, "invalid_token")


async def test_what_people_gave_is_not_the_services_to_take_and_an_owner_stays_one(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    await house.add(EMAIL, "owner")
    assert (await enter(house, service)).json()["role"] == "owner"
    service.claims["groups"] = []
    assert (await enter(house, service)).json()["role"] == "owner"
    service.claims |= {"sub": "bob", "email": "bob@acme.example"}
    await house.add("bob@acme.example", "viewer")
    assert (await enter(house, service)).json()["role"] == "viewer"


async def test_the_last_owner_stays_whatever_the_service_says(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    async with house.database.write() as tx:
        for row in await members.list_members(tx, account_id=1, after_id=0, limit=9):
            await members.update_member(tx, account_id=1, user_id=row.user_id, role="viewer")
    trust(grants=(Grant(1, "devs", Role.OWNER), Grant(1, "others", Role.MEMBER)))
    assert (await enter(house, service)).json()["role"] == "owner"
    for groups in (["others"], []):
        service.claims["groups"] = groups
        assert (await enter(house, service)).json()["role"] == "owner"
    await house.add("second@example.test", "owner")
    service.claims["groups"] = ["others"]
    assert (await enter(house, service)).json()["role"] == "member"


async def test_a_membership_that_was_disabled_stays_so(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    user_id = (await enter(house, service)).json()["user_id"]
    async with house.database.write() as tx:
        await members.update_member(tx, account_id=1, user_id=user_id, is_enabled=False)
    assert code_of(await enter(house, service)) == NO_ACCESS
    async with house.database.write() as tx:
        await members.update_member(tx, account_id=1, user_id=user_id, is_enabled=True)
        await members.set_user_enabled(tx, user_id=user_id, is_enabled=False)
    assert code_of(await enter(house, service)) == NO_ACCESS


async def test_a_second_factor_is_asked_for_and_the_same_return_is_sent_with_it(
    house: House, service: SignInService, trust: Callable[..., None], clock: Clock
) -> None:
    await house.add(EMAIL)
    token = await house.token(EMAIL)
    made = await house.call("POST", "/v1/auth/second-factor", {"password": PASSWORD}, token=token)
    phone = pyotp.TOTP(made.json()["secret"])
    body = {"code": phone.at(clock.now_ms // 1_000)}
    await house.call("POST", "/v1/auth/second-factor/confirm", body, token=token)
    flow = await start(house)
    back = service.visit(flow["authorization_url"])
    required = (401, "second_factor_required")
    assert code_of(await finish(house, flow, back)) == required
    wrong = await finish(house, flow, back, second_factor_code="000000")
    assert code_of(wrong) == (401, "invalid_code")
    clock.advance(30_000)
    code = phone.at(clock.now_ms // 1_000)
    assert (await finish(house, flow, back, second_factor_code=code)).status_code == 200
    assert code_of(await finish(house, flow, back, second_factor_code=code)) == REFUSED
    trust(counts_as_two=True)
    assert (await enter(house, service)).status_code == 200


async def test_what_came_back_counts_once_and_only_for_the_flow_that_it_belongs_to(
    house: House, service: SignInService, trust: Callable[..., None], clock: Clock
) -> None:
    flow, other = await start(house), await start(house)
    back = service.visit(flow["authorization_url"])
    assert code_of(await finish(house, other, back)) == REFUSED
    for state in ("", "0" * 64, "\u0661" * 64, flow["flow_token"]):
        assert code_of(await finish(house, flow, back, state=state)) == REFUSED
    for token in ("", "bft_", "bft_" + "0" * 64, back["state"]):
        assert code_of(await finish(house, {"flow_token": token}, back)) == REFUSED
    found = await asyncio.gather(*(finish(house, flow, back) for _ in range(3)))
    assert sorted(each.status_code for each in found) == [200, 401, 401]
    mixed = service.visit((await start(house))["authorization_url"])
    assert code_of(await finish(house, other, {**mixed, "state": _state(other)})) == REFUSED
    late = await start(house)
    clock.advance(10 * 60_000)
    assert code_of(await finish(house, late, service.visit(late["authorization_url"]))) == REFUSED


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_browsers_are_sent_back_where_the_operator_says_or_to_their_own_machine(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    for good in (BACK, "http://127.0.0.1:51234/callback", "http://[::1]:8/"):
        assert (await start(house, good))["authorization_url"]
    for bad in (
        *("", "/back", "//evil.example", f"{BACK}/", f"{BACK}?next=x", BACK.upper()),
        *("https://evil.example/back", "http://localhost:8/", "http://127.0.0.1/", "javascript:x"),
        *("http://127.0.0.1:8@evil.example/", "http://evil.example#@127.0.0.1:8/"),
        *("http://127.0.0.1:8\\@evil.example/", "http://127.0.0.1:8/#x", "http://127.1:8/"),
        *("https://127.0.0.1:8/", "http://127.0.0.1.evil.example:8/", "http://127.0.0.1:0/"),
        *("http://127.0.0.1:8/\r\nx", "http://127.0.0.1:٨/", "http://127.0.0.1:99999/"),
    ):
        body = {"provider": "acme", "redirect_uri": bad}
        refused = await house.call("POST", "/v1/auth/sso/start", body)
        assert code_of(refused) == (422, "redirect_not_allowed"), bad
    body = {"provider": "other", "redirect_uri": BACK}
    refused = await house.call("POST", "/v1/auth/sso/start", body)
    assert code_of(refused) == (422, "unknown_sso_provider")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_service_of_which_several_are_told_apart_says_who_it_is(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    service.metadata["authorization_response_iss_parameter_supported"] = True
    assert code_of(await enter(house, service)) == REFUSED
    assert code_of(await enter(house, service, iss="https://evil.example")) == REFUSED
    assert (await enter(house, service, iss=service.issuer)).status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_claims_that_the_token_lacks_are_asked_for_of_the_same_person_alone(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    service.claims = {"sub": "ann-1"}
    service.userinfo = dict(ANN)
    assert (await enter(house, service)).json()["role"] == "member"
    service.userinfo = {**ANN, "sub": "bob"}
    assert code_of(await enter(house, service)) == REFUSED


async def test_somebody_signed_in_links_a_service_and_takes_it_back(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    trust(domains=frozenset(), grants=())
    user_id = await house.add("ann@elsewhere.example")
    await house.add("eve@elsewhere.example")
    token = await house.token("ann@elsewhere.example")
    eve = await house.token("eve@elsewhere.example")
    assert code_of(await enter(house, service)) == NO_ACCESS
    path = "/v1/auth/sso/identities"
    body = {"provider": "acme", "redirect_uri": BACK}
    refused = await house.call("POST", f"{path}/start", body, token=token)
    assert code_of(refused) == (401, "invalid_credentials")
    body["password"] = PASSWORD

    async def come_back(owner: str, who: str) -> Any:
        flow = (await house.call("POST", f"{path}/start", body, token=owner)).json()
        back = service.visit(flow["authorization_url"])
        sent = {"flow_token": flow["flow_token"], **back}
        return await house.call("POST", path, sent, token=who)

    assert code_of(await come_back(token, eve)) == REFUSED
    linked = await come_back(token, token)
    assert linked.status_code == 201, linked.text
    assert code_of(await come_back(eve, eve)) == (409, "identity_taken")
    assert (await enter(house, service)).json()["user_id"] == user_id
    one = f"{path}/{linked.json()['id']}/remove"
    assert code_of(await house.call("POST", one, {"password": PASSWORD}, token=eve)) == (
        404,
        "not_found",
    )
    done = await house.call("POST", one, {"password": PASSWORD}, token=token)
    assert done.status_code == 204
    assert code_of(await enter(house, service)) == NO_ACCESS


async def test_somebody_without_a_password_proves_themselves_by_a_fresh_sign_in(
    house: House, service: SignInService, trust: Callable[..., None], clock: Clock
) -> None:
    token = (await enter(house, service)).json()["access_token"]
    own = (await house.call("GET", "/v1/auth/sso/identities", token=token)).json()
    one = f"/v1/auth/sso/identities/{own['identities'][0]['id']}/remove"
    assert code_of(await house.call("POST", one, {}, token=token)) == (409, "last_way_in")
    options = (await house.call("POST", "/v1/auth/passkeys/options", {}, token=token)).json()
    credential = Device(URL).make(options["options"])
    body = {"name": "Mine", "credential": credential}
    made = await house.call("POST", "/v1/auth/passkeys", body, token=token)
    assert made.status_code == 201, made.text
    clock.advance(10 * 60_000 + 1)
    again = {"code": made.json()["recovery_codes"][0]}
    late = await house.call("POST", one, again, token=token)
    assert code_of(late) == (403, "sign_in_again")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_services_new_keys_are_asked_for_and_a_made_up_one_asks_little(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    assert (await enter(house, service)).status_code == 200
    asked = service.asked.count("/jwks")
    forged = new_key("forged")
    service.make_token = lambda claims: sign(claims, forged)
    for _ in range(5):
        assert code_of(await enter(house, service)) == REFUSED
    assert service.asked.count("/jwks") - asked <= 1
    assert service.asked.count("/.well-known/openid-configuration") == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_service_that_is_away_is_said_to_be_and_left_alone_for_a_moment(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    service.is_down = True
    for _ in range(3):
        body = {"provider": "acme", "redirect_uri": BACK}
        refused = await house.call("POST", "/v1/auth/sso/start", body)
        assert code_of(refused) == (503, "provider_unavailable")
        assert refused.headers["retry-after"] == "5"
    assert len(service.asked) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_two_accounts_have_their_own_roles_of_one_service(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    async with house.database.write() as tx:
        other = await _other_account(tx)
        await users.insert_member(tx, account_id=other, user_id=1, role="owner")
    grants = (Grant(1, "devs", Role.VIEWER), Grant(other, "devs", Role.ADMIN))
    trust(grants=(*grants, Grant(999, "devs", Role.OWNER)))
    assert (await enter(house, service)).json()["role"] == "viewer"
    entered = (await enter(house, service, account_id=other)).json()
    assert (entered["account_id"], entered["role"]) == (other, "admin")
    trust(grants=grants[:1])
    assert await role_of(house, account_id=other) == "admin"


async def _other_account(tx: Any) -> int:
    from bursar.service import accounts

    made = await accounts.create(tx, name="Other", time_zone="UTC", credit_nanos=0, actor="system")
    return made.row.id


def _state(flow: dict[str, Any]) -> str:
    found = flow["authorization_url"].partition("state=")[2]
    return str(found.partition("&")[0])


async def test_whoever_guesses_codes_elsewhere_does_not_keep_the_victim_out_of_single_sign_on(
    house: House, service: SignInService, trust: Callable[..., None], clock: Clock
) -> None:
    await house.add(EMAIL)
    token = await house.token(EMAIL)
    factor = "/v1/auth/second-factor"
    begun = (await house.call("POST", factor, {"password": PASSWORD}, token=token)).json()
    phone = pyotp.TOTP(begun["secret"])
    body = {"code": phone.at(clock.now_ms // 1_000)}
    assert (await house.call("POST", f"{factor}/confirm", body, token=token)).status_code == 200
    clock.advance(30_000)
    for number in range(21):
        house.address = f"198.51.100.{number}"
        found = await house.try_in(EMAIL, code="000000")
    assert code_of(found) == (429, "too_many_attempts")
    code = phone.at(clock.now_ms // 1_000)
    refused = await enter(house, service, second_factor_code=code)
    assert code_of(refused) == (429, "too_many_attempts")
    house.address = "192.0.2.1"
    assert (await enter(house, service, second_factor_code=code)).status_code == 200


async def test_somebody_without_a_password_enrols_a_phone_after_a_fresh_sign_in(
    house: House, service: SignInService, trust: Callable[..., None], clock: Clock
) -> None:
    token = (await enter(house, service)).json()["access_token"]
    factor = "/v1/auth/second-factor"
    clock.advance(10 * 60_000 + 1)
    late = await house.call("POST", factor, {}, token=token)
    assert code_of(late) == (403, "sign_in_again")
    token = (await enter(house, service)).json()["access_token"]
    begun = await house.call("POST", factor, {}, token=token)
    assert begun.status_code == 201, begun.text
    phone = pyotp.TOTP(begun.json()["secret"])
    body = {"code": phone.at(clock.now_ms // 1_000)}
    done = await house.call("POST", f"{factor}/confirm", body, token=token)
    codes = done.json()["recovery_codes"]
    renewed = await house.call("POST", f"{factor}/recovery-codes", {"code": codes[0]}, token=token)
    code = renewed.json()["recovery_codes"][0]
    removed = await house.call("POST", f"{factor}/remove", {"code": code}, token=token)
    assert removed.status_code == 204


async def test_the_last_owner_who_can_sign_in_stays_one_whatever_a_service_says(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    trust(grants=(Grant(1, "devs", Role.OWNER), Grant(1, "others", Role.MEMBER)))
    assert (await enter(house, service)).json()["role"] == "owner"
    async with house.database.write() as tx:
        await members.set_user_enabled(tx, user_id=1, is_enabled=False)
    service.claims["groups"] = ["others"]
    assert (await enter(house, service)).json()["role"] == "owner"


async def test_who_the_service_knows_and_nobody_lets_in_is_noted_where_they_belong(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    entered = (await enter(house, service)).json()
    (linked,) = await logs.read(house.database, "identity.link")
    assert (linked.account_id, linked.actor) == (0, "provider:acme")
    off = {"is_enabled": False}
    path = f"/v1/operator/users/{entered['user_id']}"
    assert (await house.api.call("PATCH", path, json=off, caller="operator")).status_code == 200
    assert code_of(await enter(house, service)) == NO_ACCESS
    service.claims |= {"sub": "bob-1", "email": "bob@acme.example", "groups": []}
    assert code_of(await enter(house, service)) == NO_ACCESS
    rows = await logs.read(house.database, "session.refuse")
    assert [(row.account_id, row.target, row.after["reason"]) for row in rows] == [
        (0, "user:unknown", "sso_no_access"),
        (1, f"user:{entered['user_id']}", "sso_no_access"),
    ]


async def test_a_link_is_noted_in_every_account_of_who_is_linked(
    house: House, service: SignInService, trust: Callable[..., None]
) -> None:
    other_id, _ = await house.api.open_account(name="B")
    user_id = await house.add(EMAIL)
    async with house.database.write() as tx:
        await users.insert_member(tx, account_id=other_id, user_id=user_id, role="viewer")
    token = (await enter(house, service)).json()["access_token"]
    rows = await logs.read(house.database, "identity.link")
    assert [(row.account_id, row.target) for row in rows] == [
        (1, f"user:{user_id}"),
        (other_id, f"user:{user_id}"),
    ]
    assert {row.actor for row in rows} == {"provider:acme"}
    assert (await house.call("GET", "/v1/account/audit", token=token)).status_code == 403
