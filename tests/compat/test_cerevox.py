"""The client in the form of Cerevox's: its documentation's examples, and what they leave out."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import keyring
import pytest
import time_machine
from keyring.backend import KeyringBackend

from bursar import Bursar
from bursar.compat import cerevox
from bursar.compat.cerevox import Account, AccountError, AsyncAccount
from tests.compat.conftest import MODEL, PRICES
from tests.copies import Template
from tests.live import Installation
from tests.upstream_double import ScriptedUpstream

EXAMPLES = Path(__file__).with_name("cerevox_examples.md")


@pytest.fixture(scope="module")
def shared(on_sqlite: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server that these tests share."""
    folder = tmp_path_factory.mktemp("shared") / "data"
    shutil.copytree(on_sqlite.folder, folder)
    found = Installation(folder, on_sqlite.secrets)
    with ScriptedUpstream.in_thread() as upstream:
        found.load_prices(PRICES)
        found.configure({"name": "local", "base_url": upstream.base_url, "models": [MODEL]})
        found.start()
        try:
            yield found
        finally:
            found.close()


@pytest.fixture
def house(shared: Installation, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """That server; the environment has its address and its provisioning key."""
    monkeypatch.setenv("BURSAR_BASE_URL", f"{shared.url}/v1")
    monkeypatch.setenv("BURSAR_API_KEY", shared.secrets.provisioning_key)
    return shared


@pytest.fixture
def account(house: Installation) -> Iterator[Account]:
    """A client with the provisioning key, which the environment has."""
    with Account() as found:
        yield found


class Memory(KeyringBackend):
    """A keyring that ends with the test."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class Schedule(ModuleType):
    """A calendar whose day comes when the test says so: `schedule`, as far as it is used."""

    def __init__(self) -> None:
        super().__init__("schedule")
        self.jobs: list[Callable[[], None]] = []

    def every(self) -> Schedule:
        return self

    @property
    def day(self) -> Schedule:
        return self

    def at(self, moment: str) -> Schedule:
        assert moment == "09:00"
        return self

    def do(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)


def blocks(kind: str) -> list[str]:
    """The documentation's blocks of one kind, in their order."""
    return re.findall(rf"^```{kind}\n(.*?)^```", EXAMPLES.read_text("utf-8"), re.M | re.S)


def test_every_example_of_the_documentation_runs(
    served: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets, schedule, memory = served.secrets, Schedule(), Memory()
    monkeypatch.setenv("BURSAR_BASE_URL", served.url)
    monkeypatch.setitem(sys.modules, "schedule", schedule)
    before = keyring.get_keyring()
    keyring.set_keyring(memory)
    told: list[str] = []
    # What the examples take for given.
    names: dict[str, Any] = {
        "__name__": "examples",
        "email": secrets.email,
        "password": secrets.password,
        "notify_team": told.append,
    }
    printed = io.StringIO()
    try:
        for block in blocks("python"):
            text = block.replace("your-api-key", secrets.provisioning_key)
            text = text.replace("user@example.com", secrets.email, 1) if "login(" in text else text
            text = text.replace("secure-password", secrets.password)
            with contextlib.redirect_stdout(printed):
                exec(compile(text, EXAMPLES, "exec"), names)  # noqa: S102
    finally:
        keyring.set_keyring(before)
    said = printed.getvalue()
    for words in (
        "Access Token: eyJ",
        "Refresh Token: brt_",
        "Expires in: ",
        "Account ID: 1",
        f"Email: {secrets.email}",
        "Plan: default",
        "Status: active",
        "API Calls: 0",
        "Documents Processed: 0",
        "Storage Used: 0 bytes",
        "Created user: newuser@example.com",
        "Current period cost: $0",
        "Added: dev2@company.com",
        "Added: manager@company.com",
    ):
        assert words in said, said
    assert "Warning" not in said
    assert memory.kept["cerevox", "access_token"] == names["access_token"]
    assert list(names["df"]["requests"]) == [0] * 12
    with Account() as own:
        statuses = {user.email: (user.role, user.status) for user in own.list_users()}
        token = names["get_valid_token"](own.login(secrets.email, secrets.password))
    assert token.startswith("eyJ")
    assert statuses["manager@company.com"] == ("admin", "pending")
    assert statuses["newuser@example.com"] == ("member", "pending")
    [job] = schedule.jobs
    job()
    assert told == []
    with Bursar(base_url=served.url) as bursar:
        bursar.limits.set(scope="account", resource="requests", window="month", limit=1)
    call_a_model(served)
    job()
    assert told == ["Usage at 100%"]
    served.verify()


def test_every_documented_field_is_there_and_of_its_kind(account: Account) -> None:
    shown: dict[str, Any] = {
        "AccountInfo": account.get_account_info(),
        "UsageStats": account.get_usage(),
        "BillingInfo": account.get_billing_info(),
    }
    for block in blocks("models"):
        name, _, text = block.partition("\n")
        documented: dict[str, Any] = ast.literal_eval(text)
        found = shown.pop(name)
        assert type(found) is getattr(cerevox, name)
        for field, example in documented.items():
            value = getattr(found, field)
            if isinstance(example, dict):
                assert set(example) <= set(value), field
            elif isinstance(example, float):
                assert isinstance(value, Decimal), field
            else:
                assert type(value) is type(example), field
            if isinstance(example, str) and re.match("[0-9]{4}-", example):
                assert re.fullmatch(re.sub("[0-9]", "[0-9]", example), value), field
    assert shown == {}


def call_a_model(house: Installation) -> Decimal:
    """What one call of a model has cost."""
    with Bursar(house.secrets.inference_key, base_url=house.url) as caller:
        caller.chat.complete(model=MODEL, messages=[{"role": "user", "content": "Hello!"}])
    with Bursar(base_url=house.url) as own:
        return sum((event.cost for event in own.usage.events()), Decimal(0))


def test_every_figure_is_the_ledgers(account: Account, house: Installation) -> None:
    spent = call_a_model(house)
    assert spent > 0
    usage, bill = account.get_usage(), account.get_billing_info()
    assert usage.estimated_cost == bill.total_cost == spent
    assert bill.breakdown["gateway_cost"] == sum(bill.breakdown.values()) == spent
    assert usage.total_requests == account.get_account_usage("1").total_requests >= 1
    assert account.get_usage(date(2025, 1, 1), date(2025, 1, 31)).total_requests == 0
    assert account.get_account_plan().plan == "default"
    assert account.get_account_plan().base == usage.rate_limit


def test_users_are_made_changed_and_deleted(account: Account) -> None:
    made = account.create_user("ann@example.com", "Ann", role="viewer")
    assert (made.created, made.name, made.role, made.isadmin) == (True, "Ann", "viewer", False)
    assert account.update_user(made.user_id, name="Anna").name == "Anna"
    assert account.get_user(made.user_id).status == "pending"
    assert "Anna" in [user.name for user in account.get_users()]
    with pytest.raises(AccountError, match="address") as refused:
        account.delete_user(made.user_id, "bob@example.com")
    assert refused.value.validation_errors == {"email": "This is not the user's address."}
    assert account.delete_user(made.user_id, "ann@example.com").deleted is True
    with pytest.raises(AccountError) as refused:
        account.get_user_by_id(made.user_id)
    assert (refused.value.status_code, refused.value.code) == (404, "not_found")
    assert refused.value.request_id is not None
    assert account.update_user_me("Olga").name == "Olga"


def test_whoever_signs_in_is_who_calls_until_they_sign_out(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BURSAR_API_KEY")
    secrets = house.secrets
    with Account() as account:
        with pytest.raises(AccountError, match="no API key"):
            account.get_account_info()
        first = account.login(secrets.email, secrets.password)
        assert first.access_token not in repr(first)
        assert first.expires_in <= 900
        assert account.get_user_me().email == secrets.email
        # As it will be in a quarter of an hour.
        with time_machine.travel(first.expires_at - 59, tick=False):
            assert account.get_user_me().email == secrets.email
        second = account.refresh_token(first.refresh_token)
        assert second.refresh_token != first.refresh_token


def test_a_revoked_session_is_over(house: Installation) -> None:
    secrets = house.secrets
    with Account() as account, Account() as other:
        account.login(secrets.email, secrets.password)
        kept = other.login(secrets.email, secrets.password)
        assert account.revoke_token().status == "success"
        # The key is what is left.
        assert account.get_account_info().account_id == "1"
        with pytest.raises(AccountError, match="access token"):
            account.revoke_token()
        assert other.refresh_token(kept.refresh_token).token_type == "Bearer"


def test_errors_have_the_words_that_the_documentation_looks_for(house: Installation) -> None:
    secrets = house.secrets
    with Account("sk_live_abc123...") as nobody, pytest.raises(AccountError) as refused:
        nobody.get_account_info()
    assert "authentication" in str(refused.value).lower()
    with Account() as account:
        with pytest.raises(AccountError) as refused:
            account.login(secrets.email, "wrong password")
        assert "authentication" in str(refused.value).lower()
        assert refused.value.status_code == 401
    with Bursar(base_url=house.url) as own:
        viewer = own.api_keys.create("looks", credit_limit=None).key
    with Account(viewer) as caller, pytest.raises(AccountError, match="provisioning key"):
        caller.get_account_info()
    with Account("bpk_x", "http://127.0.0.1:9/v1", max_retries=0) as away:
        with pytest.raises(AccountError, match="cannot be reached") as unreached:
            away.get_account_info()
        assert unreached.value.status_code is None
    with pytest.raises(AccountError, match="base URL"):
        Account("bpk_x", "nowhere")


async def test_the_awaited_client_does_the_same(house: Installation) -> None:
    secrets = house.secrets
    async with AsyncAccount() as account:
        assert (await account.get_account_info()).account_id == "1"
        usage, bill = await account.get_usage(), await account.get_billing_info()
        assert usage.estimated_cost == bill.total_cost
        made = await account.create_user("amy@example.com", role="member")
        assert [user.email for user in await account.list_users()][-1] == made.email
        assert (await account.update_user(made.user_id, "Anna")).updated is True
        assert (await account.delete_user(made.user_id, made.email)).deleted is True
        tokens = await account.login(secrets.email, secrets.password)
        assert (await account.refresh_token(tokens.refresh_token)).expires_in > 60
        assert (await account.get_user_me()).email == secrets.email
        assert (await account.revoke_token()).status == "success"
        with pytest.raises(AccountError):
            await account.get_user("99")


def test_both_faces_have_the_same_methods() -> None:
    def methods(face: type) -> dict[str, object]:
        found = {name: vars(face)[name] for name in vars(face) if not name.startswith("_")}
        described = {name: getattr(each, "describe", None) for name, each in found.items()}
        return {name: describe for name, describe in described.items() if describe is not None}

    assert methods(Account) == methods(AsyncAccount)
    assert len(methods(Account)) == 19
    for name in methods(Account):
        assert inspect.getdoc(getattr(Account, name)), name
