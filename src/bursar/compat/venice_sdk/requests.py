"""Requests of the Venice dialect, sent by the SDK.

Owns where the dialect is. Must not know what is asked for.
"""

import os
from typing import Final, TypeVar

from bursar.compat.venice_sdk.shapes import Deletion
from bursar.sdk import results, values
from bursar.sdk.calls import Answer, Call
from bursar.sdk.client import Bursar
from bursar.sdk.faces import Resource
from bursar.sdk.results import Result

T = TypeVar("T")
R = TypeVar("R", bound=Result)

_PREFIX: Final = "/api/v1"


class Requests:
    """What one client sends; `bursar` is the SDK's client on the same connections."""

    def __init__(self, bursar: Bursar) -> None:
        self.bursar = bursar
        self._resource = Resource(bursar.connection, bursar.options)

    def get(self, kind: type[R], *parts: str, accept: str = "application/json") -> R:
        """The answer to a GET, which is of this kind; raises BursarError."""
        path = values.path(f"{_PREFIX}{parts[0]}", *parts[1:])
        return self._send(Call("GET", path, results.read(kind), headers={"accept": accept}))

    def post(self, kind: type[R], path: str, body: dict[str, object]) -> R:
        """The answer to a POST, which is of this kind; raises BursarError."""
        return self._send(Call("POST", _PREFIX + path, results.read(kind), body=body, is_kept=True))

    def delete(self, path: str, **query: object) -> bool:
        """Whether a DELETE has done it; raises BursarError."""
        return self._send(Call("DELETE", _PREFIX + path, _read_deletion, query))

    def _send(self, call: Call[T]) -> T:
        return self._resource.run(call)[0]


def connect(
    *, api_key: str | None, base_url: str | None, timeout_s: float | None, max_retries: int
) -> Requests:
    """Return the requests of a new client; an address may end in `/api/v1`."""
    given = base_url or os.environ.get("BURSAR_BASE_URL")
    address = given.rstrip("/").removesuffix(_PREFIX) if given else None
    return Requests(Bursar(api_key, base_url=address, timeout_s=timeout_s, max_retries=max_retries))


def _read_deletion(answer: Answer) -> bool:
    """Of a deletion that was sent again there may be nothing to read: it was done before."""
    return answer.status == 204 or results.read(Deletion)(answer).success
