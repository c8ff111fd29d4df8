"""Drives Cerevox's own client, in the environment that it is installed in.

Reads a call a line (JSON) from standard input and answers each with a line: what the client
returned, or the exception that it raised. Its first argument says which face. Knows nothing of
Bursar, and stands alone: nothing else of the tests is installed here.

A call is `{"base_url", "key", "name", "arguments"}`; "request" is the client's own way to send what
it has no method for. A client signs in when it is made and is kept for later calls; "start" makes a
new one, and "age" makes its access token look as if it were about to end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

Call = Mapping[str, Any]
Key = tuple[str, str]


def main(which: str) -> None:
    logging.disable(logging.CRITICAL)
    with asyncio.Runner() as runner:
        face: Callable[[Call], Any] = Blocking().call
        if which == "cerevox-async":
            awaited = Awaited()

            def face(call: Call) -> Any:
                return runner.run(awaited.call(call))

        for line in sys.stdin:
            try:
                said = {"returned": plain(face(json.loads(line)))}
            except Exception as error:  # whatever it is, the test is told
                said = {"raised": describe(error)}
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


class Blocking:
    def __init__(self) -> None:
        self.kept: dict[Key, Any] = {}

    def call(self, call: Call) -> Any:
        from cerevox import Account

        place = (call["base_url"], call["key"])
        if call["name"] == "start" or place not in self.kept:
            url = f"{call['base_url']}/v1"
            self.kept[place] = Account(
                api_key=call["key"], data_url=url, max_retries=call.get("retries", 0)
            )
        return carry_out(self.kept[place], call)


class Awaited:
    def __init__(self) -> None:
        self.kept: dict[Key, Any] = {}

    async def call(self, call: Call) -> Any:
        from cerevox import AsyncAccount

        place = (call["base_url"], call["key"])
        if call["name"] == "start" or place not in self.kept:
            if place in self.kept:
                await self.kept.pop(place).close_session()
            client = AsyncAccount(api_key=call["key"], data_url=f"{call['base_url']}/v1")
            try:
                await client.start_session()
            except BaseException:
                await client.close_session()
                raise
            self.kept[place] = client
        result = carry_out(self.kept[place], call)
        return await result if hasattr(result, "__await__") else result


def carry_out(client: Any, call: Call) -> Any:
    name = call["name"]
    if name == "start":
        return "started"
    if name == "age":
        client.token_expires_at = 1.0
        return "aged"
    if name == "tokens":
        return {"access": client.access_token, "refresh": client.refresh_token}
    methods = {"request": "_request", "login": "_login", "revoke": "_revoke_token"}
    if name == "refresh":
        return client._refresh_token(client.refresh_token)
    return getattr(client, methods.get(name, name))(**call["arguments"])


def plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def describe(error: BaseException) -> dict[str, Any]:
    cause = error.__cause__
    data = getattr(error, "response_data", None) or {}
    return {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "message": str(error),
        "status": getattr(error, "status_code", None),
        "code": data.get("error_type"),
        "retry_after": getattr(error, "retry_after", None),
        "cause": None if cause is None else type(cause).__name__,
    }


if __name__ == "__main__":
    main(sys.argv[1])
