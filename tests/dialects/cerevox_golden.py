"""Golden pairs: what Cerevox's client sends, the answers, and what it makes of them.

Run as a program it writes them anew, from what the client and the dialect do now:
`python -m tests.dialects.cerevox_golden FOLDER`, with the client's environment in FOLDER. Read the
difference before it is kept. Tokens, which differ each time, are words in capitals there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bursar.store.database import Database, sqlite_url
from tests.databases import Clock, migrate
from tests.dialects import cerevox_clients, cerevox_stage, stages
from tests.dialects.cerevox_clients import ASYNC, SYNC
from tests.dialects.cerevox_stage import NOBODY, OWNER, PERSON, VIEWER, Spoken
from tests.dialects.clients import Client, Raised
from tests.dialects.stages import Answer, Sent

GOLDEN = Path(__file__).parent / "cerevox" / "golden"
CLIENTS = (SYNC, ASYNC)
KEPT_HEADERS = ("content-type", "retry-after", "www-authenticate")
ACCESS, REFRESH = "ACCESS", "REFRESH"
NEW = {"email": "newuser@example.com", "name": "New User"}
SCRIPT: list[tuple[str, str, dict[str, Any]]] = [
    (OWNER, "start", {}),
    (OWNER, "get_account_info", {}),
    (OWNER, "get_account_plan", {"account_id": "1"}),
    (OWNER, "get_account_plan", {"account_id": "2"}),
    (OWNER, "get_account_usage", {"account_id": "1"}),
    (OWNER, "get_account_usage", {"account_id": "999"}),
    (OWNER, "get_users", {}),
    (OWNER, "get_user_me", {}),
    (OWNER, "update_user_me", {"name": "Olga Owner"}),
    (OWNER, "update_user_me", {"name": " "}),
    (OWNER, "create_user", NEW),
    (OWNER, "create_user", {"email": "vera@example.com", "name": "Vera"}),
    (OWNER, "create_user", {"email": "nowhere", "name": "N"}),
    (OWNER, "get_user_by_id", {"user_id": "2"}),
    (OWNER, "get_user_by_id", {"user_id": "inv_1"}),
    (OWNER, "get_user_by_id", {"user_id": "999"}),
    (OWNER, "update_user_by_id", {"user_id": "2", "name": "Vera of Sales"}),
    (OWNER, "update_user_by_id", {"user_id": "inv_1", "name": "Newest User"}),
    (OWNER, "update_user_by_id", {"user_id": "999", "name": "N"}),
    (OWNER, "get_users", {}),
    (VIEWER, "start", {}),
    (VIEWER, "get_user_me", {}),
    (VIEWER, "create_user", NEW),
    (VIEWER, "update_user_by_id", {"user_id": "1", "name": "N"}),
    (VIEWER, "delete_user_by_id", {"user_id": "1", "email": "admin@localhost"}),
    (PERSON, "start", {}),
    (PERSON, "get_user_me", {}),
    (PERSON, "age", {}),
    (PERSON, "get_account_info", {}),
    (OWNER, "delete_user_by_id", {"user_id": "2", "email": "else@example.com"}),
    (OWNER, "delete_user_by_id", {"user_id": "2", "email": "Vera@Example.com"}),
    (OWNER, "delete_user_by_id", {"user_id": "2", "email": "vera@example.com"}),
    (OWNER, "delete_user_by_id", {"user_id": "inv_1", "email": "newuser@example.com"}),
    (OWNER, "delete_user_by_id", {"user_id": "1", "email": "admin@localhost"}),
    (PERSON, "get_user_me", {}),
    (OWNER, "age", {}),
    (OWNER, "get_account_info", {}),
    (OWNER, "revoke", {}),
    (OWNER, "get_account_info", {}),
    (NOBODY, "start", {}),
]


@dataclass
class Memory:
    """The secrets of those who call, and the tokens that each was given last."""

    secrets: Mapping[str, str]
    tokens: dict[str, dict[str, str]] = field(default_factory=dict)

    def authorization(self, written: str) -> str:
        """What to send where `Basic owner` or `Bearer owner` is written."""
        scheme, _, who = written.partition(" ")
        if scheme == "Bearer":
            return f"Bearer {self.tokens[who][ACCESS]}"
        return f"Basic {base64.b64encode(self.secrets[who].encode()).decode()}"

    def written(self, authorization: str, who: str) -> str:
        """How to write what was sent."""
        assert authorization in {self.authorization(f"{s} {who}") for s in self._schemes(who)}
        return f"{authorization.partition(' ')[0]} {who}"

    def _schemes(self, who: str) -> tuple[str, ...]:
        return ("Basic", "Bearer") if who in self.tokens else ("Basic",)

    def mask(self, who: str, said: Any) -> Any:
        """A body with words for tokens, which are kept."""
        if not isinstance(said, dict) or "refresh_token" not in said:
            return said
        masked = {**said, "refresh_token": REFRESH}
        if "access_token" in said:
            self.tokens[who] = {ACCESS: said["access_token"], REFRESH: said["refresh_token"]}
            masked["access_token"] = ACCESS
        return masked

    def unmask(self, who: str, body: Any) -> Any:
        """A body with the tokens that its words stand for."""
        if isinstance(body, dict) and body.get("refresh_token") == REFRESH:
            return {**body, "refresh_token": self.tokens[who][REFRESH]}
        return body


def recorded(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())
    return found


async def answer(spoken: Spoken, sent: Sent) -> Answer:
    """What the dialect answers to it, with the fields of its head that mean something."""
    headers = {"accept": sent.accept, "authorization": sent.authorization}
    if sent.content_type is not None:
        headers["content-type"] = sent.content_type
    content = None if sent.body is None else json.dumps(sent.body).encode()
    path = sent.path.removeprefix("/v1")
    response = await spoken.call(sent.method, path, headers=headers, content=content)
    kept = {n: v for n, v in sorted(response.headers.items()) if n in KEPT_HEADERS}
    return response.status_code, kept, response.content


async def outcome(client: Client, name: str, arguments: dict[str, Any]) -> Any:
    """What the client returns, or the kind of exception that it raises."""
    try:
        return await client(name, retries=0, **arguments)
    except Raised as error:
        return {"raised": error.kinds[0], "status": error.status, "code": error.code}


async def record(name: str, cache: Path, folder: Path) -> None:
    """Write one client's pairs anew."""
    url = sqlite_url(folder / f"{name}.db")
    await asyncio.to_thread(migrate, url)
    database, exchanges = Database(url, clock_ms=Clock()), list[dict[str, Any]]()
    lines: list[dict[str, Any]] = []
    async with cerevox_stage.speaking(database) as spoken:
        memory = Memory(spoken.secrets)
        who = OWNER

        async def ask(sent: Sent) -> Answer:
            written = memory.written(sent.authorization, who)
            status, headers, body = await answer(spoken, sent)
            request = {
                "method": sent.method,
                "path": sent.path,
                "accept": sent.accept,
                "content_type": sent.content_type,
                "authorization": written,
                "body": memory.mask(who, sent.body),
            }
            said = memory.mask(who, json.loads(body))
            response = {"status": status, "headers": headers, "body": said}
            exchanges.append({"request": request, "response": response})
            return status, headers, body

        play = stages.in_loop(asyncio.get_running_loop(), ask)
        with stages.stage(play) as at, cerevox_clients.running(cache, name) as started:
            for who, call, arguments in SCRIPT:
                exchanges.clear()
                client = started.at(at, spoken.secrets[who])
                returned = await outcome(client, call, arguments)
                line = {"who": who, "call": {"name": call, "arguments": arguments}}
                lines.append({**line, "exchanges": list(exchanges), "returned": returned})
    await database.close()
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / f"{name}.json").write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for each in CLIENTS:
            asyncio.run(record(each, Path(sys.argv[1]), Path(scratch)))
