"""Passkeys: a second factor or the only one, for one challenge, one page, and never twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pyotp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from bursar.adapters import passkeys as adapter
from bursar.adapters.passkeys import RelyingParty
from bursar.jobs import retention
from bursar.store.tables import challenges
from tests.databases import Clock
from tests.people.devices import Device, encode
from tests.people.house import PASSWORD, URL, House, code_of

EMAIL = "ann@example.test"
DOMAIN = "bursar.example.test"
WRONG = (401, "invalid_passkey")
REFUSED = (422, "passkey_refused")
AGAIN = {"password": PASSWORD}


async def challenge(house: House) -> dict[str, Any]:
    """The options of a sign-in."""
    asked = await house.call("POST", "/v1/auth/passkeys/challenge", {})
    assert asked.status_code == 200, asked.text
    options: dict[str, Any] = asked.json()["options"]
    return options


async def enter(house: House, device: Device, **forged: Any) -> Any:
    """Try to sign in with the passkey alone."""
    answer = device.use(await challenge(house), **forged)
    return await house.call("POST", "/v1/auth/passkeys/login", {"passkey": answer})


async def offer(house: House, token: str, **again: Any) -> dict[str, Any]:
    """The options of a new passkey."""
    asked = await house.call("POST", "/v1/auth/passkeys/options", AGAIN | again, token=token)
    assert asked.status_code == 200, asked.text
    options: dict[str, Any] = asked.json()["options"]
    return options


async def register(house: House, token: str, device: Device, **again: Any) -> dict[str, Any]:
    """Make a passkey on the device."""
    credential = device.make(await offer(house, token, **again))
    body = {"name": "My key", "credential": credential}
    made = await house.call("POST", "/v1/auth/passkeys", body, token=token)
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


class Ann:
    """Somebody with a passkey and the recovery codes that came with it."""

    def __init__(self, token: str, device: Device, made: dict[str, Any]) -> None:
        self.token, self.device = token, device
        self.passkey: dict[str, Any] = made["passkey"]
        self.codes: list[str] = made["recovery_codes"]


@pytest.fixture
async def ann(house: House) -> Ann:
    """Ann, with a passkey on a device that counts."""
    await house.add(EMAIL)
    token, device = await house.token(EMAIL), Device(URL)
    return Ann(token, device, await register(house, token, device))


async def test_a_passkey_alone_signs_its_owner_in(house: House, ann: Ann) -> None:
    entered = await enter(house, ann.device)
    assert entered.status_code == 200, entered.text
    me = await house.call("GET", "/v1/account/users/me", token=entered.json()["access_token"])
    assert me.json()["email"] == EMAIL
    own = await house.call("GET", "/v1/auth/passkeys", token=ann.token)
    assert [each["name"] for each in own.json()["passkeys"]] == ["My key"]
    assert own.json()["passkeys"][0]["last_used_at"] is not None


async def test_a_password_alone_is_not_enough_once_there_is_a_passkey(
    house: House, ann: Ann
) -> None:
    refused = await house.try_in(EMAIL)
    assert code_of(refused) == (401, "second_factor_required")
    assert refused.json()["error"]["second_factors"] == ["passkey"]
    entered = await house.try_in(EMAIL, passkey=ann.device.use(await challenge(house)))
    assert entered.status_code == 200
    assert (await house.try_in(EMAIL, code=ann.codes[0])).status_code == 200


async def test_a_passkey_that_was_not_unlocked_is_a_second_factor_and_never_the_only_one(
    house: House, ann: Ann
) -> None:
    ann.device.is_verifying = False
    assert code_of(await enter(house, ann.device)) == (401, "verification_required")
    answer = ann.device.use(await challenge(house))
    assert (await house.try_in(EMAIL, passkey=answer)).status_code == 200


async def test_somebody_elses_passkey_is_no_second_factor(house: House, ann: Ann) -> None:
    await house.add("bob@example.test")
    other, device = await house.token("bob@example.test"), Device(URL)
    await register(house, other, device)
    answer = device.use(await challenge(house))
    assert code_of(await house.try_in(EMAIL, passkey=answer)) == WRONG


async def test_a_forged_answer_signs_nobody_in(house: House, ann: Ann) -> None:
    assert (await enter(house, ann.device)).status_code == 200
    forgeries: tuple[dict[str, Any], ...] = (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": f"{URL}.evil.example"},
        {"domain": "evil.example"},
        {"type": "webauthn.create"},
        {"cross_origin": True},
        {"flags": 0},
        {"challenge": encode(bytes(32))},
        {"private": ec.generate_private_key(ec.SECP256R1())},
        {"user_handle": bytes(32)},
        {"uses": 0},
    )
    for forged in forgeries:
        assert code_of(await enter(house, ann.device, **forged)) == WRONG, forged
    assert (await enter(house, ann.device)).status_code == 200


async def test_an_answer_counts_once_however_many_send_it_at_once(house: House, ann: Ann) -> None:
    ann.device.counts = False
    answer = ann.device.use(await challenge(house), uses=9)
    sent = [house.call("POST", "/v1/auth/passkeys/login", {"passkey": answer}) for _ in range(4)]
    found = sorted(each.status_code for each in await asyncio.gather(*sent))
    assert found == [200, 401, 401, 401]


async def test_an_answer_comes_within_five_minutes(house: House, ann: Ann, clock: Clock) -> None:
    options = await challenge(house)
    clock.advance(5 * 60_000)
    body = {"passkey": ann.device.use(options)}
    assert code_of(await house.call("POST", "/v1/auth/passkeys/login", body)) == WRONG


async def test_what_nobody_answered_is_forgotten(house: House, ann: Ann, clock: Clock) -> None:
    async def count() -> int:
        async with house.database.read() as tx:
            query = select(func.count()).select_from(challenges)
            return int((await tx.execute(query)).scalar_one())

    await challenge(house)
    await retention.tidy(house.database, limit_log_days=30)
    assert await count() == 1
    clock.advance(5 * 60_000 + 1)
    await retention.tidy(house.database, limit_log_days=30)
    assert await count() == 0


async def test_a_copy_of_a_device_is_found_by_its_counter(house: House, ann: Ann) -> None:
    for _ in range(3):
        assert (await enter(house, ann.device)).status_code == 200
    ann.device.uses = 1
    assert code_of(await enter(house, ann.device)) == WRONG


async def test_a_synced_passkey_counts_nothing_and_works(house: House) -> None:
    await house.add(EMAIL)
    device = Device(URL, counts=False, is_synced=True)
    made = await register(house, await house.token(EMAIL), device)
    assert made["passkey"]["is_synced"] is True
    for _ in range(2):
        assert (await enter(house, device)).status_code == 200


async def test_a_disabled_person_has_no_use_for_a_passkey(house: House, ann: Ann) -> None:
    owner = await _owner(house)
    users = (await house.call("GET", "/v1/account/users", token=owner)).json()["users"]
    user_id = next(each["id"] for each in users if each["email"] == EMAIL)
    body = {"is_enabled": False}
    done = await house.call("PATCH", f"/v1/account/users/{user_id}", body, token=owner)
    assert done.status_code == 200
    assert code_of(await enter(house, ann.device)) == WRONG


async def test_a_new_passkey_takes_what_proves_somebody_once_more(house: House, ann: Ann) -> None:
    path = "/v1/auth/passkeys/options"
    for body, refusal in (
        ({}, "invalid_credentials"),
        ({"password": "wrong"}, "invalid_credentials"),
        (AGAIN, "second_factor_required"),
        (AGAIN | {"code": "000000"}, "invalid_code"),
    ):
        assert code_of(await house.call("POST", path, body, token=ann.token)) == (401, refusal)
    answer = ann.device.use(await challenge(house))
    made = await register(house, ann.token, Device(URL), passkey=answer)
    assert made["recovery_codes"] is None


async def test_whoever_has_a_passkey_adds_an_app_with_it(house: House, ann: Ann) -> None:
    path = "/v1/auth/second-factor"
    refused = await house.call("POST", path, AGAIN, token=ann.token)
    assert code_of(refused) == (401, "second_factor_required")
    body = AGAIN | {"passkey": ann.device.use(await challenge(house))}
    made = await house.call("POST", path, body, token=ann.token)
    assert made.status_code == 201
    # Not confirmed yet, its codes count for nothing.
    code = pyotp.TOTP(made.json()["secret"]).at(house.database.clock_ms() // 1_000)
    assert code_of(await house.try_in(EMAIL, code=code)) == (401, "invalid_code")
    done = await house.call("POST", f"{path}/confirm", {"code": code}, token=ann.token)
    assert done.status_code == 200
    refused = await house.try_in(EMAIL)
    assert refused.json()["error"]["second_factors"] == ["code", "passkey"]


async def test_a_forged_passkey_is_not_kept(house: House) -> None:
    await house.add(EMAIL)
    token = await house.token(EMAIL)
    for forged in (
        {"origin": "https://evil.example"},
        {"domain": "evil.example"},
        {"type": "webauthn.get"},
        {"cross_origin": True},
        {"flags": 0},
        {"fmt": "tpm"},
        {"challenge": encode(bytes(32))},
    ):
        credential = Device(URL).make(await offer(house, token), **forged)
        body = {"name": "My key", "credential": credential}
        refused = await house.call("POST", "/v1/auth/passkeys", body, token=token)
        assert code_of(refused) == REFUSED, forged
    assert (await house.try_in(EMAIL)).status_code == 200


async def test_a_passkey_is_kept_for_whoever_was_asked_and_once(house: House, ann: Ann) -> None:
    await house.add("bob@example.test")
    token = await house.token("bob@example.test")
    body = {"name": "Mine", "credential": Device(URL).make(await offer(house, token))}
    path = "/v1/auth/passkeys"
    assert code_of(await house.call("POST", path, body, token=ann.token)) == REFUSED
    assert code_of(await house.call("POST", path, body, token=token)) == REFUSED
    again = {"name": "Mine", "credential": ann.device.make(await offer(house, token))}
    assert code_of(await house.call("POST", path, again, token=token)) == (409, "passkey_exists")


async def test_what_a_sign_in_was_asked_makes_no_passkey(house: House) -> None:
    await house.add(EMAIL)
    token, device = await house.token(EMAIL), Device(URL)
    options = await offer(house, token)
    options["challenge"] = (await challenge(house))["challenge"]
    body = {"name": "Mine", "credential": device.make(options)}
    assert code_of(await house.call("POST", "/v1/auth/passkeys", body, token=token)) == REFUSED


async def test_with_the_last_factor_the_recovery_codes_go(house: House, ann: Ann) -> None:
    path = f"/v1/auth/passkeys/{ann.passkey['id']}"
    named = await house.call("PATCH", path, {"name": "Blue key"}, token=ann.token)
    assert named.json()["name"] == "Blue key"
    body = AGAIN | {"code": ann.codes[0]}
    assert (await house.call("POST", f"{path}/remove", body, token=ann.token)).status_code == 204
    assert (await house.try_in(EMAIL)).status_code == 200
    shown = await house.call("GET", "/v1/auth/second-factor", token=ann.token)
    assert shown.json() == {"is_enrolled": False, "recovery_codes_left": 0}
    assert code_of(await enter(house, ann.device)) == WRONG


async def test_another_persons_passkey_looks_like_none(house: House, ann: Ann) -> None:
    await house.add("bob@example.test")
    token = await house.token("bob@example.test")
    for path in (f"/v1/auth/passkeys/{ann.passkey['id']}", "/v1/auth/passkeys/999"):
        found = [
            await house.call("PATCH", path, {"name": "x"}, token=token),
            await house.call("POST", f"{path}/remove", AGAIN, token=token),
        ]
        assert [code_of(each) for each in found] == [(404, "not_found")] * 2


async def test_somebody_has_at_most_twenty_passkeys(house: House, ann: Ann) -> None:
    for _ in range(19):
        answer = ann.device.use(await challenge(house))
        await register(house, ann.token, Device(URL), passkey=answer)
    answer = ann.device.use(await challenge(house))
    refused = await house.call(
        "POST", "/v1/auth/passkeys/options", AGAIN | {"passkey": answer}, token=ann.token
    )
    assert code_of(refused) == (409, "too_many_passkeys")


async def test_challenges_and_guesses_from_one_address_run_out(house: House, ann: Ann) -> None:
    answer = ann.device.use(await challenge(house), origin="https://evil.example")
    path = "/v1/auth/passkeys/login"
    found = [await house.call("POST", path, {"passkey": answer}) for _ in range(31)]
    assert [each.status_code for each in found] == [401] * 30 + [429]
    asked = [await house.call("POST", "/v1/auth/passkeys/challenge", {}) for _ in range(60)]
    assert [each.status_code for each in asked] == [200] * 59 + [429]
    assert "retry-after" in asked[-1].headers


async def _owner(house: House) -> str:
    await house.add("owner@example.test", "owner")
    return await house.token("owner@example.test")


_PARTY = RelyingParty(DOMAIN, "Bursar", (URL,))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_PART = st.binary(max_size=200).map(encode) | st.text(max_size=30) | _JSON
_ANSWERS = st.fixed_dictionaries(
    {
        "id": _PART,
        "rawId": _PART,
        "type": st.just("public-key") | _JSON,
        "response": st.fixed_dictionaries(
            {},
            optional={
                "clientDataJSON": _PART,
                "attestationObject": _PART,
                "authenticatorData": _PART,
                "signature": _PART,
                "userHandle": _PART,
                "transports": _JSON,
            },
        )
        | _JSON,
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_ANSWERS, st.binary(min_size=1, max_size=80))
def test_whatever_a_device_answers_it_is_refused_and_breaks_nothing(
    answer: dict[str, Any], key: bytes
) -> None:
    adapter.find_challenge(answer)
    adapter.find_credential_id(answer)
    assert adapter.verify_new(_PARTY, answer, challenge=bytes(32)) is None
    found = adapter.verify_use(_PARTY, answer, challenge=bytes(32), public_key=key, sign_count=0)
    assert found is None


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_device_that_garbles_its_answer_breaks_nothing(data: st.DataObject) -> None:
    device = Device(URL)
    options = {
        "rp": {"id": DOMAIN},
        "user": {"id": encode(b"ann")},
        "challenge": encode(bytes(32)),
    }
    made = device.make(options)
    new = adapter.verify_new(_PARTY, made, challenge=bytes(32))
    assert new is not None
    part = data.draw(st.sampled_from(["attestationObject", "clientDataJSON"]))
    raw = bytearray(made["response"][part].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.sampled_from(b"Az09_-"))
    made["response"][part] = raw.decode()
    adapter.verify_new(_PARTY, made, challenge=bytes(32))
    key = bytearray(new.public_key)
    key[data.draw(st.integers(0, len(key) - 1))] ^= data.draw(st.integers(1, 255))
    used = device.use(options)
    found = adapter.verify_use(
        _PARTY, used, challenge=bytes(32), public_key=bytes(key), sign_count=0
    )
    assert found is None or key == new.public_key
