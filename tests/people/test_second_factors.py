"""Second factors: asked for once they are confirmed, each code once, and not too many guesses."""

from __future__ import annotations

import asyncio
from typing import Any

import pyotp
import pytest

from tests.databases import Clock
from tests.people.house import PASSWORD, House, code_of, open_house

EMAIL = "ann@example.test"
WRONG = (401, "invalid_code")
STEP_MS = 30_000


class Phone:
    """Somebody's authenticator app."""

    def __init__(self, secret: str, clock: Clock) -> None:
        self.maker = pyotp.TOTP(secret)
        self.clock = clock

    def code(self, *, steps: int = 0) -> str:
        """What it shows now, or so many steps later."""
        return self.maker.at(self.clock.now_ms // 1_000 + 30 * steps)


class Enrolled:
    """Somebody with a second factor."""

    def __init__(self, token: str, phone: Phone, codes: list[str]) -> None:
        self.token, self.phone, self.codes = token, phone, codes


async def begin(house: House, clock: Clock) -> tuple[str, Phone]:
    """Sign in and begin with a second factor."""
    await house.add(EMAIL)
    token = await house.token(EMAIL)
    made = await house.call("POST", "/v1/auth/second-factor", {"password": PASSWORD}, token=token)
    assert made.status_code == 201
    assert made.json()["address"].startswith("otpauth://totp/Bursar:ann%40example.test?secret=")
    return token, Phone(made.json()["secret"], clock)


@pytest.fixture
async def ann(house: House, clock: Clock) -> Enrolled:
    """Ann, with a second factor and ten recovery codes; her phone's next code is a new one."""
    token, phone = await begin(house, clock)
    body = {"code": phone.code()}
    done = await house.call("POST", "/v1/auth/second-factor/confirm", body, token=token)
    assert done.status_code == 200, done.text
    clock.advance(STEP_MS)
    return Enrolled(token, phone, done.json()["recovery_codes"])


async def test_it_is_asked_for_once_it_is_confirmed(house: House, clock: Clock) -> None:
    token, phone = await begin(house, clock)
    assert (await house.try_in(EMAIL)).status_code == 200
    wrong = await house.call(
        "POST", "/v1/auth/second-factor/confirm", {"code": "000000"}, token=token
    )
    assert code_of(wrong) == WRONG
    assert (await house.try_in(EMAIL)).status_code == 200
    body = {"code": phone.code()}
    await house.call("POST", "/v1/auth/second-factor/confirm", body, token=token)
    shown = await house.call("GET", "/v1/auth/second-factor", token=token)
    assert shown.json() == {"is_enrolled": True, "recovery_codes_left": 10}
    assert code_of(await house.try_in(EMAIL)) == (401, "second_factor_required")


async def test_a_wrong_password_says_nothing_of_a_second_factor(
    house: House, ann: Enrolled
) -> None:
    refused = await house.try_in(EMAIL, "wrong password", code=ann.phone.code())
    assert code_of(refused) == (401, "invalid_credentials")


async def test_a_code_works_once(house: House, ann: Enrolled) -> None:
    code = ann.phone.code()
    assert (await house.try_in(EMAIL, code=code)).status_code == 200
    assert code_of(await house.try_in(EMAIL, code=code)) == WRONG
    # Nor does one of an earlier step.
    assert code_of(await house.try_in(EMAIL, code=ann.phone.code(steps=-1))) == WRONG


async def test_a_code_that_comes_from_many_at_once_works_once(house: House, ann: Enrolled) -> None:
    found = await asyncio.gather(*(house.try_in(EMAIL, code=ann.phone.code()) for _ in range(5)))
    assert sorted(response.status_code for response in found) == [200, 401, 401, 401, 401]


async def test_codes_beside_this_step_count_and_others_do_not(
    house: House, ann: Enrolled, clock: Clock
) -> None:
    clock.advance(10 * STEP_MS)
    for steps in (-2, 2, 3):
        assert code_of(await house.try_in(EMAIL, code=ann.phone.code(steps=steps))) == WRONG
    assert (await house.try_in(EMAIL, code=ann.phone.code(steps=-1))).status_code == 200
    assert (await house.try_in(EMAIL, code=ann.phone.code(steps=1))).status_code == 200


@pytest.mark.parametrize("code", ["", "000000", "12345", "1234567", "१२३४५६", " 123456", "abcdef"])
async def test_what_is_no_code_is_wrong(house: House, ann: Enrolled, code: str) -> None:
    assert code_of(await house.try_in(EMAIL, code=code)) == WRONG
    wide = "".join(chr(0xFF10 + int(digit)) for digit in ann.phone.code())
    assert code_of(await house.try_in(EMAIL, code=wide)) == WRONG


async def test_guesses_run_out_wherever_they_come_from(
    house: House, ann: Enrolled, clock: Clock
) -> None:
    answers: list[Any] = []
    for number in range(22):
        house.address = f"198.51.100.{number}"
        answers.append(code_of(await house.try_in(EMAIL, code="000000")))
    assert answers == [WRONG] * 20 + [(429, "too_many_attempts")] * 2
    # Who comes from where she has signed in before is not kept out by them.
    house.address = "192.0.2.1"
    assert (await house.try_in(EMAIL, code=ann.phone.code())).status_code == 200
    house.address = "198.51.100.250"
    clock.advance(3_600_000)
    assert (await house.try_in(EMAIL, code=ann.phone.code())).status_code == 200


async def test_a_recovery_code_works_once_however_it_is_written(
    house: House, ann: Enrolled
) -> None:
    assert len(set(ann.codes)) == 10
    code = ann.codes[3]
    written = f" {code.replace('-', ' ').upper()} "
    assert (await house.try_in(EMAIL, code=written)).status_code == 200
    assert code_of(await house.try_in(EMAIL, code=code)) == WRONG
    shown = await house.call("GET", "/v1/auth/second-factor", token=ann.token)
    assert shown.json()["recovery_codes_left"] == 9


async def test_new_recovery_codes_take_the_place_of_the_old(house: House, ann: Enrolled) -> None:
    path = "/v1/auth/second-factor/recovery-codes"
    for body in (
        {"password": PASSWORD, "code": "000000"},
        {"password": "wrong password", "code": ann.phone.code()},
    ):
        assert (await house.call("POST", path, body, token=ann.token)).status_code == 401
    body = {"password": PASSWORD, "code": ann.phone.code()}
    made = await house.call("POST", path, body, token=ann.token)
    assert code_of(await house.try_in(EMAIL, code=ann.codes[0])) == WRONG
    codes = made.json()["recovery_codes"]
    assert (await house.try_in(EMAIL, code=codes[0])).status_code == 200


async def test_removing_it_takes_password_and_code(house: House, ann: Enrolled) -> None:
    path = "/v1/auth/second-factor/remove"
    body = {"password": PASSWORD, "code": "000000"}
    assert code_of(await house.call("POST", path, body, token=ann.token)) == WRONG
    assert code_of(await house.try_in(EMAIL)) == (401, "second_factor_required")
    body = {"password": PASSWORD, "code": ann.codes[0]}
    assert (await house.call("POST", path, body, token=ann.token)).status_code == 204
    assert (await house.try_in(EMAIL)).status_code == 200


async def test_there_is_one_at_a_time(house: House, ann: Enrolled) -> None:
    again = await house.call(
        "POST", "/v1/auth/second-factor", {"password": PASSWORD}, token=ann.token
    )
    assert code_of(again) == (409, "second_factor_exists")
    body = {"code": ann.phone.code()}
    confirm = await house.call("POST", "/v1/auth/second-factor/confirm", body, token=ann.token)
    assert code_of(confirm) == (409, "no_second_factor")


async def test_without_the_servers_secret_key_recovery_codes_still_work(
    house: House, ann: Enrolled
) -> None:
    async with open_house(house.api, secret=b"another secret") as other:
        refused = await other.try_in(EMAIL, code=ann.phone.code())
        assert code_of(refused) == (503, "second_factor_unavailable")
        assert (await other.try_in(EMAIL, code=ann.codes[0])).status_code == 200
