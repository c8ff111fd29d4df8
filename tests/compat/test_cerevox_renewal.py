"""A sign-in of the client in Cerevox's form goes on by itself, whatever the clocks say."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine

from bursar.compat.cerevox import Account, AccountError, AsyncAccount
from tests.compat.scripted import Asked, Said, scripted, words

ME = "/v1/users/me"


class Strict:
    """A server whose clock is years off, and that forgives no refresh token that comes twice."""

    def __init__(self) -> None:
        self.turn = 0
        self.renewals = 0
        self.expires_in = 900
        self.pause_s = 0.0
        self.is_down = False
        self._lock = threading.Lock()

    def answer(self, asked: Asked) -> Said:
        """What it says."""
        _, path, bearer, body = asked
        if path == "/v1/token/login":
            return words(200, self._tokens())
        if "refresh" in path:
            return self._renew(str(body["refresh_token"]))
        if bearer != f"access{self.turn}":
            return words(401, {"error": "Authentication failed.", "error_type": "invalid_token"})
        user = dict.fromkeys(("account_id", "name", "role", "created_at", "status"), "x")
        user |= {"user_id": "2", "email": "a@b.example"}
        return words(200, {**user, "isadmin": True, "isbanned": False})

    def _renew(self, token: str) -> Said:
        with self._lock:
            self.renewals += 1
            if self.is_down:
                return words(503, {"error": "Try again.", "error_type": "database_unavailable"})
            if token != f"refresh{self.turn}":
                return words(401, {"error": "Used before.", "error_type": "refresh_reused"})
            self.turn += 1
            found = self._tokens()
        time.sleep(self.pause_s)
        return words(200, found)

    def _tokens(self) -> dict[str, Any]:
        return {
            "access_token": f"access{self.turn}",
            "refresh_token": f"refresh{self.turn}",
            "expires_in": self.expires_in,
            # Of both forms that there are: by its own clock all of it is over.
            "expires_at": "2001-01-01T00:15:00Z" if self.renewals else 978_308_100,
            "refresh_token_expires_at": "2001-01-31T00:00:00Z",
            "token_type": "Bearer",
            "session_id": 3,
            "user_id": 2,
            "account_id": 1,
            "role": "admin",
        }


@pytest.fixture
def strict() -> Strict:
    """The server."""
    return Strict()


@pytest.fixture
def url(strict: Strict) -> Iterator[str]:
    """Its address."""
    with scripted(strict.answer) as found:
        yield found


def test_a_clock_that_differs_from_the_servers_renews_nothing_before_its_time(
    strict: Strict, url: str
) -> None:
    with Account(base_url=url) as account:
        account.login("a@b.example", "x")
        for _ in range(3):
            assert account.get_user_me().user_id == "2"
        assert strict.renewals == 0
        with time_machine.travel(time.time() + 850):
            assert account.get_user_me().user_id == "2"
            assert account.get_user_me().user_id == "2"
    assert strict.renewals == 1


def test_a_token_that_the_server_takes_for_over_is_renewed(strict: Strict) -> None:
    def in_a_hurry(asked: Asked) -> Said:
        if asked[2] == "access0":
            return words(401, {"error": "It is over.", "error_type": "invalid_token"})
        return strict.answer(asked)

    with scripted(in_a_hurry) as url, Account(base_url=url) as account:
        account.login("a@b.example", "x")
        assert account.get_user_me().user_id == "2"
        assert account.get_user_me().user_id == "2"
    assert strict.renewals == 1


def test_a_token_that_is_good_is_used_while_it_cannot_be_renewed(strict: Strict, url: str) -> None:
    with Account(base_url=url) as account:
        account.login("a@b.example", "x")
        strict.is_down = True
        with time_machine.travel(time.time() + 850):
            assert account.get_user_me().user_id == "2"
        strict.is_down = False
        with time_machine.travel(time.time() + 1_000):
            assert account.get_user_me().user_id == "2"
    assert strict.turn == 1


def test_threads_that_share_a_client_renew_once(strict: Strict, url: str) -> None:
    strict.pause_s = 0.2
    with Account(base_url=url) as account:
        account.login("a@b.example", "x")
        with time_machine.travel(time.time() + 1_000), ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda _: account.get_user_me().user_id, range(8)))
    assert found == ["2"] * 8
    assert (strict.renewals, strict.turn) == (1, 1)


async def test_tasks_that_share_a_client_renew_once(strict: Strict, url: str) -> None:
    strict.pause_s = 0.2
    async with AsyncAccount(base_url=url) as account:
        await account.login("a@b.example", "x")
        with time_machine.travel(time.time() + 1_000):
            found = await asyncio.gather(*(account.get_user_me() for _ in range(8)))
    assert [each.user_id for each in found] == ["2"] * 8
    assert (strict.renewals, strict.turn) == (1, 1)


async def test_whoever_is_cancelled_while_renewing_loses_no_sign_in(
    strict: Strict, url: str
) -> None:
    strict.pause_s = 0.3
    async with AsyncAccount(base_url=url) as account:
        await account.login("a@b.example", "x")
        with time_machine.travel(time.time() + 1_000):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await account.get_user_me()
            assert (await account.get_user_me()).user_id == "2"
    assert (strict.renewals, strict.turn) == (1, 1)


def test_a_sign_in_that_is_over_says_so(strict: Strict, url: str) -> None:
    with Account(base_url=url) as account:
        account.login("a@b.example", "x")
        strict.turn = 5
        with pytest.raises(AccountError) as refused:
            account.get_user_me()
        assert (refused.value.status_code, refused.value.code) == (401, "refresh_reused")
        with pytest.raises(AccountError, match="sign in again"):
            account.get_user_me()
