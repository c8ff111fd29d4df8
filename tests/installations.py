"""An installation as `bursar init` leaves it, its control API in process, and what it may use.

Money is used the way it is in earnest: leased by a worker and settled in a batch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI

from bursar.api import app
from bursar.core.allowances import AllowanceRef
from bursar.edge.calls import make_plane
from bursar.service import accounts
from bursar.service.accounts import Installation
from bursar.store.database import Database
from bursar.store.limits import allowances
from bursar.store.plane import leases, settlement, workers
from bursar.store.plane.charges import Charge
from bursar.store.plane.leases import Want
from tests.factories import charge, move

NANOS = 1_000_000_000
PROVISIONING, INFERENCE, OPERATOR = "provisioning", "inference", "operator"
JSON = {"content-type": "application/json"}


class Randomness:
    """Bytes that differ at each call; made-up ones, so that a failure can be repeated."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, count: int) -> bytes:
        self.calls += 1
        return hashlib.shake_256(str(self.calls).encode()).digest(count)


@dataclass
class Api:
    """The control API in process, with a key of each kind to call it with."""

    app: FastAPI
    client: httpx2.AsyncClient
    database: Database
    installation: Installation
    reason: str | None = None

    def secret(self, caller: str) -> str:
        """The installation's first secret of a kind; any other text is a secret itself."""
        known = {
            PROVISIONING: self.installation.provisioning_key,
            INFERENCE: self.installation.inference_key,
            OPERATOR: self.installation.operator_key,
        }
        return known.get(caller, caller)

    async def call(
        self,
        method: str,
        path: str,
        *,
        caller: str | None = PROVISIONING,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    ) -> httpx2.Response:
        """One request as one caller (None: without a key)."""
        sent = list(headers.items()) if isinstance(headers, Mapping) else list(headers or [])
        if caller is not None:
            sent.append(("authorization", f"Bearer {self.secret(caller)}"))
        if json is not None:
            return await self.client.request(method, path, json=json, headers=sent)
        return await self.client.request(method, path, content=content, headers=sent)

    async def get(self, path: str, *, caller: str | None = PROVISIONING) -> Any:
        """The JSON of a GET that must succeed."""
        response = await self.call("GET", path, caller=caller)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, json: object, *, caller: str = PROVISIONING) -> Any:
        """The JSON of a POST that must succeed."""
        response = await self.call("POST", path, json=json, caller=caller)
        assert response.status_code in {200, 201}, response.text
        return response.json()

    async def open_account(self, *, name: str = "Other", credit: str = "10.00") -> tuple[int, str]:
        """Another account: its id and a provisioning key."""
        opened = await self.post(
            "/v1/operator/accounts", {"name": name, "credit": credit}, caller=OPERATOR
        )
        made = await self.post(
            f"/v1/operator/accounts/{opened['id']}/keys",
            {"name": "Provisioning", "kind": "provisioning"},
            caller=OPERATOR,
        )
        return opened["id"], made["key"]


@pytest.fixture
async def installation(database: Database) -> Installation:
    """What `bursar init` made: account 1 with 100 USD; keys 1 to 3 for operator, user and calls."""
    async with database.write() as tx:
        return await accounts.bootstrap_installation(
            tx,
            email="admin@localhost",
            password=None,
            credit_nanos=100 * NANOS,
            random_bytes=os.urandom,
            hash_password=lambda password: f"hash of {len(password)} characters",
        )


@pytest.fixture
async def api(database: Database, installation: Installation) -> AsyncIterator[Api]:
    """The control API of the installation."""
    made: Api
    plane = make_plane(
        database,
        why_not_ready=lambda: made.reason,
        metrics=lambda: b"bursar_up 1\n",
        random_bytes=Randomness(),
    )
    application = app.create(plane, version="0")
    transport = httpx2.ASGITransport(app=application, client=("192.0.2.1", 5))
    async with httpx2.AsyncClient(transport=transport, base_url="http://bursar.test") as client:
        made = Api(application, client, database, installation)
        yield made


def a_charge(event_id: str, cost_nanos: int, **fields: Any) -> Charge:
    """A charge of the installation's inference key."""
    made = charge(1, cost_nanos, event_id=event_id, moves=[])
    return msgspec.structs.replace(made, **{"account_id": 1, "key_id": 3, **fields})


async def lease(database: Database, ref: AllowanceRef, amount: int) -> int:
    """Have a new worker lease this much; its id."""
    async with database.write() as tx:
        worker_id = await workers.insert_worker(tx, host="test")
        await leases.take(tx, worker_id=worker_id, wants=[Want(ref, 0, amount, amount, 0)])
    return worker_id


async def use(database: Database, *charges: Charge) -> None:
    """Lease and settle charges, all of them as one new worker."""
    async with database.write() as tx:
        worker_id = await workers.insert_worker(tx, host="test")
        settled = []
        for seq, one in enumerate(charges, start=1):
            moves = []
            for ref in (
                allowances.wallet(one.account_id),
                allowances.credit_limit(one.account_id, one.key_id),
            ):
                row = (await leases.lock(tx, refs=[ref]))[0]
                leased = 0 if row.limit is None else one.cost_nanos
                if leased:
                    want = Want(ref, 0, leased, leased, 0)
                    await leases.take(tx, worker_id=worker_id, wants=[want])
                moves.append(move(ref, from_lease=leased, used=one.cost_nanos))
            settled.append(msgspec.structs.replace(one, seq=seq, moves=moves))
        assert await settlement.settle(tx, worker_id=worker_id, charges=settled)
