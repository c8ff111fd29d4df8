"""Every route that changes something leaves a row that says who changed it, whatever face it has.

The steps below are one story on one installation. They are held against the registries, so that a
new route has to have a step, or a reason to have none.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx2
import pyotp

from bursar.adapters.oidc import Client, Service
from bursar.api import app
from bursar.api.routes import ROUTES
from bursar.dialects.cerevox import app as cerevox
from bursar.dialects.cerevox import routes as cerevox_routes
from bursar.dialects.venice import app as venice
from bursar.dialects.venice import routes as venice_routes
from bursar.edge.calls import Plane, make_plane
from bursar.service.people.ports import People
from bursar.service.sso.ports import Provider
from tests.audit import logs
from tests.databases import Clock
from tests.people.devices import Device
from tests.people.house import PASSWORD, URL, House
from tests.people.services import CLIENT_ID, SECRET, SignInService, serving

NEW_PASSWORD = "another correct horse battery"
# What changes nothing that a log would be for, and why.
WITHOUT_A_ROW = {
    "POST /v1/auth/refresh": "goes on with a session that was noted when it began",
    "POST /v1/token/refresh": "goes on with a session that was noted when it began",
    "POST /v1/auth/passkeys/challenge": "asks for a passkey; what is answered is noted",
    "POST /v1/auth/passkeys/options": "asks for a passkey; what is answered is noted",
    "POST /v1/account/explain": "changes nothing",
    "POST /v1/auth/introspect": "changes nothing",
    "POST /v1/operator/introspect": "changes nothing",
    "POST /v1/meter/events": "its usage rows are never changed, and say by themselves what it was",
    "POST /v1/auth/sso/start": "asks a sign-in service; what is answered is noted",
    "POST /v1/auth/sso/identities/start": "asks a sign-in service; what is answered is noted",
}


class Story:
    """Calls one after the other; each notes its route, and what it left in the logs."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.done: dict[str, list[str]] = {}
        self.faults: list[str] = []
        self.app: Any = None

    async def step(
        self,
        route: str,
        json: object = None,
        *,
        token: str | None = None,
        expected: str,
        **names: object,
    ) -> Any:
        """Call a route by its registered path, and look whether it was noted as `expected`."""
        method, path = route.split(" ")
        path, _, query = path.partition("?")
        address = re.sub(r"\{(\w+)\}", lambda match: str(names[match[1]]), path)
        before = len(await logs.read(self.house.database))
        response = await self.send(method, address + (f"?{query}" if query else ""), json, token)
        found = await logs.read(self.house.database)
        request_id = response.headers.get("x-request-id", "")
        own = [row for row in found if row.request_id == request_id]
        self.done.setdefault(f"{method} {path}", []).extend(row.action for row in own)
        case = f"{method} {path}"
        assert response.is_success, f"{case}: {response.status_code} {response.text}"
        if expected not in {row.action for row in own}:
            self.faults.append(f"{case}: {[row.action for row in own]}, not {expected}")
        elif len(found) != before + len(own) or any(row.actor == "system" for row in own):
            self.faults.append(f"{case}: a row does not say whose it is: {own}")
        elif any(row.address != self.house.address for row in own):
            self.faults.append(f"{case}: a row does not say from where: {own}")
        return response.json() if response.content else {}

    async def send(
        self, method: str, path: str, json: object, token: str | None
    ) -> httpx2.Response:
        """One request, whatever it leaves."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        if token is not None and token.startswith("Basic "):
            headers = {"authorization": token}
        transport = httpx2.ASGITransport(app=self.app, client=(self.house.address, 5))
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
            if json is None:
                return await client.request(method, path, headers=headers)
            return await client.request(method, path, json=json, headers=headers)


async def test_every_success_of_a_route_that_changes_something_is_noted(
    house: House, clock: Clock
) -> None:
    story = Story(house)
    story.app = house.api.app
    for part in (keys, projects, limits, people, own, letters, passkeys, operator):
        await part(story, clock)
    await services(story, clock)
    plane = plane_of(house, house.people)
    faces: list[tuple[Any, Callable[[Story], Awaitable[None]]]] = [
        (venice.create(plane, served=list), venice_keys),
        (cerevox.create(plane), cerevox_users),
    ]
    for face, part_of_face in faces:
        story.app = face
        await part_of_face(story)
    assert story.faults == []
    expected = {f"{route.method} {route.path}" for route in ROUTES if route.method != "GET"}
    for prefix, routes in (
        (venice_routes.PREFIX, venice_routes.make(served=list, shows_totals=False)),
        (cerevox_routes.PREFIX, cerevox_routes.ROUTES),
    ):
        expected |= {
            f"{each.method} {prefix}{each.path}" for each in routes if each.method != "GET"
        }
    assert expected - WITHOUT_A_ROW.keys() == story.done.keys()
    assert WITHOUT_A_ROW.keys() <= expected


async def keys(story: Story, _: Clock) -> None:
    """Keys of an account."""
    key = story.house.api.secret("provisioning")
    made = await story.step(
        "POST /v1/account/keys", {"name": "one"}, token=key, expected="key.create"
    )
    many = {"keys": [{"name": "two"}, {"name": "three"}]}
    await story.step("POST /v1/account/keys/bulk", many, token=key, expected="key.create")
    one: dict[str, Any] = {"token": key, "key_id": made["id"]}
    path = "/v1/account/keys/{key_id}"
    change = {"name": "more", "credit_limit": 5}
    await story.step(f"PATCH {path}", change, **one, expected="key.update")
    turned = await story.step(f"POST {path}/rotate", {}, **one, expected="key.rotate")
    leak = {"secret": turned["key"], "source": "test"}
    await story.step("POST /v1/leaks", leak, expected="key.leak")
    await story.step(f"DELETE {path}", **one, expected="key.delete")


async def projects(story: Story, _: Clock) -> None:
    """Projects and who belongs to them."""
    key = story.house.api.secret("provisioning")
    path = "/v1/account/projects"
    made = await story.step(f"POST {path}", {"name": "a"}, token=key, expected="project.create")
    one: dict[str, Any] = {"token": key, "project_id": made["id"]}
    path += "/{project_id}"
    await story.step(f"PATCH {path}", {"name": "b"}, **one, expected="project.update")
    user: dict[str, Any] = {"user_id": 1}
    await story.step(f"POST {path}/members", user, **one, expected="project.add_member")
    member = f"DELETE {path}/members/{{user_id}}"
    await story.step(member, **one, **user, expected="project.remove_member")
    await story.step(f"DELETE {path}", **one, expected="project.delete")


async def limits(story: Story, _: Clock) -> None:
    """Limits of an account's own."""
    key = story.house.api.secret("provisioning")
    limit = {"scope": "account", "resource": "requests", "window": "hour", "limit": 60}
    await story.step("PUT /v1/account/limits", limit, token=key, expected="limit.set")
    query = "scope=account&resource=requests&window=hour"
    await story.step(f"DELETE /v1/account/limits?{query}", token=key, expected="limit.remove")


