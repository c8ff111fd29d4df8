"""The Venice dialect in process over a settled past.

Owns the installation that golden pairs are recorded with: a clock that stands still, secrets that
repeat, three calls that were made and charged, and one refusal by a limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from starlette.applications import Starlette

from bursar.core.allowances import Resource
from bursar.core.prices import Price, rate_per_million
from bursar.core.windows import Window
from bursar.dialects.venice import app
from bursar.edge.calls import make_plane
from bursar.service import accounts
from bursar.service.accounts import Installation
from bursar.service.limits import allowances
from bursar.service.limits.rules import Scope
from bursar.store.database import Database
from bursar.store.limits import refusals
from bursar.store.limits.refusals import RefusalRow
from tests.databases import START_MS
from tests.installations import NANOS, Randomness, a_charge, use

ACCOUNT_ID = 1
DAY_MS = 86_400_000
PRICE = Price(
    id=1,
    model="gpt-test",
    product="",
    per_token={"input_tokens": rate_per_million("1"), "output_tokens": rate_per_million("2")},
    per_unit={},
    context_window=128_000,
    max_output_tokens=16_384,
    effective_ms=START_MS - 30 * DAY_MS,
    source="test",
)
EMBEDDING = Price(
    id=2,
    model="embed-test",
    product="",
    per_token={"input_tokens": rate_per_million("0.02")},
    per_unit={},
    context_window=None,
    max_output_tokens=None,
    effective_ms=START_MS - 30 * DAY_MS,
    source="test",
)


@dataclass
class Spoken:
    """The dialect's control part, a client for it, and the installation behind it."""

    application: Starlette
    http: httpx2.AsyncClient
    database: Database
    installation: Installation

    async def call(
        self,
        method: str,
        path: str,
        *,
        secret: str | None = None,
        headers: dict[str, str] | None = None,
        **options: Any,
    ) -> httpx2.Response:
        """One request with the ADMIN key if with no other."""
        bearer = {"authorization": f"Bearer {secret or self.installation.provisioning_key}"}
        sent = {**bearer, **(headers or {})}
        return await self.http.request(method, f"/api/v1{path}", headers=sent, **options)


@asynccontextmanager
async def speaking(database: Database) -> AsyncIterator[Spoken]:
    """The dialect over an installation with 100 USD and a past."""
    random = Randomness()
    async with database.write() as tx:
        installation = await accounts.bootstrap_installation(
            tx,
            email="admin@localhost",
            password=None,
            credit_nanos=100 * NANOS,
            random_bytes=random,
            hash_password=lambda password: f"hash of {len(password)} characters",
        )
    await _live_through(database)
    plane = make_plane(database, why_not_ready=lambda: None, metrics=bytes, random_bytes=random)
    application = app.create(plane, served=lambda: [PRICE, EMBEDDING])
    transport = httpx2.ASGITransport(app=application, client=("192.0.2.1", 5))
    async with httpx2.AsyncClient(transport=transport, base_url="http://bursar.test") as http:
        yield Spoken(application, http, database, installation)


async def _live_through(database: Database) -> None:
    model = {"model": "gpt-test"}
    await use(
        database,
        a_charge("req_1", 1_500_000_000, at_ms=START_MS - DAY_MS, **model),
        a_charge("req_2", 20_000_001, at_ms=START_MS - 5_000, **model),
        a_charge("req_3", 7, at_ms=START_MS - 4_000, model="embed-test", output_tokens=0),
    )
    async with database.write() as tx:
        for resource, window, limit in (
            (Resource.REQUESTS, Window.MINUTE, 60),
            (Resource.TOKENS, Window.HOUR, 90_000),
        ):
            await allowances.set_limit(
                tx,
                account_id=ACCOUNT_ID,
                scope=Scope("key", 3),
                resource=resource,
                window=window,
                model="gpt-*" if resource is Resource.TOKENS else "",
                limit=limit,
                soft=None,
            )
        await refusals.add_refusals(
            tx,
            rows=[
                RefusalRow(
                    account_id=ACCOUNT_ID,
                    at_ms=START_MS - 3_789,
                    allowance="key:3/requests/minute",
                    key_id=3,
                    model="gpt-test",
                    endpoint="chat.completions",
                    status=429,
                    resource="requests",
                    window_name="minute",
                    limit_amount=60,
                    count=4,
                )
            ],
        )
