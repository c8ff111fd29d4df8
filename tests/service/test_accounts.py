"""Accounts open with a wallet, stop and go on; an installation begins once."""

from __future__ import annotations

import pytest

from bursar.core import secrets
from bursar.core.errors import Conflict, Invalid, NotFound
from bursar.core.secrets import KeyKind
from bursar.service import accounts, ledger
from bursar.service.accounts import Installation
from bursar.store import changes, credentials
from bursar.store.database import Database
from tests.installations import NANOS, Randomness


async def open_account(database: Database, **fields: object) -> accounts.Account:
    given = {"name": "Acme", "time_zone": "UTC", "credit_nanos": 0, "actor": "test", **fields}
    async with database.write() as tx:
        return await accounts.create(tx, **given)  # type: ignore[arg-type]


async def test_an_account_opens_with_its_credit_and_a_line_in_its_statement(
    database: Database,
) -> None:
    account = await open_account(database, name="  Acme  ", credit_nanos=5 * NANOS)
    assert (account.row.name, account.row.status) == ("Acme", "active")
    async with database.read() as tx:
        assert await ledger.get_balance(tx, account_id=account.row.id) == 5 * NANOS
        entries = await ledger.list_entries(tx, account_id=account.row.id, behind=None, limit=9)
    assert [(entry.kind, entry.amount_nanos) for entry in entries] == [("grant", 5 * NANOS)]


async def test_an_account_without_credit_has_an_empty_wallet(database: Database) -> None:
    account = await open_account(database)
    async with database.read() as tx:
        assert (await accounts.get(tx, account_id=account.row.id)).balance_nanos == 0
        entries = await ledger.list_entries(tx, account_id=account.row.id, behind=None, limit=9)
    assert entries == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": " "}, "invalid_name"),
        ({"name": "a\nb"}, "invalid_characters"),
        ({"time_zone": "../../etc/passwd"}, "invalid_timezone"),
        ({"credit_nanos": -1}, "invalid_amount"),
    ],
)
async def test_a_refused_account_leaves_nothing(
    database: Database, fields: dict[str, object], code: str
) -> None:
    with pytest.raises(Invalid) as refusal:
        await open_account(database, **fields)
    assert refusal.value.code == code
    async with database.read() as tx:
        assert await accounts.list_accounts(tx, after_id=0, limit=9) == []
    assert (await open_account(database)).row.id == 1


async def test_accounts_are_listed_in_order_from_any_place(database: Database) -> None:
    for number in range(1, 6):
        await open_account(database, name=f"Account {number}", credit_nanos=number)
    async with database.read() as tx:
        page = await accounts.list_accounts(tx, after_id=2, limit=2)
    assert [(account.row.id, account.balance_nanos) for account in page] == [(3, 3), (4, 4)]


async def test_a_suspended_account_can_be_resumed_and_a_cancelled_one_cannot(
    database: Database,
) -> None:
    account_id = (await open_account(database)).row.id
    async with database.write() as tx:
        assert (await accounts.suspend(tx, account_id=account_id)).row.status == "suspended"
        assert (await accounts.suspend(tx, account_id=account_id)).row.status == "suspended"
        assert (await accounts.resume(tx, account_id=account_id)).row.status == "active"
        assert (await accounts.cancel(tx, account_id=account_id)).row.status == "cancelled"
        for change in (accounts.suspend, accounts.resume, accounts.cancel):
            with pytest.raises(Conflict, match="cancelled"):
                await change(tx, account_id=account_id)


async def test_changes_of_state_are_announced(database: Database) -> None:
    account_id = (await open_account(database)).row.id
    async with database.read() as tx:
        seen = await changes.get_last(tx)
    async with database.write() as tx:
        await accounts.suspend(tx, account_id=account_id)
    async with database.read() as tx:
        news = await changes.list_after(tx, cursor=seen)
    assert [(change.topic, change.account_id) for change in news] == [("account", account_id)]


async def test_an_unknown_account_is_not_found(database: Database) -> None:
    async with database.write() as tx:
        for use_case in (accounts.get, accounts.suspend, accounts.resume, accounts.cancel):
            with pytest.raises(NotFound):
                await use_case(tx, account_id=99)


async def test_an_installation_has_a_key_of_each_kind(
    database: Database, installation: Installation
) -> None:
    kinds = {
        installation.operator_key: KeyKind.OPERATOR,
        installation.provisioning_key: KeyKind.PROVISIONING,
        installation.inference_key: KeyKind.INFERENCE,
    }
    async with database.read() as tx:
        for secret, kind in kinds.items():
            assert secrets.parse(secret) is kind
            row = await credentials.find_credential(tx, secret_hash=secrets.digest(secret))
            assert row is not None
            assert row.kind == kind
            assert row.account_id == (0 if kind is KeyKind.OPERATOR else 1)
            assert row.user_id == (None if kind is KeyKind.OPERATOR else 1)
        assert await ledger.get_balance(tx, account_id=1) == 100 * NANOS
    assert len(installation.password) >= 32


async def test_an_installation_is_made_once(database: Database, installation: Installation) -> None:
    with pytest.raises(Conflict) as refusal:
        await bootstrap(database)
    assert refusal.value.code == "already_initialised"
    async with database.read() as tx:
        assert len(await accounts.list_accounts(tx, after_id=0, limit=9)) == 1


async def test_a_given_password_is_kept_as_its_hash_alone(database: Database) -> None:
    made = await bootstrap(database, password="correct horse battery staple")
    assert made.password == "correct horse battery staple"
    assert made.password not in repr(made)
    assert made.operator_key not in repr(made)


async def bootstrap(database: Database, password: str | None = None) -> Installation:
    async with database.write() as tx:
        return await accounts.bootstrap_installation(
            tx,
            email="me@example.test",
            password=password,
            credit_nanos=0,
            random_bytes=Randomness(),
            hash_password=lambda _: "hash",
        )
