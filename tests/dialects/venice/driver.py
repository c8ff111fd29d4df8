"""Drives one of Venice's own clients, in the environment that it is installed in.

Reads a call a line (JSON) from standard input and answers each with a line: what the client
returned, or the exception that it raised. Its first argument says which client. Knows nothing of
Bursar, and stands alone: nothing else of the tests is installed here.

A call is `{"base_url", "key", "name", "arguments"}`; a name such as "api_keys.create" is looked up
on the client, and "requests.post" (of venice-sdk) on the client beneath it.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import inspect
import json
import sys
import warnings
from collections.abc import AsyncIterable, Callable, Iterator, Mapping
from enum import Enum
from typing import Any

Call = Mapping[str, Any]


def main(which: str) -> None:
    faces: dict[str, Callable[[Call], Any]] = {
        "venice-sdk": call_venice_sdk,
        "venice-py": call_venice_py,
        "venice-py-sync": call_venice_py_sync,
        "venice-ai": call_venice_ai,
        "venice-ai-async": call_venice_ai_async,
    }
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        try:
            said = {"returned": plain(faces[which](json.loads(line)))}
        except Exception as error:  # whatever it is, the test is told
            said = {"raised": describe(error)}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


def call_venice_sdk(call: Call) -> Any:
    from venice_sdk import create_client
    from venice_sdk.account import AccountManager
    from venice_sdk.models import get_models

    # Its own defaults make it wait seconds between tries.
    client = create_client(
        api_key=call["key"],
        base_url=f"{call['base_url']}/api/v1",
        retry_delay=0,
        retry_backoff_factor=0,
        max_retries=call.get("retries", 1),
    )
    arguments = {name: moment(value) for name, value in call["arguments"].items()}
    extra = {
        "account": AccountManager(client.api_keys, client.billing),
        "http": client.http_client,
        "get_models": lambda: get_models(client.http_client),
    }
    found = find(extra, call["name"]) or find(client, call["name"])
    result = found(**arguments)
    if call["name"].startswith("http."):
        return result.json()
    return list(result) if isinstance(result, Iterator) else result


def call_venice_py(call: Call) -> Any:
    from venice_ai import VeniceClient

    async def run() -> Any:
        async with VeniceClient(api_key=call["key"], base_url=call["base_url"]) as client:
            result = find(client, call["name"])(**arguments_of_venice_py(call))
            if inspect.isawaitable(result):
                result = await result
            return await gather(result) if hasattr(result, "__aiter__") else result

    return asyncio.run(run())


def call_venice_py_sync(call: Call) -> Any:
    from venice_ai import SyncVeniceClient

    with SyncVeniceClient(api_key=call["key"], base_url=call["base_url"]) as client:
        result = find(client, call["name"])(**arguments_of_venice_py(call))
        if hasattr(result, "__aiter__"):
            # It hands out iterators that only its own loop can drive.
            return client._run(gather(result))
        return list(result) if isinstance(result, Iterator) else result


def call_venice_ai(call: Call) -> Any:
    from venice_ai import VeniceClient

    with VeniceClient(api_key=call["key"], base_url=f"{call['base_url']}/api/v1") as client:
        result = find(client, call["name"])(**arguments_of_venice_ai(call))
        is_many = isinstance(result, Iterator)
        return list(result) if is_many else result


def call_venice_ai_async(call: Call) -> Any:
    from venice_ai import AsyncVeniceClient

    async def run() -> Any:
        url = f"{call['base_url']}/api/v1"
        async with AsyncVeniceClient(api_key=call["key"], base_url=url) as client:
            result = find(client, call["name"])(**arguments_of_venice_ai(call))
            if inspect.isawaitable(result):
                result = await result
            return await gather(result) if hasattr(result, "__aiter__") else result

    return asyncio.run(run())


async def gather(items: AsyncIterable[Any]) -> list[Any]:
    return [item async for item in items]


def arguments_of_venice_py(call: Call) -> dict[str, Any]:
    from venice_ai.types.api import CreateApiKeyRequest
    from venice_ai.types.enums import BillingFormatEnum

    arguments = dict(call["arguments"])
    if "api_key_request" in arguments:
        arguments["api_key_request"] = CreateApiKeyRequest(**arguments["api_key_request"])
    if arguments.get("format") == "csv":
        arguments["format"] = BillingFormatEnum.CSV
    return arguments


def arguments_of_venice_ai(call: Call) -> dict[str, Any]:
    from venice_ai.types.billing import BillingFormatEnum

    arguments = dict(call["arguments"])
    if arguments.get("format") == "csv":
        arguments["format"] = BillingFormatEnum.CSV
    return arguments


def find(root: Any, name: str) -> Any:
    for part in name.split("."):
        root = root.get(part) if isinstance(root, dict) else getattr(root, part)
        if root is None:
            return None
    return root


def moment(value: Any) -> Any:
    """Moments come as {"at": text}, because JSON has none."""
    if isinstance(value, dict) and set(value) == {"at"}:
        return datetime.datetime.fromisoformat(value["at"])
    return value


def plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return value


def describe(error: BaseException) -> dict[str, Any]:
    cause = error.__cause__
    return {
        "kinds": [kind.__name__ for kind in type(error).__mro__],
        "message": str(error),
        "status": getattr(error, "status_code", getattr(error, "status", None)),
        "code": getattr(error, "code", getattr(error, "error_code", None)),
        "retry_after": getattr(error, "retry_after", getattr(error, "retry_after_seconds", None)),
        "cause": None if cause is None else type(cause).__name__,
    }


if __name__ == "__main__":
    main(sys.argv[1])
