"""What can go wrong on the way, with clients of other shapes: their own error, and the truth."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bursar.compat.cerevox import Account, AccountError, AsyncAccount
from bursar.compat.venice_sdk import VeniceClient
from bursar.compat.venice_sdk.errors import (
    APIKeyError,
    BillingError,
    VeniceAPIError,
    VeniceConnectionError,
)
from tests.authority import DAY, NOW, Authority
from tests.compat.scripted import HTML, Said, scripted, words
from tests.sdk.test_failures import answer, listening, saying

HELLO = [{"role": "user", "content": "Hello!"}]
FOREIGN = (HTML, b"", b"{}", b"[]", b"null", b'{"data":null}', b'{"data":{}}', b'{"data":[1]}')
VENICE: dict[str, Callable[[VeniceClient], Any]] = {
    "list": lambda client: client.api_keys.list(),
    "get": lambda client: client.api_keys.get("7"),
    "create": lambda client: client.api_keys.create("n"),
    "delete": lambda client: client.api_keys.delete("7"),
    "rate_limits": lambda client: client.api_keys.get_rate_limits(),
    "rate_limits_log": lambda client: client.api_keys.get_rate_limits_log(),
    "usage": lambda client: client.billing.get_usage(),
    "usage_by_model": lambda client: client.billing.get_usage_by_model(),
    "billing_summary": lambda client: client.billing.get_billing_summary(),
    "credits": lambda client: client.billing.get_credits_remaining(),
    "account_summary": lambda client: client.get_account_summary(),
    "rate_limit_status": lambda client: client.get_rate_limit_status(),
    "complete": lambda client: client.chat.complete(HELLO),
    "stream": lambda client: list(client.chat.complete(HELLO, stream=True)),
}
CEREVOX = sorted(
    name for name, each in vars(Account).items() if hasattr(each, "describe") and name[0] != "_"
)


def call_cerevox(client: Any, name: str) -> Any:
    """Call a method with what it must have."""
    method = getattr(client, name)
    needed = inspect.signature(method).parameters.values()
    return method(*("7" for each in needed if each.default is each.empty))


@pytest.mark.parametrize("name", VENICE)
def test_no_call_of_venices_takes_another_programs_answer_for_its_own(name: str) -> None:
    for body in FOREIGN:
        with scripted(lambda _, body=body: (200, body)) as url:
            client = VeniceClient("bpk_x", url, max_retries=0)
            with client, pytest.raises(VeniceAPIError, match=r"base URL|versions"):
                VENICE[name](client)


@pytest.mark.parametrize("name", CEREVOX)
async def test_no_call_of_cerevoxs_takes_another_programs_answer_for_its_own(name: str) -> None:
    for body in FOREIGN:
        with scripted(lambda _, body=body: (200, body)) as url:
            async with AsyncAccount("bpk_x", url, max_retries=0) as client:
                with pytest.raises(AccountError, match=r"base URL|versions"):
                    await call_cerevox(client, name)


def test_a_cut_connection_is_no_answer() -> None:
    with scripted(lambda _: None) as url:
        with VeniceClient("bpk_x", url, max_retries=0) as client:
            for name, kind in (("list", APIKeyError), ("usage", BillingError)):
                with pytest.raises(kind, match="broke"):
                    VENICE[name](client)
            with pytest.raises(VeniceConnectionError):
                VENICE["complete"](client)
        with Account("bpk_x", url, max_retries=0) as account:
            with pytest.raises(AccountError, match="broke") as refused:
                account.get_account_info()
            assert refused.value.status_code is None


def test_a_refusal_of_ten_megabytes_is_one() -> None:
    with scripted(lambda _: (500, b"x" * 10_000_000)) as url:
        with VeniceClient("bpk_x", url, max_retries=0) as client:
            with pytest.raises(APIKeyError) as refused:
                client.api_keys.list()
            assert refused.value.status_code == 500
            assert len(str(refused.value)) < 400
        with Account("bpk_x", url, max_retries=0) as account:
            with pytest.raises(AccountError) as failed:
                account.get_usage()
            assert failed.value.status_code == 500
            assert len(str(failed.value)) < 400


async def test_a_server_that_cannot_prove_who_it_is_gets_nothing(tmp_path: Path) -> None:
    import asyncio

    tls = Authority().serve(tmp_path, host="127.0.0.1", until=NOW + DAY)
    async with listening(saying(answer(b"{}")), tls=tls) as where:
        url = f"https://{where}"
        client = VeniceClient("bpk_x", url)
        with client, pytest.raises(APIKeyError, match="certificate"):
            await asyncio.to_thread(client.api_keys.list)
        async with AsyncAccount("bpk_x", url) as account:
            with pytest.raises(AccountError, match="certificate"):
                await account.get_account_info()


def answers(*said: Said) -> Callable[[Any], Said]:
    """Answer so, one after the other."""
    left = list(said)
    return lambda _: left.pop(0)


GONE = words(404, {"error": "There is nothing here.", "code": "NOT_FOUND"})
BUSY = words(503, {"error": "Try again shortly.", "error_type": "database_unavailable"})


def test_a_deletion_whose_answer_was_lost_is_done() -> None:
    with scripted(answers(None, GONE)) as url, VeniceClient("bpk_x", url) as client:
        assert client.api_keys.delete("7") is True
    with scripted(answers(None, GONE)) as url, Account("bpk_x", url) as account:
        assert account.delete_user("7", "a@b.example").deleted is True


def test_a_deletion_that_was_turned_away_is_not_done() -> None:
    with scripted(answers(BUSY, GONE)) as url, VeniceClient("bpk_x", url) as client:
        assert client.api_keys.delete("7") is False
    with scripted(answers(BUSY, GONE)) as url, Account("bpk_x", url) as account:
        with pytest.raises(AccountError) as refused:
            account.delete_user("7", "a@b.example")
        assert refused.value.status_code == 404


def test_there_is_no_key_without_an_id() -> None:
    with VeniceClient("bpk_x", "http://127.0.0.1:9") as client:
        for key_id in ("", ".", ".."):
            assert client.api_keys.get(key_id) is None
        assert client.api_keys.delete("") is False
