"""What people know and carry is in no row of the database, no log line and no other answer."""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl, urlsplit

import pyotp
from sqlalchemy import select
from structlog.testing import capture_logs

from bursar.adapters.oidc import Client, Service
from bursar.core.people.roles import Role
from bursar.service.sso.ports import Grant, Provider
from bursar.store.tables import metadata
from tests.databases import Clock
from tests.people.devices import decode
from tests.people.house import PASSWORD, House
from tests.people.services import CLIENT_ID, SignInService, serving

EMAIL = "ann@example.test"
NEW = "canary phrase of a new password"


async def _everything(house: House) -> bytes:
    """All that the database has, as bytes in a row."""
    found: list[bytes] = []
    async with house.database.read() as tx:
        for table in metadata.tables.values():
            for row in await tx.execute(select(table)):
                found += [each if isinstance(each, bytes) else str(each).encode() for each in row]
    if house.database.path is not None:
        folder, name = house.database.path.parent, house.database.path.name
        found += [path.read_bytes() for path in folder.glob(f"{name}*")]
    return b"\n".join(found)


async def test_no_secret_of_a_person_is_stored_or_logged(house: House, clock: Clock) -> None:
    canaries: list[str] = [PASSWORD, NEW]
    with capture_logs() as logs:
        await house.add(EMAIL, "owner")
        first = await house.sign_in(EMAIL)
        second = await house.call(
            "POST", "/v1/auth/refresh", {"refresh_token": first["refresh_token"]}
        )
        token = second.json()["access_token"]
        canaries += [first["access_token"], first["refresh_token"][4:], token]
        canaries += [first["refresh_token"][36:], second.json()["refresh_token"][36:]]
        made = await house.call(
            "POST", "/v1/auth/second-factor", {"password": PASSWORD}, token=token
        )
        secret = made.json()["secret"]
        code = pyotp.TOTP(secret).at(clock.now_ms // 1_000)
        done = await house.call(
            "POST", "/v1/auth/second-factor/confirm", {"code": code}, token=token
        )
        canaries += [secret, *done.json()["recovery_codes"]]
        body = {"email": "bob@example.test"}
        await house.call("POST", "/v1/account/users", body, token=token)
        canaries.append(house.link_token())
        await house.call("POST", "/v1/auth/password-reset", {"email": EMAIL})
        canaries.append(house.link_token())
        answer = await house.try_in(EMAIL, NEW)
        other = await house.try_in(EMAIL, PASSWORD, code="000000")
    stored = await _everything(house)
    assert len(stored) > 1_000
    assert EMAIL.encode() in stored
    for canary in canaries:
        for form in (canary.encode(), canary.replace("-", "").encode()):
            assert form not in stored
        assert canary not in str(logs)
        assert canary not in answer.text + other.text
    assert base64.b32decode(secret) not in stored
    assert bytes.fromhex(first["refresh_token"][4:36]) not in stored


async def test_nothing_of_a_passkey_or_another_services_word_is_stored_or_logged(
    house: House, clock: Clock
) -> None:
    canaries: list[bytes] = []
    secret = "canary of the secret at the service"
    with serving(SignInService(lambda: clock.now_ms / 1_000, secret=secret)) as service:
        client = Client(
            issuer=service.issuer, client_id=CLIENT_ID, client_secret=secret, is_internal=True
        )
        provider = Provider(
            name="acme",
            title="Acme",
            issuer=service.issuer,
            service=Service(client),
            domains=frozenset(("acme.example",)),
            grants=(Grant(1, "devs", Role.MEMBER),),
            creates_people=True,
        )
        assert secret not in repr(provider)
        house.trust(provider)
        service.claims = {
            "sub": "ann",
            "email": "ann@acme.example",
            "email_verified": True,
            "groups": ["devs"],
        }
        with capture_logs() as logs:
            body = {"provider": "acme", "redirect_uri": "http://127.0.0.1:5/"}
            flow = (await house.call("POST", "/v1/auth/sso/start", body)).json()
            pending = await _everything(house)
            back = service.visit(flow["authorization_url"])
            query = dict(parse_qsl(urlsplit(flow["authorization_url"]).query))
            sent = {"flow_token": flow["flow_token"], **back}
            entered = await house.call("POST", "/v1/auth/sso/finish", sent)
            token = entered.json()["access_token"]
            asked = await house.call("POST", "/v1/auth/passkeys/options", {}, token=token)
            challenge = asked.json()["options"]["challenge"]
            pending += await _everything(house)
            service.claims["nonce"] = "another"
            refused = await house.call("POST", "/v1/auth/sso/finish", sent)
        canaries += [flow["flow_token"][4:].encode(), bytes.fromhex(flow["flow_token"][4:])]
        canaries += [back["code"].encode(), back["state"].encode(), query["nonce"].encode()]
        canaries += [*map(str.encode, service.verifiers), *map(str.encode, service.tokens)]
        canaries += [challenge.encode(), decode(challenge), secret.encode()]
    assert len(canaries) > 8
    stored = pending + await _everything(house)
    for canary in canaries:
        assert canary not in stored
        assert canary not in refused.content
        assert canary not in str(logs).encode()
