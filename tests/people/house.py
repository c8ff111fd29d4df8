"""An installation with people in it, quick hashes, and a post box that can be looked into.

Owns how a test signs somebody in. The parameters of the hashes are the only thing that is not as in
earnest; those of earnest have a test of their own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
from argon2 import PasswordHasher

from bursar.adapters.mail import Letter
from bursar.adapters.passkeys import RelyingParty
from bursar.adapters.passwords import PasswordPool, list_common
from bursar.adapters.vault import Vault
from bursar.api import app
from bursar.core.people import emails
from bursar.edge.calls import make_plane
from bursar.service.people.ports import People
from bursar.service.sso.ports import Provider
from bursar.store.database import Database
from bursar.store.tenants import users
from tests.installations import Api, Randomness

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery staple"
URL = "https://bursar.example.test"
VAULT_SECRET = b"a secret of this test's own: 32."


@dataclass
class House:
    """The control API with people; `letters` are those that were posted."""

    api: Api
    people: People
    letters: list[Letter] = field(default_factory=list)
    address: str = "192.0.2.1"

    @property
    def database(self) -> Database:
        return self.api.database

    def trust(self, *providers: Provider) -> None:
        """Serve from now on with these sign-in services."""
        self.use(replace(self.people, providers={each.name: each for each in providers}))

    def use(self, people: People) -> None:
        """Serve from now on with these ports."""
        self.people = people
        served = _application(self.database, self.people)
        self.api = replace(self.api, app=served)

    async def add(
        self, email: str, role: str = "member", *, account_id: int = 1, password: str = PASSWORD
    ) -> int:
        """Somebody in an account, without an invitation; their id."""
        async with self.database.write() as tx:
            user_id = await users.insert_user(
                tx,
                email=emails.clean_email(email),
                name=email.partition("@")[0],
                password_hash=QUICK.hash(password),
            )
            await users.insert_member(tx, account_id=account_id, user_id=user_id, role=role)
        return user_id

    async def call(
        self, method: str, path: str, json: object = None, *, token: str | None = None
    ) -> httpx2.Response:
        """One request, without a credential or with one, from this house's address."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        transport = httpx2.ASGITransport(app=self.api.app, client=(self.address, 5))
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
            if json is None:
                return await client.request(method, path, headers=headers)
            return await client.request(method, path, json=json, headers=headers)

    async def try_in(self, email: str, password: str = PASSWORD, **more: Any) -> httpx2.Response:
        """Try to sign in."""
        return await self.call(
            "POST", "/v1/auth/login", {"email": email, "password": password, **more}
        )

    async def sign_in(self, email: str, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        """Sign in; the tokens."""
        response = await self.try_in(email, password, **more)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def token(self, email: str, password: str = PASSWORD, **more: Any) -> str:
        """Sign in; the access token."""
        return str((await self.sign_in(email, password, **more))["access_token"])

    def link_token(self, number: int = -1) -> str:
        """The token in the link of a letter, the last one's if no other is asked for."""
        found = re.search(rf"{URL}/[a-z-]+#(blt_[0-9a-f]+)\s", self.letters[number].text)
        assert found is not None
        return found[1]


def code_of(response: httpx2.Response) -> tuple[int, str]:
    """The status and the code of a refusal."""
    return response.status_code, response.json()["error"]["code"]


@asynccontextmanager
async def open_house(api: Api, *, secret: bytes = VAULT_SECRET) -> AsyncIterator[House]:
    """A house on the installation of `api`."""
    letters: list[Letter] = []

    def post(letter: Letter) -> bool:
        letters.append(letter)
        return True

    pool = PasswordPool(hasher=QUICK)
    people = People(
        vault=Vault(secret),
        passwords=pool,
        post=post,
        url=URL,
        common=list_common(),
        party=RelyingParty(id="bursar.example.test", name="Bursar", origins=(URL,)),
    )
    served = _application(api.database, people)
    transport = httpx2.ASGITransport(app=served, client=("192.0.2.1", 5))
    async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
        yield House(Api(served, client, api.database, api.installation), people, letters)
    pool.close()


def _application(database: Database, people: People) -> Any:
    plane = make_plane(
        database,
        why_not_ready=lambda: None,
        metrics=lambda: b"",
        random_bytes=Randomness(),
        people=people,
    )
    return app.create(plane, version="0")
