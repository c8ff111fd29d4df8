"""A secret gives access as what its key is, or one constant refusal."""

from __future__ import annotations

import pytest

from bursar.core import secrets
from bursar.core.errors import BursarError, Forbidden, Unauthenticated
from bursar.core.secrets import KeyKind
from bursar.service import access, accounts, keys
from bursar.service.access import (
    InferencePrincipal,
    OperatorPrincipal,
    Principal,
    ProvisioningPrincipal,
)
from bursar.service.accounts import Installation
from bursar.service.keys import KeyChange
from bursar.store.database import Database, ReadTx
from tests.databases import Clock
from tests.installations import Randomness

KINDS: list[type[Principal]] = [InferencePrincipal, ProvisioningPrincipal, OperatorPrincipal]


async def present(
    database: Database, clock: Clock, secret: str | bytes, wanted: type[Principal]
) -> Principal:
    async with database.read() as tx:
        return await access.authenticate(tx, secret=secret, wanted=wanted, now_ms=clock.now_ms)


async def refusal(
    database: Database, clock: Clock, secret: str | bytes, wanted: type[Principal]
) -> BursarError:
    with pytest.raises(BursarError) as caught:
        await present(database, clock, secret, wanted)
    return caught.value


async def test_each_kind_of_key_opens_its_own_door_only(
    database: Database, clock: Clock, installation: Installation
) -> None:
    kept = [installation.inference_key, installation.provisioning_key, installation.operator_key]
    for secret, kind in zip(kept, KINDS, strict=True):
        principal = await present(database, clock, secret, kind)
        assert type(principal) is kind
        assert principal.account_id == (0 if kind is OperatorPrincipal else 1)
        for other in KINDS:
            if other is not kind:
                error = await refusal(database, clock, secret, other)
                assert (type(error), error.code) == (Unauthenticated, "wrong_key_type")


async def test_every_bad_key_is_refused_in_the_same_words(
    database: Database, clock: Clock, installation: Installation
) -> None:
    async with database.write() as tx:
        made = [
            await keys.create(
                tx,
                account_id=1,
                user_id=None,
                name=f"Key {n}",
                random_bytes=Randomness() if n == 0 else lambda count, n=n: bytes([n]) * count,
                expires_ms=clock.now_ms + 1_000 if n == 2 else None,
            )
            for n in range(3)
        ]
        await keys.delete(tx, account_id=1, key_id=made[0].key.id)
        change = KeyChange(is_enabled=False)
        await keys.update(tx, account_id=1, key_id=made[1].key.id, change=change)
    clock.advance(1_000)
    good = installation.inference_key
    bad = [
        *(new.secret for new in made),
        secrets.mint(KeyKind.INFERENCE, random_bytes=b"u" * 32),
        good[:-1],
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good + "0",
        " " + good,
        "",
        "sk-something",
        "' OR 1=1 --",
        "é" * 40,
        good.encode() + b"\xff",
        b"x" * 1_000_000,
    ]
    seen = set()
    for secret in bad:
        error = await refusal(database, clock, secret, InferencePrincipal)
        seen.add((type(error), error.code, error.message, error.param, str(error.extra)))
    assert len(seen) == 1
    assert next(iter(seen))[:2] == (Unauthenticated, "invalid_api_key")


async def test_a_key_works_until_the_moment_it_expires(database: Database, clock: Clock) -> None:
    async with database.write() as tx:
        account = await accounts.create(
            tx, name="Acme", time_zone="UTC", credit_nanos=0, actor="test"
        )
        made = await keys.create(
            tx,
            account_id=account.row.id,
            user_id=None,
            name="Short",
            random_bytes=Randomness(),
            expires_ms=clock.now_ms + 1_000,
        )
    clock.advance(999)
    await present(database, clock, made.secret, InferencePrincipal)
    clock.advance(1)
    error = await refusal(database, clock, made.secret, InferencePrincipal)
    assert error.code == "invalid_api_key"


async def test_keys_of_a_stopped_account_are_forbidden_but_not_the_operators(
    database: Database, clock: Clock, installation: Installation
) -> None:
    async with database.write() as tx:
        await accounts.suspend(tx, account_id=1)
    for secret, kind in (
        (installation.inference_key, InferencePrincipal),
        (installation.provisioning_key, ProvisioningPrincipal),
    ):
        error = await refusal(database, clock, secret, kind)
        assert (type(error), error.code) == (Forbidden, "account_suspended")
    await present(database, clock, installation.operator_key, OperatorPrincipal)


async def test_a_malformed_key_is_refused_without_asking_the_database(
    installation: Installation,
) -> None:
    class Deaf(ReadTx):
        async def execute(self, statement: object) -> object:  # type: ignore[override]
            raise AssertionError(f"asked: {statement}")

    tx = Deaf(connection=None, dialect="sqlite")  # type: ignore[arg-type]
    for secret in ("", "bsk_", installation.inference_key[:-1] + "-", "bok_" + "0" * 36):
        with pytest.raises(Unauthenticated):
            await access.authenticate(tx, secret=secret, wanted=InferencePrincipal, now_ms=0)
