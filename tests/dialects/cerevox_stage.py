"""The Cerevox dialect in process over a settled past.

Owns the installation that golden pairs are recorded with: a clock that stands still, an owner and a
viewer with a key each, documents and questions that were charged, and limits of requests.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from starlette.applications import Starlette

from bursar.adapters.mail import Letter
from bursar.adapters.passwords import PasswordPool, list_common
from bursar.adapters.vault import Vault
from bursar.core.allowances import Resource
from bursar.core.secrets import KeyKind
from bursar.core.windows import Window
from bursar.dialects.cerevox import app
from bursar.edge.calls import make_plane
from bursar.service import accounts, keys
from bursar.service.accounts import AccountChange, Installation
from bursar.service.limits import allowances, plans
from bursar.service.limits.rules import Scope
from bursar.service.people.ports import People
from bursar.store.database import Database
from bursar.store.tenants import users
from tests.databases import START_MS
from tests.installations import NANOS, Randomness, a_charge, use
from tests.people.house import PASSWORD, QUICK, URL, VAULT_SECRET

ACCOUNT_ID = 1
DAY_MS = 86_400_000
OWNER, VIEWER, PERSON, NOBODY = "owner", "viewer", "person", "nobody"
EMAIL = "vera@example.com"


@dataclass
class Spoken:
    """The dialect, a client for it, and the installation behind it; `secrets` by who has them."""

    application: Starlette
    http: httpx2.AsyncClient
    database: Database
    installation: Installation
    people: People
    secrets: Mapping[str, str]
    letters: list[Letter]

    async def call(
        self, method: str, path: str, *, secret: str | None = None, **options: Any
    ) -> httpx2.Response:
        """One request with the owner's key, if with no other credential."""
        headers = {"authorization": f"Bearer {secret or self.secrets[OWNER]}"}
        return await self.http.request(
            method,
            f"/v1{path}",
            **{**options, "headers": {**headers, **options.get("headers", {})}},
        )

    async def log_in(self, secret: str | None = None) -> httpx2.Response:
        """Trade a key, or an address and a password with a colon between, for tokens."""
        body = {"login": True}
        return await self.http.post(
            "/v1/token/login", json=body, headers=basic(secret or self.secrets[OWNER])
        )

    async def refresh(self, token: str, secret: str | None = None) -> httpx2.Response:
        """Take the next tokens."""
        headers = {} if secret is None else basic(secret)
        return await self.http.post(
            "/v1/token/refresh", json={"refresh_token": token}, headers=headers
        )


def basic(text: str) -> dict[str, str]:
    """The header in which Cerevox sends a key: no colon is added to it."""
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@asynccontextmanager
async def speaking(database: Database) -> AsyncIterator[Spoken]:
    """The dialect over an installation with 1,000 USD and a past."""
    random = Randomness()
    async with database.write() as tx:
        installation = await accounts.bootstrap_installation(
            tx,
            email="admin@localhost",
            password=None,
            credit_nanos=1_000 * NANOS,
            random_bytes=random,
            hash_password=lambda password: f"hash of {len(password)} characters",
        )
    viewer_key = await _settle_in(database, random)
    letters: list[Letter] = []

    def post(letter: Letter) -> bool:
        letters.append(letter)
        return True

    pool = PasswordPool(hasher=QUICK)
    people = People(
        vault=Vault(VAULT_SECRET),
        passwords=pool,
        post=post,
        url=URL,
        common=list_common(),
        random_bytes=random,
    )
    plane = make_plane(
        database, why_not_ready=lambda: None, metrics=bytes, random_bytes=random, people=people
    )
    application = app.create(plane)
    transport = httpx2.ASGITransport(app=application, client=("192.0.2.1", 5))
    secrets = {
        OWNER: installation.provisioning_key,
        VIEWER: viewer_key,
        PERSON: f"{EMAIL}:{PASSWORD}",
        NOBODY: "bpk_nobody",
    }
    async with httpx2.AsyncClient(transport=transport, base_url="http://bursar.test") as http:
        yield Spoken(application, http, database, installation, people, secrets, letters)
    pool.close()


async def _settle_in(database: Database, random: Randomness) -> str:
    """A plan, people, limits and a past; the viewer's key."""
    async with database.write() as tx:
        pro = await plans.create(tx, name="pro")
        change = AccountChange(
            plan_id=pro.row.id, features={"lexa_enabled": False, "max_users": 10}
        )
        await accounts.update(tx, account_id=ACCOUNT_ID, change=change)
        for window, limit in ((Window.MINUTE, 60), (Window.MONTH, 100_000)):
            await allowances.set_limit(
                tx,
                account_id=ACCOUNT_ID,
                scope=Scope("account", 0),
                resource=Resource.REQUESTS,
                window=window,
                model="",
                limit=limit,
                soft=None,
            )
    async with database.write() as tx:
        user_id = await users.insert_user(
            tx, email=EMAIL, name="Vera Viewer", password_hash=QUICK.hash(PASSWORD)
        )
        await users.insert_member(tx, account_id=ACCOUNT_ID, user_id=user_id, role="viewer")
        made = await keys.create(
            tx,
            account_id=ACCOUNT_ID,
            user_id=user_id,
            name="looks",
            random_bytes=random,
            kind=KeyKind.PROVISIONING,
        )
    await use(
        database,
        a_charge(
            "old", 900_000_000, at_ms=START_MS - 30 * DAY_MS, **_metered("hippo", questions=9)
        ),
        a_charge("ask", 75_000_000_000, at_ms=START_MS - DAY_MS, **_metered("hippo", questions=3)),
        a_charge(
            "parse",
            45_000_000_001,
            at_ms=START_MS - 5_000,
            **_metered("lexa", documents=5, pages=40, advanced_pages=2),
        ),
        a_charge(
            "keep",
            5_500_000_000,
            at_ms=START_MS - 4_000,
            **_metered("storage", storage_bytes=524_288_000),
        ),
        a_charge("chat", 12, at_ms=START_MS - 3_000, model="gpt-test"),
    )
    return made.secret


def _metered(product: str, **quantities: int) -> dict[str, Any]:
    inner = ",".join(f'"{name}":{count}' for name, count in sorted(quantities.items()))
    tokens = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
    return {"product": product, "quantities": f"{{{inner}}}", **dict.fromkeys(tokens, 0)}
