"""Golden pairs: the dialect and its client are held to the same files (`cerevox_golden`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from bursar.store.database import Database
from tests.databases import Clock
from tests.dialects import cerevox_stage, stages
from tests.dialects.cerevox_golden import CLIENTS, Memory, answer, outcome, recorded
from tests.dialects.clients import BUILD_S, Client
from tests.dialects.stages import Answer, Sent


@pytest.mark.parametrize("name", CLIENTS)
async def test_the_dialect_answers_as_recorded(database: Database, clock: Clock, name: str) -> None:
    async with cerevox_stage.speaking(database) as spoken:
        memory = Memory(spoken.secrets)
        for line in recorded(name):
            who = line["who"]
            for exchange in line["exchanges"]:
                request = dict(exchange["request"])
                request["authorization"] = memory.authorization(request["authorization"])
                request["body"] = memory.unmask(who, request["body"])
                status, headers, body = await answer(spoken, Sent(**request))
                masked = memory.mask(who, json.loads(body))
                said = {"status": status, "headers": headers, "body": masked}
                assert said == exchange["response"], f"{who}: {line['call']}"


@pytest.mark.timeout(BUILD_S + 60)
@pytest.mark.parametrize("name", CLIENTS)
async def test_the_client_sends_what_is_recorded_and_understands_the_answer(
    cerevox_processes: Callable[[str], Client], name: str
) -> None:
    waiting: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []

    def play(request: Sent) -> Answer:
        sent.append(asdict(request))
        response = waiting.pop(0)["response"]
        return response["status"], response["headers"], json.dumps(response["body"]).encode()

    with stages.stage(play) as url:
        started = cerevox_processes(name)
        for line in recorded(name):
            waiting[:], call = line["exchanges"], line["call"]
            sent.clear()
            client = started.at(url, f"key of {line['who']}")
            assert await outcome(client, call["name"], call["arguments"]) == line["returned"], call
            expected = [exchange["request"] for exchange in line["exchanges"]]
            assert [_shown(each) for each in sent] == [_shown(each) for each in expected], call


def _shown(request: dict[str, Any]) -> dict[str, Any]:
    """A request with the scheme alone of what it was authorized by."""
    return {**request, "authorization": request["authorization"].partition(" ")[0]}
