"""People through both faces: signing in, what belongs to them, and an account's users."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, cast

import httpx2
import pyotp
import pytest
from structlog.testing import capture_logs

from bursar import (
    AsyncBursar,
    Bursar,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    Unauthenticated,
)
from bursar.sdk import configuration
from bursar.store.tenants import users
from tests.people.devices import Device
from tests.people.house import PASSWORD, QUICK
from tests.sdk.faces import Face
from tests.serving import House, until

ANN = "ann@example.test"


async def add(house: House, email: str, role: str) -> int:
    """Somebody in the account, without an invitation; their id."""
    async with house.server.database.write() as tx:
        user_id = await users.insert_user(
            tx, email=email, name=email.partition("@")[0], password_hash=QUICK.hash(PASSWORD)
        )
        await users.insert_member(tx, account_id=house.account_id, user_id=user_id, role=role)
    return user_id


async def log_in(
    face: Face, house: House, email: str = ANN, password: str = PASSWORD, **more: Any
) -> Bursar:
    """A client of somebody who has signed in."""
    kind = cast("type[Bursar]", AsyncBursar if face.is_awaited else Bursar)
    client = await face.do(kind.log_in, email, password, base_url=house.url, **more)
    face.clients.append(client)
    return client


@pytest.fixture
async def ann_id(house: House) -> int:
    """An owner."""
    return await add(house, ANN, "owner")


@pytest.fixture
async def ann(face: Face, house: House, ann_id: int) -> Bursar:
    """An owner who has signed in."""
    return await log_in(face, house)


@contextmanager
def letters() -> Iterator[list[MutableMapping[str, Any]]]:
    """What would have been sent by mail."""
    with capture_logs() as logs:
        yield logs


async def token_in(logs: list[MutableMapping[str, Any]]) -> str:
    """The token in the last letter's link."""

    def found() -> list[str]:
        texts = [line["text"] for line in logs if line["event"] == "mail_printed"]
        return re.findall(r"#(blt_[0-9a-f]+)", "\n".join(texts))

    await until(lambda: bool(found()))
    return found()[-1]


async def test_whoever_signs_in_acts_as_themselves(
    face: Face, house: House, ann: Bursar, ann_id: int
) -> None:
    me = await face.do(ann.users.me)
    assert (me.id, me.email, me.role, me.is_enabled) == (ann_id, ANN, "owner", True)
    assert (await face.do(ann.account.get)).balance == 10
    key = await face.do(ann.api_keys.create, "mine")
    assert key.user_id == ann_id
    assert (await face.do(ann.users.rename_me, "Ann A.")).name == "Ann A."
    [session] = await face.do(ann.auth.list_sessions)
    assert (session.is_current, session.account_id) == (True, 1)
    assert session.device.startswith("bursar-python/")
    await face.do(ann.log_out)
    with pytest.raises(Exception, match="sign in again"):
        await face.do(ann.users.me)


@pytest.mark.usefixtures("ann_id")
async def test_a_wrong_password_is_one_error_and_nothing_is_kept(face: Face, house: House) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await log_in(face, house, password="wrong", keep="file")
    assert refused.value.code == "invalid_credentials"
    assert refused.value.request_id
    assert not (configuration.profiles_path().parent / "sessions").exists()
    with pytest.raises((RateLimited, Unauthenticated)) as refused:
        for _ in range(20):
            await log_in(face, house, password="wrong", max_retries=0)
        pytest.fail("nobody stopped it")


async def test_a_sign_in_that_is_kept_is_there_for_the_next_program_until_it_is_ended(
    face: Face, house: House, ann_id: int
) -> None:
    await log_in(face, house, keep="file")
    later = face.client()
    assert later.options.base_url == house.url
    assert (await face.do(later.users.me)).id == ann_id
    await face.do(later.log_out)
    assert face.client().options.session is None


