"""What becomes of somebody is in the log of every account that they belong to, and no secret is."""

from __future__ import annotations

import os

import pyotp
import pytest

from bursar.core import secrets
from bursar.core.audit import events
from bursar.service import prices
from bursar.store.tenants import users
from tests.audit import logs
from tests.installations import OPERATOR, Api
from tests.people.house import PASSWORD, House

EMAIL = "ann@example.test"
PRICES = """
prices:
  - model: gpt-4o-mini
    per_million: { input_tokens: "0.15", output_tokens: "0.60" }
"""


async def in_two_accounts(house: House) -> tuple[int, int]:
    """Ann, a member of account 1 and of another one: her id and the other's."""
    other_id, _ = await house.api.open_account(name="B")
    user_id = await house.add(EMAIL)
    async with house.database.write() as tx:
        await users.insert_member(tx, account_id=other_id, user_id=user_id, role="viewer")
    return user_id, other_id


async def places(house: House, action: str) -> set[tuple[int, str]]:
    """In which logs this was noted, and about what."""
    return {(row.account_id, row.target) for row in await logs.read(house.database, action)}


async def test_what_somebody_changes_of_themselves_is_noted_in_all_their_accounts(
    house: House,
) -> None:
    user_id, other_id = await in_two_accounts(house)
    both = {(1, f"user:{user_id}"), (other_id, f"user:{user_id}")}
    token = await house.token(EMAIL, account_id=1)
    factor = "/v1/auth/second-factor"
    proof = {"password": PASSWORD}
    begun = await house.call("POST", factor, proof, token=token)
    assert begun.status_code == 201, begun.text
    code = pyotp.TOTP(begun.json()["secret"]).at(house.database.clock_ms() // 1_000)
    answer = await house.call("POST", f"{factor}/confirm", {"code": code}, token=token)
    assert answer.status_code == 200, answer.text
    change = {"current_password": PASSWORD, "new_password": "another one for all of them"}
    answer = await house.call("POST", "/v1/auth/password", change, token=token)
    assert answer.status_code == 204, answer.text
    answer = await house.call("POST", "/v1/auth/logout-all", token=token)
    assert answer.status_code == 200, answer.text
    for action in (
        *("second_factor.begin", "second_factor.confirm", "password.change"),
        "session.end_all",
    ):
        assert await places(house, action) == both, action
    rows = await logs.read(house.database, "password.change")
    assert {row.actor for row in rows} == {f"user:{user_id}"}


async def test_what_the_operator_does_with_somebody_is_noted_in_all_their_accounts(
    house: House,
) -> None:
    user_id, other_id = await in_two_accounts(house)
    person = f"/v1/operator/users/{user_id}"
    everywhere = {(place, f"user:{user_id}") for place in (0, 1, other_id)}
    await house.api.post(f"{person}/logout-all", None, caller=OPERATOR)
    off = {"is_enabled": False}
    answer = await house.api.call("PATCH", person, json=off, caller=OPERATOR)
    assert answer.status_code == 200, answer.text
    assert await places(house, "session.end_all") == everywhere
    assert await places(house, "user.update") == everywhere


FORMS = [
    f"bsk_{'a1' * 18}",
    f"bpk_{'B2' * 18}",
    f"bok_{'c3' * 18}",
    f"brt_{'0d' * 32}",
    f"blt_{'0e' * 16}",
    f"bft_{'0f' * 32}",
    f"eyJ{'hbGci' * 5}.eyJ{'zdWIi' * 9}.{'Qx-_9' * 12}",
]


@pytest.mark.parametrize("secret", FORMS)
def test_no_form_of_our_secrets_is_kept_whatever_it_is_part_of(secret: str) -> None:
    for text in (secret, f"my {secret}.", f"a{secret}", f"{secret}{secret}", f"'{secret}'"):
        for value in ({"name": text}, {"labels": {text: text}}, {"names": [text]}):
            kept = str(events.clean(value))
            assert secret[4:] not in kept
            assert f"{secret[:3]}" in kept
            assert "…" in kept


async def test_the_tokens_that_are_handed_out_have_these_forms(house: House) -> None:
    await house.add(EMAIL, "owner")
    tokens = await house.sign_in(EMAIL)
    for secret in (tokens["access_token"], tokens["refresh_token"], house.api.secret(OPERATOR)):
        assert len(secrets.blot(f"<{secret}>")) < 8


async def test_a_price_that_is_added_or_changed_is_in_the_operators_log(api: Api) -> None:
    for text in (PRICES, PRICES, PRICES.replace("0.60", "0.70")):
        async with api.database.write() as tx:
            await prices.load(tx, text=text, name="prices.yaml")
    first, second = await logs.read(api.database, "price.add")
    assert [(row.account_id, row.target) for row in (first, second)] == [
        (0, "price:1"),
        (0, "price:2"),
    ]
    assert first.before is None
    assert first.after["per_million"] == {"input_tokens": "0.15", "output_tokens": "0.60"}
    assert second.before["per_million"]["output_tokens"] == "0.60"
    assert second.after["per_million"]["output_tokens"] == "0.70"
    assert first.after["source"] == "file prices.yaml"


def test_random_text_of_the_alphabet_is_left_as_it_is() -> None:
    for text in ("bsk_short", "brt_0123", "eyJ.eyJ.x", os.urandom(32).hex(), "bsk_" + "é" * 40):
        assert secrets.blot(text) == text