async def people(story: Story, _: Clock) -> None:
    """Who is in an account."""
    key = story.house.api.secret("provisioning")
    path = "/v1/account/users"
    await story.house.add("ann@example.test", "admin")
    bob = await story.house.add("bob@example.test", "member")
    ann = await story.house.token("ann@example.test")
    one: dict[str, Any] = {"token": key, "user_id": bob}
    await story.step(f"PATCH {path}/{{user_id}}", {"role": "viewer"}, **one, expected="user.update")
    await story.step(f"DELETE {path}/{{user_id}}", **one, expected="user.remove")
    body = {"email": "carl@example.test"}
    await story.step(f"POST {path}", body, token=key, expected="invitation.create")
    open_ = (await story.house.api.get("/v1/account/invitations"))["invitations"]
    await story.step(
        "DELETE /v1/account/invitations/{invitation_id}",
        token=key,
        invitation_id=open_[0]["id"],
        expected="invitation.withdraw",
    )
    await story.step(f"PATCH {path}/me", {"name": "Ann"}, token=ann, expected="user.rename")
    await story.step(f"DELETE {path}/me", token=ann, expected="user.remove")


async def own(story: Story, clock: Clock) -> None:
    """Sessions, password and codes of somebody."""
    await story.house.add("dora@example.test", "viewer")
    login = {"email": "dora@example.test", "password": PASSWORD}
    given = await story.step("POST /v1/auth/login", login, expected="session.sign_in")
    token = {"token": given["refresh_token"]}
    await story.step("POST /v1/auth/revoke", token, expected="session.end")
    first = await story.house.sign_in("dora@example.test")
    dora = await story.house.token("dora@example.test")
    await story.step(
        "DELETE /v1/auth/sessions/{session_id}",
        token=dora,
        session_id=first["session_id"],
        expected="session.end",
    )
    change = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    await story.step("POST /v1/auth/password", change, token=dora, expected="password.change")
    path, proof = "/v1/auth/second-factor", {"password": NEW_PASSWORD}
    made = await story.step(f"POST {path}", proof, token=dora, expected="second_factor.begin")
    code = pyotp.TOTP(made["secret"]).at(clock.now_ms // 1_000)
    codes = await story.step(
        f"POST {path}/confirm", {"code": code}, token=dora, expected="second_factor.confirm"
    )
    left = codes["recovery_codes"]
    codes = await story.step(
        f"POST {path}/recovery-codes",
        {**proof, "code": left[0]},
        token=dora,
        expected="second_factor.renew_codes",
    )
    remove = {**proof, "code": codes["recovery_codes"][0]}
    await story.step(f"POST {path}/remove", remove, token=dora, expected="second_factor.remove")
    await story.step("POST /v1/auth/logout-all", token=dora, expected="session.end_all")


async def letters(story: Story, _: Clock) -> None:
    """What is done with a letter."""
    house = story.house
    reset = "/v1/auth/password-reset"
    body = {"email": "dora@example.test"}
    await story.step(f"POST {reset}", body, expected="password.request_reset")
    chosen = {"token": house.link_token(), "password": PASSWORD}
    await story.step(f"POST {reset}/confirm", chosen, expected="password.reset")
    await house.call(
        "POST",
        "/v1/account/users",
        {"email": "emil@example.test"},
        token=house.api.secret("provisioning"),
    )
    accepted = {"token": house.link_token(), "password": PASSWORD}
    await story.step("POST /v1/auth/invitations/accept", accepted, expected="user.join")


async def passkeys(story: Story, _: Clock) -> None:
    """Passkeys, and signing in with one."""
    house, device = story.house, Device(URL)
    token = await house.token("dora@example.test")
    asked = await house.call(
        "POST", "/v1/auth/passkeys/options", {"password": PASSWORD}, token=token
    )
    body = {"name": "a", "credential": device.make(asked.json()["options"])}
    made = await story.step("POST /v1/auth/passkeys", body, token=token, expected="passkey.add")
    one: dict[str, Any] = {"token": token, "passkey_id": made["passkey"]["id"]}
    path = "/v1/auth/passkeys/{passkey_id}"
    await story.step(f"PATCH {path}", {"name": "b"}, **one, expected="passkey.update")
    asked = await house.call("POST", "/v1/auth/passkeys/challenge", {})
    shown = {"passkey": device.use(asked.json()["options"])}
    await story.step("POST /v1/auth/passkeys/login", shown, expected="session.sign_in")
    again = {"password": PASSWORD, "code": made["recovery_codes"][0]}
    await story.step(f"POST {path}/remove", again, **one, expected="passkey.remove")


async def operator(story: Story, _: Clock) -> None:
    """Accounts, their people and plans."""
    key = story.house.api.secret("operator")
    path = "/v1/operator/accounts"
    account = {"name": "Other", "credit": "5.00"}
    made = await story.step(f"POST {path}", account, token=key, expected="account.create")
    one: dict[str, Any] = {"token": key, "account_id": made["id"]}
    path += "/{account_id}"
    await story.step(f"PATCH {path}", {"name": "Else"}, **one, expected="account.update")
    await operators_people(story, one, path)
    more = {"amount": "1.00", "note": "more"}
    await story.step(f"POST {path}/credit", more, **one, expected="credit.grant")
    less = {"amount": "-1.00", "reason": "less"}
    await story.step(f"POST {path}/corrections", less, **one, expected="credit.correct")
    await story.step(f"POST {path}/keys", {"name": "a"}, **one, expected="key.create")
    await story.step(f"POST {path}/suspend", **one, expected="account.suspend")
    await story.step(f"POST {path}/resume", **one, expected="account.resume")
    await story.step(f"POST {path}/cancel", **one, expected="account.cancel")
    path = "/v1/operator/plans"
    plan = await story.step(f"POST {path}", {"name": "a"}, token=key, expected="plan.create")
    of_plan: dict[str, Any] = {"token": key, "plan_id": plan["id"]}
    path += "/{plan_id}"
    await story.step(f"PATCH {path}", {"name": "b"}, **of_plan, expected="plan.update")
    limit = {"scope": "key", "resource": "requests", "window": "hour", "default_limit": 9}
    await story.step(f"PUT {path}/limits", limit, **of_plan, expected="plan.set_limit")
    query = "scope=key&resource=requests&window=hour"
    await story.step(f"DELETE {path}/limits?{query}", **of_plan, expected="plan.remove_limit")
    await story.step(f"DELETE {path}", **of_plan, expected="plan.delete")


async def operators_people(story: Story, one: dict[str, Any], path: str) -> None:
    """What an operator does with people."""
    house = story.house
    body = {"email": "fred@example.test", "role": "owner"}
    await story.step(f"POST {path}/users", body, **one, expected="invitation.create")
    invited = await house.call(
        "GET", f"/v1/operator/accounts/{one['account_id']}/invitations", token=one["token"]
    )
    number = invited.json()["invitations"][0]["id"]
    await story.step(
        f"DELETE {path}/invitations/{{invitation_id}}",
        **one,
        invitation_id=number,
        expected="invitation.withdraw",
    )
    gina = await house.add("gina@example.test", "owner", account_id=one["account_id"])
    hugo = await house.add("hugo@example.test", "viewer", account_id=one["account_id"])
    member = f"{path}/users/{{user_id}}"
    change: dict[str, Any] = {"role": "member"}
    await story.step(f"PATCH {member}", change, **one, user_id=hugo, expected="user.update")
    await story.step(f"DELETE {member}", **one, user_id=hugo, expected="user.remove")
    person = "/v1/operator/users/{user_id}"
    of_person: dict[str, Any] = {"token": one["token"], "user_id": gina}
    change = {"is_enabled": False}
    await story.step(f"PATCH {person}", change, **of_person, expected="user.update")
    await story.step(f"POST {person}/logout-all", **of_person, expected="session.end_all")
    await story.step(
        "POST /v1/operator/signing-keys/rotate",
        {},
        token=one["token"],
        expected="signing_key.rotate",
    )


async def services(story: Story, clock: Clock) -> None:
    """What comes back from a sign-in service."""
    house, back = story.house, f"{URL}/back"
    claims = {"sub": "kim", "email": "kim@acme.example", "email_verified": True}
    with serving(SignInService(lambda: clock.now_ms / 1_000, claims=claims)) as service:
        client = Client(
            issuer=service.issuer, client_id=CLIENT_ID, client_secret=SECRET, is_internal=True
        )
        provider = Provider(
            name="acme",
            title="Acme",
            issuer=service.issuer,
            service=Service(client),
            domains=frozenset(),
            redirect_urls=frozenset((back,)),
            grants=(),
            creates_people=False,
        )
        people = replace(house.people, providers={"acme": provider})
        story.app = app.create(plane_of(house, people), version="0")

        async def visit(path: str, **more: str) -> dict[str, Any]:
            """What the browser comes back with."""
            body = {"provider": "acme", "redirect_uri": back, **more}
            began = (await story.send("POST", f"{path}/start", body, more_token)).json()
            return {
                "flow_token": began["flow_token"],
                **service.visit(began["authorization_url"]),
            }

        await house.add("kim@example.test", "viewer")
        more_token: str | None = await house.token("kim@example.test")
        path, proof = "/v1/auth/sso/identities", {"password": PASSWORD}
        found = await visit(path, **proof)
        own: dict[str, Any] = {"token": more_token, "expected": "identity.link"}
        linked = await story.step(f"POST {path}", found, **own)
        more_token = None
        found = await visit("/v1/auth/sso")
        given = await story.step("POST /v1/auth/sso/finish", found, expected="session.sign_in")
        own = {"token": given["access_token"], "expected": "identity.unlink"}
        remove = f"POST {path}/{{identity_id}}/remove"
        await story.step(remove, proof, **own, identity_id=linked["id"])


def plane_of(house: House, people: People) -> Plane:
    """What another application on the house's database works with."""
    return make_plane(
        house.database, why_not_ready=lambda: None, metrics=lambda: b"", people=people
    )


async def venice_keys(story: Story) -> None:
    """Keys through the Venice dialect."""
    key = story.house.api.secret("provisioning")
    path = "/api/v1/api_keys"
    body = {"description": "a", "apiKeyType": "INFERENCE"}
    made = await story.step(f"POST {path}", body, token=key, expected="key.create")
    number = made["data"]["id"]
    change = {"id": number, "description": "b"}
    await story.step(f"PATCH {path}", change, token=key, expected="key.update")
    await story.step(f"DELETE {path}?id={number}", token=key, expected="key.delete")


async def cerevox_users(story: Story) -> None:
    """People through the Cerevox dialect."""
    key = story.house.api.secret("provisioning")
    given = await story.step(
        "POST /v1/token/login",
        {},
        token=f"Basic {base64.b64encode(key.encode()).decode()}",
        expected="session.sign_in",
    )
    token = given["access_token"]
    body = {"email": "ida@example.test", "name": "Ida"}
    await story.step("POST /v1/users", body, token=token, expected="invitation.create")
    jan = await story.house.add("jan@example.test", "admin")
    own = await story.house.token("jan@example.test")
    await story.step("PUT /v1/users/me", {"name": "Jan"}, token=own, expected="user.rename")
    path = "/v1/users/{user_id}"
    one: dict[str, Any] = {"token": token, "user_id": jan}
    await story.step(f"PUT {path}", {"name": "J"}, **one, expected="user.update")
    body = {"email": "jan@example.test"}
    await story.step(f"DELETE {path}", body, **one, expected="user.remove")
    await story.step("POST /v1/token/revoke", token=token, expected="session.end")