async def test_a_token_that_is_over_is_renewed_once_for_all_calls(
    face: Face, house: House, ann_id: int
) -> None:
    await log_in(face, house, keep="file")
    path = configuration.profiles_path().parent / "sessions" / "default.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({**kept, "renew_from_s": 0, "access_until_s": 0}))
    asked: list[str] = []

    def note(request: httpx2.Request) -> None:
        asked.append(request.url.path)

    async def note_async(request: httpx2.Request) -> None:
        note(request)

    http: Any = (
        httpx2.AsyncClient(event_hooks={"request": [note_async]})
        if face.is_awaited
        else httpx2.Client(event_hooks={"request": [note]})
    )
    client = face.client(http_client=http)
    found = await asyncio.gather(*(face.do(client.users.me) for _ in range(6)))
    assert [each.id for each in found] == [ann_id] * 6
    assert asked.count("/v1/auth/refresh") == 1
    fresh = json.loads(path.read_text())
    assert fresh["refresh_token"] != kept["refresh_token"]
    # A second client, which had read the old ones, goes on with the new ones.
    assert (await face.do(face.client().users.me)).id == ann_id
    await face.do(http.aclose if face.is_awaited else http.close)


async def test_a_second_factor_is_enrolled_asked_for_and_removed(
    face: Face, house: House, ann: Bursar
) -> None:
    assert not (await face.do(ann.auth.second_factor)).is_enrolled
    enrolment = await face.do(ann.auth.begin_second_factor, PASSWORD)
    assert enrolment.secret not in repr(enrolment)
    app = pyotp.TOTP(enrolment.secret)
    codes = (await face.do(ann.auth.confirm_second_factor, app.now())).recovery_codes
    assert len(codes) == 10
    with pytest.raises(Unauthenticated) as refused:
        await log_in(face, house)
    assert refused.value.code == "second_factor_required"
    again = await log_in(face, house, code=codes[0])
    assert (await face.do(again.auth.second_factor)).recovery_codes_left == 9
    renewed = await face.do(again.auth.renew_recovery_codes, PASSWORD, code=codes[1])
    assert codes[2] not in renewed.recovery_codes
    await face.do(again.auth.remove_second_factor, PASSWORD, code=renewed.recovery_codes[0])
    await log_in(face, house)


async def test_a_password_is_changed_and_other_sessions_end(
    face: Face, house: House, ann: Bursar
) -> None:
    other = await log_in(face, house)
    await face.do(ann.auth.change_password, PASSWORD, new_password="another long password")
    assert (await face.do(ann.users.me)).email == ANN
    with pytest.raises(Unauthenticated):
        await face.do(other.users.me)
    with pytest.raises(InvalidRequest) as refused:
        await face.do(ann.auth.change_password, "another long password", new_password="short")
    assert refused.value.code == "weak_password"
    third = await log_in(face, house, password="another long password")
    sessions = await face.do(ann.auth.list_sessions)
    [elsewhere] = [each.id for each in sessions if not each.is_current]
    await face.do(ann.auth.end_session, elsewhere)
    with pytest.raises(Unauthenticated):
        await face.do(third.users.me)
    assert (await face.do(ann.auth.log_out_everywhere)).ended == 1
    with pytest.raises(Unauthenticated):
        await face.do(ann.users.me)


@pytest.mark.usefixtures("ann_id")
async def test_a_forgotten_password_is_replaced_by_letter(face: Face, house: House) -> None:
    nobody = face.client(base_url=house.url)
    with letters() as logs:
        await face.do(nobody.auth.request_password_reset, ANN)
        token = await token_in(logs)
    await face.do(nobody.auth.reset_password, token, password="a fresh long password")
    await log_in(face, house, password="a fresh long password")
    with pytest.raises(Unauthenticated):
        await log_in(face, house)


