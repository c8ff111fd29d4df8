"""The short way in for calls of models: from the parser to the gateway, past ASGI.

Owns the request cycle of a call whose head and body came together, as they mostly do. It is
uvicorn's own, so everything that it can do still works (streams, errors, pipelines, draining);
what is left out is what such a call does not need: a scope of twelve fields, an event, a wrapping
coroutine. Must not know what is served.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from bursar.gateway.asgi import Scope
from bursar.gateway.caller import Caller
from bursar.gateway.http.cork import Cork


class Waiting(Protocol):
    """A call for which nothing runs until something has come."""

    def go_on(self) -> None:
        """Have a task wait for it from now on, if it still waits."""
        ...


Run = Callable[[Coroutine[Any, Any, None]], None]
# Begins to serve. What then has to be waited for is run as a task, or waits by itself.
Serve = Callable[[Caller, Run], Waiting | None]
# By the request's target, byte for byte: one with a query takes the long way.
Targets = Mapping[bytes, Serve]


class _Settled:
    """Stands in for the event that tells of more body: there is none to come."""

    def set(self) -> None:
        """Nobody waits."""

    def clear(self) -> None:
        """Nothing is remembered."""

    async def wait(self) -> None:
        """There is nothing to wait for but the caller's leaving, which the cycle knows."""


_SETTLED: Final[Any] = _Settled()


class DirectCycle(RequestResponseCycle):
    """A POST whose body is here; what differs from one request to the next is set, and no more."""

    # uvicorn's are a whole scope and a bare transport; these are what such a call needs of them.
    scope: Any
    transport: Any
    access_log = False
    disconnected = False
    waiting_for_100_continue = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding = None
    expected_content_length = 0
    message_event = _SETTLED

    def __init__(  # deliberately not the parent's, which sets what the class sets here
        self,
        scope: Scope,
        transport: Cork | None,
        flow: FlowControl,
        default_headers: list[tuple[bytes, bytes]],
        *,
        keep_alive: bool,
        on_response: Callable[..., None],
    ) -> None:
        self.scope = scope
        self.transport = transport
        self.flow = flow
        self.default_headers = default_headers
        self.keep_alive = keep_alive
        self.on_response = on_response
        self.body: Any = bytearray()

    def begin(self, serve: Serve, run: Run) -> Waiting | None:
        """Start serving; the body is whole."""
        self.more_body = False
        receive: Any = self.receive
        send: Any = self.send
        return serve(Caller(self.scope, receive, send), run)
