"""People go on where they were after the server was killed, and so does whoever guesses."""

from __future__ import annotations

import stat

import httpx2
import pytest

from tests.live import Installation

pytestmark = pytest.mark.faults


def _post(made: Installation, path: str, **fields: object) -> httpx2.Response:
    return httpx2.post(f"{made.url}/v1/auth/{path}", json=fields, timeout=30)


def test_a_session_and_the_count_of_tries_survive_a_kill(made: Installation) -> None:
    made.start()
    secrets = made.secrets
    found = _post(made, "login", email=secrets.email.upper(), password=secrets.password).json()
    headers = {"authorization": f"Bearer {found['access_token']}"}
    wrong = [_post(made, "login", email=secrets.email, password="wrong") for _ in range(5)]
    assert {response.status_code for response in wrong} == {401}
    asked = _post(made, "password-reset", email=secrets.email)
    assert asked.status_code == 202
    key_file = made.data_dir / "secret.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    before = key_file.read_bytes()
    made.kill()
    made.start()
    assert key_file.read_bytes() == before
    shown = httpx2.get(f"{made.url}/v1/account/users/me", headers=headers, timeout=30)
    assert shown.json()["role"] == "owner"
    assert _post(made, "refresh", refresh_token=found["refresh_token"]).status_code == 200
    wrong = [_post(made, "login", email=secrets.email, password="wrong") for _ in range(7)]
    assert [response.status_code for response in wrong] == [401] * 5 + [429] * 2
    made.verify()