async def test_somebody_is_invited_joins_and_is_taken_out(
    face: Face, house: House, ann: Bursar, ann_id: int
) -> None:
    with letters() as logs:
        invitation = await face.do(ann.users.invite, "bob@example.test", role="viewer")
        assert (invitation.email, invitation.role) == ("bob@example.test", "viewer")
        token = await token_in(logs)
    assert [each.id for each in await face.do(ann.users.list_invitations)] == [invitation.id]
    nobody = face.client(base_url=house.url)
    joined = await face.do(
        nobody.auth.accept_invitation, token, password="bob's long password", name="Bob"
    )
    assert (joined.account_id, joined.role) == (1, "viewer")
    bob = await log_in(face, house, "bob@example.test", "bob's long password")
    with pytest.raises(Forbidden):
        await face.do(bob.api_keys.create, "not mine")
    everybody = await face.all(ann.users.list(page_size=1))
    assert {ann_id, joined.user_id} <= {each.id for each in everybody}
    changed = await face.do(ann.users.update, joined.user_id, role="admin")
    assert changed == await face.do(ann.users.get, joined.user_id)
    with pytest.raises(Forbidden):
        await face.do(bob.users.update, ann_id, role="viewer")
    assert not (await face.do(ann.users.update, joined.user_id, is_enabled=False)).is_enabled
    await face.do(ann.users.update, joined.user_id, is_enabled=True)
    await face.do(ann.users.remove, joined.user_id)
    with pytest.raises(Unauthenticated):
        await face.do(bob.users.me)
    with pytest.raises(NotFound):
        await face.do(ann.users.get, joined.user_id)


async def test_an_invitation_is_withdrawn_and_an_account_is_left(
    face: Face, house: House, ann: Bursar
) -> None:
    invitation = await face.do(ann.users.invite, "carl@example.test")
    assert invitation.role == "member"
    await face.do(ann.users.withdraw_invitation, invitation.id)
    assert len(await face.do(ann.users.list_invitations)) == 0
    await add(house, "dora@example.test", "member")
    dora = await log_in(face, house, "dora@example.test")
    await face.do(dora.users.leave)
    with pytest.raises(Unauthenticated):
        await face.do(dora.users.me)


async def test_the_last_owner_cannot_leave(face: Face, house: House, ann: Bursar) -> None:
    for user in await face.all(ann.users.list()):
        if user.email != ANN:
            await face.do(ann.users.remove, user.id)
    with pytest.raises(Conflict) as refused:
        await face.do(ann.users.leave)
    assert refused.value.code == "last_owner"


async def test_tokens_may_be_had_and_ended_by_hand(face: Face, house: House, ann_id: int) -> None:
    nobody = face.client(base_url=house.url)
    first = await face.do(nobody.auth.sign_in, ANN, PASSWORD, account_id=1)
    assert (first.user_id, first.token_type) == (ann_id, "Bearer")
    second = await face.do(nobody.auth.refresh, first.refresh_token)
    by_hand = face.client(second.access_token, base_url=house.url)
    assert (await face.do(by_hand.users.me)).id == ann_id
    await face.do(nobody.auth.revoke, second.refresh_token)
    with pytest.raises(Unauthenticated):
        await face.do(by_hand.users.me)


async def test_a_passkey_is_made_signs_in_and_is_removed(
    face: Face, house: House, ann: Bursar, ann_id: int
) -> None:
    device = Device("http://localhost:8080")
    asked = await face.do(ann.auth.passkeys.begin, password=PASSWORD)
    made = await face.do(ann.auth.passkeys.create, "Laptop", credential=device.make(asked.options))
    assert made.recovery_codes is not None
    assert len(made.recovery_codes) == 10
    nobody = face.client(base_url=house.url)
    challenge = await face.do(nobody.auth.passkeys.begin_sign_in)
    found = await face.do(nobody.auth.passkeys.sign_in, device.use(challenge.options))
    assert found.user_id == ann_id
    again = await face.do(ann.auth.passkeys.rename, made.passkey.id, name="Old laptop")
    assert [each.name for each in await face.do(ann.auth.passkeys.list)] == [again.name]
    await face.do(
        ann.auth.passkeys.remove, again.id, password=PASSWORD, code=made.recovery_codes[0]
    )
    assert len(await face.do(ann.auth.passkeys.list)) == 0
