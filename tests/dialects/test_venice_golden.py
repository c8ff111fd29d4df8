"""Golden pairs: the dialect and its clients are held to the same files (`venice_golden`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from bursar.store.database import Database
from tests.databases import Clock
from tests.dialects import stages, venice_stage
from tests.dialects.clients import BUILD_S, Client
from tests.dialects.stages import Answer, Sent
from tests.dialects.venice_golden import CLIENTS, answer, outcome, readable, recorded


@pytest.mark.parametrize("name", CLIENTS)
async def test_the_dialect_answers_as_recorded(database: Database, clock: Clock, name: str) -> None:
    async with venice_stage.speaking(database) as spoken:
        for number, pair in enumerate(recorded(name)):
            sent = Sent(**pair["request"])
            status, headers, body = await answer(spoken, sent)
            said = {"status": status, "headers": headers, "body": readable(headers, body)}
            assert said == pair["response"], f"{name} {number}: {pair['call']}"


@pytest.mark.timeout(BUILD_S + 60)
@pytest.mark.parametrize("name", CLIENTS)
async def test_the_client_sends_what_is_recorded_and_understands_the_answer(
    venice_processes: Callable[[str], Client], name: str
) -> None:
    pairs = iter(recorded(name))
    now: dict[str, Any] = {}

    def play(sent: Sent) -> Answer:
        now["sent"] = asdict(sent)
        response = now["pair"]["response"]
        content = response["body"]
        text = content if isinstance(content, str) else json.dumps(content)
        return response["status"], response["headers"], text.encode()

    with stages.stage(play) as url:
        client = venice_processes(name).at(url, "a-key")
        for now["pair"] in pairs:
            call = now["pair"]["call"]
            returned = await outcome(client, call["name"], call["arguments"])
            assert {**now["sent"], "authorization": "Bearer a-key"} == {
                **now["pair"]["request"],
                "authorization": "Bearer a-key",
            }, call
            assert returned == now["pair"]["returned"], call
