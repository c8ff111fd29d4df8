"""Requests of the Venice dialect, sent by the SDK.

Owns where the dialect is. Must not know what is asked for.
"""

import os
from typing import Any, Final

from bursar.sdk import values
from bursar.sdk.calls import Answer, Call
from bursar.sdk.client import Bursar
from bursar.sdk.faces import Resource

_PREFIX: Final = "/api/v1"


class Requests:
    """What one client sends; `bursar` is the SDK's client on the same connections."""

    def __init__(self, bursar: Bursar) -> None:
        self.bursar = bursar
        self._resource = Resource(bursar.connection, bursar.options)

    def get(self, *parts: str, accept: str = "application/json", **query: object) -> Any:
        """The JSON of a GET; raises BursarError."""
        path = values.path(f"{_PREFIX}{parts[0]}", *parts[1:])
        return self._send(Call("GET", path, _json, query, headers={"accept": accept}))

    def post(self, path: str, body: dict[str, object]) -> Any:
        """The JSON of a POST; raises BursarError."""
        return self._send(Call("POST", _PREFIX + path, _json, body=body, is_kept=True))

    def delete(self, path: str, **query: object) -> Any:
        """The JSON of a DELETE; raises BursarError."""
        return self._send(Call("DELETE", _PREFIX + path, _json, query))

    def _send(self, call: Call[Any]) -> Any:
        return self._resource.run(call)[0]


def connect(
    *, api_key: str | None, base_url: str | None, timeout_s: float | None, max_retries: int
) -> Requests:
    """Return the requests of a new client; an address may end in `/api/v1`."""
    given = base_url or os.environ.get("BURSAR_BASE_URL")
    address = given.rstrip("/").removesuffix(_PREFIX) if given else None
    return Requests(Bursar(api_key, base_url=address, timeout_s=timeout_s, max_retries=max_retries))


def _json(answer: Answer) -> Any:
    return answer.json()
