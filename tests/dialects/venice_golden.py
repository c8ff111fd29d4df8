"""Golden pairs: what each of Venice's clients sends, the answer, and what it makes of the answer.

Run as a program it writes them anew, from what the clients and the dialect do now:
`python -m tests.dialects.venice_golden FOLDER`, with the clients' environments in FOLDER. Read the
difference before it is kept.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bursar.store.database import Database, sqlite_url
from tests.databases import Clock, migrate
from tests.dialects import stages, venice_clients, venice_stage
from tests.dialects.clients import Client, Raised
from tests.dialects.stages import Answer, Sent
from tests.dialects.venice_stage import Spoken

GOLDEN = Path(__file__).parent / "venice" / "golden"
CLIENTS = ("venice-sdk", "venice-py", "venice-ai")
KEPT_HEADERS = ("content-type", "content-disposition", "retry-after", "x-next-cursor")
PAGINATION = "x-pagination-"
NEW = {"apiKeyType": "INFERENCE", "description": "Production"}
FULL = {
    **NEW,
    "consumptionLimit": {"usd": 12.5},
    "limitPeriod": "MONTH",
    "modelPrivacy": "ALL",
    "expiresAt": "2099-01-31",
    "ipAllowlist": ["198.51.100.7", "2001:db8::/32"],
}
SCRIPTS: Mapping[str, list[tuple[str, dict[str, Any]]]] = {
    "venice-sdk": [
        ("api_keys.list", {}),
        ("api_keys.get", {"key_id": "3"}),
        ("api_keys.get", {"key_id": "999"}),
        ("api_keys.create", {"name": "My New Key", "permissions": ["read", "write"]}),
        ("api_keys.create", {"name": "Admin Key", "permissions": ["admin"]}),
        ("api_keys.create", {"name": ""}),
        ("api_keys.delete", {"key_id": "4"}),
        ("api_keys.delete", {"key_id": "4"}),
        ("api_keys.get_rate_limits", {}),
        ("api_keys.get_rate_limits_log", {"limit": 10}),
        ("billing.get_usage", {}),
        ("billing.get_usage", {"currency": "USD", "limit": 10}),
        ("billing.get_usage_history", {"page_size": 1000}),
        ("billing.get_usage_history", {"cursor": "made-up"}),
        ("billing.get_balance", {}),
        ("billing.get_usage_analytics", {"lookback": "2d"}),
        ("models.list", {"type": "all"}),
    ],
    "venice-py": [
        ("api_keys.list", {}),
        ("api_keys.list", {"page": 2, "limit": 1}),
        ("api_keys.create", {"api_key_request": FULL}),
        ("api_keys.create", {"api_key_request": {**NEW, "consumptionLimit": {"diem": 5}}}),
        ("api_keys.retrieve", {"api_key_id": "4"}),
        ("api_keys.retrieve", {"api_key_id": "999"}),
        ("api_keys.update", {"id": "4", "description": "Staging", "expires_at": ""}),
        ("api_keys.update", {"id": "4", "limit_period": "EPOCH", "ip_allowlist": []}),
        ("api_keys.delete", {"api_key_id": "4"}),
        ("api_keys.get_rate_limits", {}),
        ("api_keys.get_rate_limit_logs", {}),
        ("billing.get_balance", {}),
        ("billing.get_usage_history", {"pageSize": 10}),
        ("billing.get_usage_history", {"pageSize": 10, "format": "csv"}),
        ("billing.get_usage_analytics", {"startDate": "2026-11-20", "endDate": "2026-11-21"}),
        ("models.list", {}),
    ],
    "venice-ai": [
        ("api_keys.list", {}),
        ("api_keys.create", {"api_key_request": {**NEW, "consumptionLimit": {"usd": 3}}}),
        ("api_keys.retrieve", {"api_key_id": "4"}),
        ("api_keys.retrieve", {"api_key_id": "999"}),
        ("api_keys.delete", {"api_key_id": "4"}),
        ("api_keys.get_rate_limits", {}),
        ("api_keys.get_rate_limit_logs", {}),
        ("billing.get_usage", {"limit": 2}),
        ("billing.get_usage", {"limit": 2, "page": 2, "sortOrder": "asc", "format": "csv"}),
        ("models.list", {}),
    ],
}


def recorded(name: str) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = json.loads((GOLDEN / f"{name}.json").read_text())
    return pairs


async def answer(spoken: Spoken, sent: Sent) -> Answer:
    """What the dialect answers to it, with the fields of its head that mean something."""
    headers = {"accept": sent.accept}
    if sent.content_type is not None:
        headers["content-type"] = sent.content_type
    content = None if sent.body is None else json.dumps(sent.body).encode()
    path = sent.path.removeprefix("/api/v1")
    response = await spoken.call(sent.method, path, headers=headers, content=content)
    kept = {
        name: value
        for name, value in sorted(response.headers.items())
        if name in KEPT_HEADERS or name.startswith(PAGINATION)
    }
    return response.status_code, kept, response.content


def readable(headers: Mapping[str, str], body: bytes) -> Any:
    return json.loads(body) if "json" in headers["content-type"] else body.decode()


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
    database, pairs = Database(url, clock_ms=Clock()), list[dict[str, Any]]()
    async with venice_stage.speaking(database) as spoken:

        async def ask(sent: Sent) -> Answer:
            status, headers, body = await answer(spoken, sent)
            response = {"status": status, "headers": headers, "body": readable(headers, body)}
            pairs.append({"request": {**asdict(sent), "authorization": ""}, "response": response})
            return status, headers, body

        play = stages.in_loop(asyncio.get_running_loop(), ask)
        with stages.stage(play) as at, venice_clients.running(cache, name) as started:
            client = started.at(at, spoken.installation.provisioning_key)
            for call, arguments in SCRIPTS[name]:
                returned = await outcome(client, call, arguments)
                pair = {"call": {"name": call, "arguments": arguments}, **pairs[-1]}
                pairs[-1] = {**pair, "returned": returned}
    await database.close()
    (GOLDEN / f"{name}.json").write_text(json.dumps(pairs, indent=1) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for each in CLIENTS:
            asyncio.run(record(each, Path(sys.argv[1]), Path(scratch)))
