"""Two accounts that must know nothing of each other: people, keys and things of both.

Owns how they come to be, and how one asks as one of them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from sqlalchemy import insert

from bursar.core.people.roles import Role
from bursar.core.secrets import KeyKind
from bursar.edge.calls import Plane, make_plane
from bursar.service import keys
from bursar.store.people import passkeys
from bursar.store.tables import members
from tests.installations import JSON, OPERATOR
from tests.people.house import URL, House

UNKNOWN = 999_999_999


@dataclass
class Stage:
    """An installation with accounts A (1) and B; secrets by the names of callers.

    `of_a` and `of_b` are ids by the names that paths have for them, `unknown` those of nothing.
    """

    house: House
    b_id: int
    secrets: dict[str, str]
    of_a: dict[str, int]
    of_b: dict[str, int]
    unknown: dict[str, int]

    @property
    def plane(self) -> Plane:
        """What an application of a dialect works with."""
        house = self.house
        return make_plane(
            house.database, why_not_ready=lambda: None, metrics=bytes, people=house.people
        )

    async def call(
        self,
        method: str,
        path: str,
        caller: str,
        *,
        body: object = None,
        has_body: bool = False,
        app: Any = None,
    ) -> httpx2.Response:
        """One request as that caller; a route that has a body gets an empty one."""
        sent = None
        headers = {}
        if caller != "nobody":
            headers["authorization"] = f"Bearer {self.secrets[caller]}"
        if has_body or body is not None:
            headers |= JSON
            sent = body if body is not None else {}
        transport = httpx2.ASGITransport(app=app or self.house.api.app, client=("192.0.2.1", 5))
        async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
            if sent is None:
                return await client.request(method, path, headers=headers)
            return await client.request(method, path, headers=headers, json=sent)


def fill(path: str, ids: Mapping[str, int]) -> str:
    """A path of a registry with these ids in it, and for other names what nothing has."""
    return re.sub(r"\{(\w+)\}", lambda found: str(ids.get(found[1], UNKNOWN)), path)


@asynccontextmanager
async def furnish(house: House) -> AsyncIterator[Stage]:
    """Set the stage."""
    secrets: dict[str, str] = {}
    b_id, secrets["provisioning of B"] = await house.api.open_account(name="B")
    for kind in (OPERATOR, "provisioning", "inference"):
        secrets[kind] = house.api.secret(kind)
    users = {}
    for role in Role:
        email = f"{role}@a.example.test"
        users[role] = await house.add(email, role)
        secrets[str(role)] = await house.token(email)
        secrets[f"key of {role}"] = await _key_of(house, users[role])
    b_owner = await house.add("owner@b.example.test", "owner", account_id=b_id)
    secrets["owner of B"] = await house.token("owner@b.example.test")
    stage = Stage(house, b_id, secrets, {}, {}, {})
    stage.of_a = await things(stage, "owner")
    stage.of_b = await things(stage, "owner of B")
    stage.of_a |= {"user_id": users[Role.MEMBER], "account_id": 1}
    stage.of_b |= {"user_id": b_owner, "account_id": b_id}
    stage.unknown = dict.fromkeys((*stage.of_a, "plan_id"), UNKNOWN)
    yield stage


async def things(stage: Stage, caller: str) -> dict[str, int]:
    """One of everything that has an id, of this owner's account or of theirs."""

    async def make(path: str, body: object) -> dict[str, Any]:
        response = await stage.call("POST", path, caller, body=body)
        assert response.status_code in {200, 201, 202}, response.text
        found: dict[str, Any] = response.json()
        return found

    sessions = (await stage.call("GET", "/v1/auth/sessions", caller)).json()["sessions"]
    me = (await stage.call("GET", "/v1/account/users/me", caller)).json()
    project = await make("/v1/account/projects", {"name": "Project"})
    somebody = await stage.house.add(f"{me['id']}.{stage.house.api.database.clock_ms()}@x.test")
    account_id = (await stage.call("GET", "/v1/account", caller)).json()["id"]
    async with stage.house.database.write() as tx:
        if account_id != 1:
            now = {"created_ms": tx.now_ms, "role": "member"}
            row = {"account_id": account_id, "user_id": somebody, **now}
            await tx.execute(insert(members).values(**row))
        passkey = await passkeys.insert_passkey(
            tx,
            user_id=me["id"],
            credential_id=f"credential of {me['id']}".encode(),
            user_handle=b"handle",
            public_key=b"key",
            sign_count=0,
            name="Phone",
            transports="",
            is_synced=False,
        )
    await make(f"/v1/account/projects/{project['id']}/members", {"user_id": me["id"]})
    invited = await make(
        "/v1/account/users", {"email": f"new{me['id']}@example.test", "role": "viewer"}
    )
    return {
        "key_id": (await make("/v1/account/keys", {"name": "Key"}))["id"],
        "project_id": project["id"],
        "invitation_id": invited["id"],
        "session_id": sessions[0]["id"],
        "passkey_id": passkey.id,
        "user_id": somebody,
    }


async def _key_of(house: House, user_id: int) -> str:
    async with house.database.write() as tx:
        made = await keys.create(
            tx,
            account_id=1,
            user_id=user_id,
            name="Theirs",
            kind=KeyKind.PROVISIONING,
            random_bytes=house.people.random_bytes,
        )
    return made.secret
