"""NagaAI's documented examples run unchanged but for host and key.

The programs beside this file are those of the documentation; each runs in a Python of its own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from bursar.core import secrets
from bursar.core.secrets import KeyKind
from tests.dialects.conftest import LiveServer

EXAMPLES = Path(__file__).parent / "nagaai"


async def run(server: LiveServer, name: str, **environment: str) -> list[str]:
    """What the example prints; it must end well and say nothing to standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / f"{name}.py"),
        env={
            **os.environ,
            "NAGAAI_BASE": f"{server.url}/v1",
            "PROVISIONING_KEY": server.provisioning_key,
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode().splitlines()


async def keys(server: LiveServer) -> dict[str, dict[str, Any]]:
    response = await server.control("GET", "/v1/account/keys")
    return {key["name"]: key for key in response.json()["keys"]}


async def test_the_balance_is_printed(live_server: LiveServer) -> None:
    assert await run(live_server, "operational_check") == ["40.00"]
    assert await run(live_server, "balance") == ["Current balance: $40.00"]


async def test_activity_names_what_was_used(live_server: LiveServer) -> None:
    answers = [await live_server.chat() for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    requests, cost, model = await run(live_server, "activity")
    assert requests == "Total requests: 3"
    assert float(cost.removeprefix("Total cost: $")) > 0
    assert model == f"Most used model: {live_server.model}"


async def test_a_key_is_created_listed_updated_and_deleted(live_server: LiveServer) -> None:
    [line] = await run(live_server, "create_key")
    secret = line.removeprefix("New API Key: ")
    assert secrets.parse(secret) is KeyKind.INFERENCE
    assert (await live_server.chat(secret)).status_code == 200
    made = (await keys(live_server))["Production API Key"]
    assert made["credit_limit"] == 500.0

    environment = {"KEY_ID": str(made["id"])}
    change = {"is_enabled": False}
    await live_server.control("PATCH", f"/v1/account/keys/{made['id']}", json=change)
    assert "Production API Key: disabled" in await run(live_server, "list_keys")
    assert await run(live_server, "update_key", **environment) == ["200"]
    updated = (await keys(live_server))["Updated Key Name"]
    (limit,) = updated.pop("limits")
    (before,) = made.pop("limits")
    assert (limit["limit"], limit["used"]) == ("200.00", before["used"])
    assert updated == {**made, "name": "Updated Key Name", "credit_limit": 200.0}
    assert "Updated Key Name: enabled" in await run(live_server, "list_keys")

    assert await run(live_server, "delete_key", **environment) == ["204"]
    assert "Updated Key Name" not in await keys(live_server)
    assert (await live_server.chat(secret)).status_code == 401


async def test_a_low_balance_is_noticed(live_server: LiveServer) -> None:
    assert await run(live_server, "budget_management") == ["Low balance: $40.0"]


async def test_every_environment_gets_its_key(live_server: LiveServer) -> None:
    printed = await run(live_server, "environments")
    assert printed == [
        f"Created {name} key" for name in ("Production", "Staging", "Development", "Testing")
    ]
    limits = {name: key["credit_limit"] for name, key in (await keys(live_server)).items()}
    assert limits["Production"] == 1000.0
    assert limits["Testing"] == 25.0


async def test_costs_are_analysed_by_model_and_key(live_server: LiveServer) -> None:
    await live_server.chat()
    printed = await run(live_server, "cost_analysis")
    assert printed[0] == "Cost by model:"
    assert printed[1].startswith(f"{live_server.model}: $0.00 (1 requests, $")
    assert printed[2:4] == ["", "Cost by API key:"]
    assert printed[4].startswith("First inference key: $0.0000")
    assert len(printed) == 5
