"""What is taken from a person is refused by every worker within five seconds, mostly at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from bursar.store.database import Database
from bursar.store.tenants import users
from bursar.worker.plane import wall_clock_ms
from tests import crowd
from tests.live import Installation
from tests.people.house import PASSWORD, QUICK

WORKERS = 2
BOUND_S = 5.0
NEW = "a quite different phrase"
pytestmark = [pytest.mark.faults, pytest.mark.parametrize("kind", ["postgres"])]


@pytest.fixture
def several(made: Installation) -> Iterator[Installation]:
    """An installation with an admin, served by several processes."""

    async def work() -> None:
        database = Database(made.database_url, clock_ms=wall_clock_ms)
        try:
            async with database.write() as tx:
                user_id = await users.insert_user(
                    tx, email="ann@example.test", name="Ann", password_hash=QUICK.hash(PASSWORD)
                )
                await users.insert_member(
                    tx, account_id=made.secrets.account_id, user_id=user_id, role="admin"
                )
        finally:
            await database.close()

    crowd.run(work())
    made.environment["BURSAR_WORKERS"] = str(WORKERS)
    made.start()
    yield made
    made.verify()


def send(made: Installation, method: str, path: str, token: str, **json: Any) -> httpx2.Response:
    """One request on a connection of its own: whichever worker takes it."""
    headers = {"authorization": f"Bearer {token}"}
    body = {"json": json} if json else {}
    return httpx2.request(method, f"{made.url}{path}", headers=headers, timeout=30, **body)


def enter(made: Installation, password: str = PASSWORD) -> dict[str, Any]:
    """Sign in; the tokens."""
    body = {"email": "ann@example.test", "password": password}
    entered = httpx2.post(f"{made.url}/v1/auth/login", json=body, timeout=30)
    assert entered.status_code == 200, entered.text
    found: dict[str, Any] = entered.json()
    return found


def require_refused(asked: Callable[[], int], status: int) -> None:
    """After five seconds at the latest every request is refused, whichever worker takes it."""
    done = time.monotonic()
    late = 0.0
    while time.monotonic() < done + BOUND_S + 1:
        sent = time.monotonic()
        if (found := asked()) != status:
            assert found in {200, 201}
            late = sent - done
        time.sleep(0.02)
    assert late < BOUND_S


def test_role_disabling_and_password_hold_on_every_worker_within_five_seconds(
    several: Installation,
) -> None:
    tokens, other = enter(several), enter(several)
    user = f"/v1/account/users/{tokens['user_id']}"
    key = several.secrets.provisioning_key

    def makes_keys() -> int:
        made = send(several, "POST", "/v1/account/keys", tokens["access_token"], name="Ann's")
        return made.status_code

    def reads(token: str) -> int:
        return send(several, "GET", "/v1/account", token).status_code

    for _ in range(4 * WORKERS):
        assert makes_keys() == 201
        assert reads(other["access_token"]) == 200
    demoted = send(several, "PATCH", user, key, role="viewer")
    assert demoted.status_code == 200, demoted.text
    require_refused(makes_keys, 403)
    body = {"current_password": PASSWORD, "new_password": NEW}
    changed = send(several, "POST", "/v1/auth/password", tokens["access_token"], **body)
    assert changed.status_code == 204, changed.text
    require_refused(lambda: reads(other["access_token"]), 401)
    assert reads(tokens["access_token"]) == 200
    again = enter(several, NEW)
    disabled = send(several, "PATCH", user, key, is_enabled=False)
    assert disabled.status_code == 200, disabled.text
    require_refused(lambda: min(reads(each["access_token"]) for each in (tokens, again)), 401)
