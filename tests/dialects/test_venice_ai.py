"""venice_ai 1.3.0, the last of its line, sync and async, against a live server."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable

import pytest

from tests.dialects.clients import BUILD_S, Client, Raised
from tests.dialects.conftest import LiveServer
from tests.dialects.venice_clients import OLD

pytestmark = [
    # The first test of a run may have to wait for the client's installation.
    pytest.mark.timeout(BUILD_S + 60),
    pytest.mark.parametrize("kind", ["sqlite"]),
]
HELLO = [{"role": "user", "content": "hello there"}]


@pytest.fixture(params=OLD)
def client(request: pytest.FixtureRequest, venice: Callable[[str], Client]) -> Client:
    """The client, sync and async, with the ADMIN key."""
    return venice(request.param)


async def test_keys_are_made_found_by_id_and_deleted(client: Client) -> None:
    request = {"apiKeyType": "INFERENCE", "description": "old", "consumptionLimit": {"usd": 3}}
    made = await client("api_keys.create", api_key_request=request)
    assert made["apiKey"].endswith(made["last6Chars"])
    assert made["consumptionLimits"]["usd"] == 3.0
    found = await client("api_keys.retrieve", api_key_id=made["id"])
    assert (found["id"], found["description"]) == (made["id"], "old")
    assert found["limitPeriod"] == "EPOCH"
    assert len(await client("api_keys.list")) == 3
    assert len(await client("api_keys.list", page=2, limit=2)) == 1
    assert await client("api_keys.delete", api_key_id=made["id"]) == {"success": True}
    with pytest.raises(Raised) as refused:
        await client("api_keys.retrieve", api_key_id=made["id"])
    assert (refused.value.kinds[0], refused.value.status) == ("NotFoundError", 404)


async def test_usage_is_paged_by_number(client: Client, in_process_server: LiveServer) -> None:
    for _ in range(5):
        assert (await in_process_server.chat()).status_code == 200
    first = await client("billing.get_usage", limit=2, sortOrder="asc")
    assert first["pagination"] == {"limit": 2, "page": 1, "total": 5, "totalPages": 3}
    last = await client("billing.get_usage", limit=2, page=3, sortOrder="asc")
    assert len(last["data"]) == 1
    newest = await client("billing.get_usage", limit=2)
    assert newest["data"][0] == last["data"][0]
    span = {"startDate": "2020-01-01T00:00:00Z", "endDate": "2020-02-01T00:00:00Z"}
    assert (await client("billing.get_usage", **span))["pagination"]["total"] == 0
    assert (await client("billing.get_usage", currency="VCU"))["data"] == []
    text = base64.b64decode((await client("billing.get_usage", format="csv"))["base64"]).decode()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["timestamp"] for row in rows][:2] == [each["timestamp"] for each in newest["data"]]


async def test_limits_models_and_calls(client: Client, in_process_server: LiveServer) -> None:
    server = in_process_server
    caller = client.at(server.url, server.inference_key)
    assert (await caller("api_keys.get_rate_limits"))["accessPermitted"] is True
    assert (await client("api_keys.get_rate_limit_logs"))["data"] == []
    assert server.model in [each["id"] for each in (await client("models.list"))["data"]]
    ask = {"model": server.model, "messages": HELLO}
    whole = await caller("chat.completions.create", **ask)
    chunks = await caller("chat.completions.create", stream=True, **ask)
    deltas = [chunk["choices"][0]["delta"].get("content") for chunk in chunks if chunk["choices"]]
    assert "".join(each or "" for each in deltas) == whole["choices"][0]["message"]["content"]


async def test_refusals_are_the_clients_own_exceptions(
    client: Client, in_process_server: LiveServer
) -> None:
    server = in_process_server
    caller = client.at(server.url, server.inference_key)
    with pytest.raises(Raised) as refused:
        await caller("api_keys.list")
    assert (refused.value.kinds[0], refused.value.status) == ("AuthenticationError", 401)
    with pytest.raises(Raised) as refused:
        await client("billing.get_usage", limit=501)
    assert (refused.value.kinds[0], refused.value.status) == ("InvalidRequestError", 400)
    with pytest.raises(Raised) as refused:
        await caller("chat.completions.create", model="nobody-has-it", messages=HELLO)
    assert (refused.value.kinds[0], refused.value.status) == ("NotFoundError", 404)
