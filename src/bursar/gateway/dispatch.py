"""The way to an upstream: which one is asked, in which order, and what its failures mean.

Owns fail-over, which always comes before the caller has seen a byte. Must not know limits, keys of
callers, or how an answer is relayed.
"""

from collections.abc import Sequence
from typing import Final

from bursar import failpoints
from bursar.gateway import relay
from bursar.gateway.routing import Route
from bursar.gateway.upstreams.aside import Aside
from bursar.gateway.upstreams.port import StartedResponse, UpstreamError, UpstreamResponse
from bursar.gateway.wire import answers, calls
from bursar.telemetry import Metrics

# 401 is about our key, so another upstream may well answer.
_WORTH_ANOTHER: Final = frozenset((401, 429, 500, 502, 503, 504, 529))
_OUR_KEY: Final = 401
_MOST_ERROR_BODY: Final = 65_536
# Where a test stops calls between hold and answer, all of them wait there.
_IS_WATCHED: Final = failpoints.is_set("hold.taken", "request.sent")


class Dispatch:
    """Sends admitted calls to upstreams."""

    def __init__(self, metrics: Metrics, aside: Aside) -> None:
        self._metrics = metrics
        self._aside = aside

    def start(self, exchange: relay.Exchange) -> StartedResponse | None:
        """Send an admitted request to the first upstream, if that needs no waiting."""
        plan = exchange.plan
        if plan.call.is_stream or self._aside.is_needed or _IS_WATCHED:
            return None
        route = plan.routes[0]
        body = calls.upstream_body(plan.call, route, plan.max_output)
        upstream, path = route.upstream, plan.call.endpoint.path
        return upstream.client.start(b"POST", path, upstream.headers, body)

    @failpoints.before("hold.taken")
    async def send(
        self, exchange: relay.Exchange, started: StartedResponse | None = None
    ) -> UpstreamResponse:
        """The first answer of an upstream that is worth relaying; notes whose it is.

        Fails over to the next upstream on connection errors, time-outs, overload and a refusal of
        our key, always before the caller has seen a byte. What was `started` is waited for first.
        """
        plan, aside = exchange.plan, self._aside
        routes: Sequence[Route] = plan.routes
        if aside.is_needed and started is None:
            routes = aside.choose(routes)
        path, last = plan.call.endpoint.path, routes[-1] if routes else None
        for route in routes:
            exchange.route = route
            upstream = route.upstream
            try:
                response: UpstreamResponse
                early, started = started, None
                if early is not None and await early.answered():
                    response = early
                else:
                    body = calls.upstream_body(plan.call, route, plan.max_output)
                    response = await upstream.client.send(
                        b"POST", path, upstream.headers, body, is_again=early is not None
                    )
            except UpstreamError as error:
                # After a time-out the upstream may be at work, and would sell the call twice.
                if route is last or (error.request_sent and error.kind.startswith("timeout")):
                    raise
                self._metrics.upstream_failed(error.kind)
                continue
            if response.status == 200:
                if aside.is_needed:
                    aside.answered(upstream)
                return response
            self._metrics.upstream_failed(str(response.status))
            if response.status == _OUR_KEY:
                aside.refused(upstream)
            if route is last or response.status not in _WORTH_ANOTHER:
                raise await _refused(response, upstream.headers)
            response.abort()
        # Every one that could serve it is set aside.
        raise answers.from_status(_OUR_KEY, [], b"")


async def _refused(
    response: UpstreamResponse, sent: Sequence[tuple[bytes, bytes]]
) -> answers.UpstreamRefused:
    if 300 <= response.status < 400 or response.status < 200:
        response.abort()
        return answers.invalid()
    body = await response.read()
    for name, value in sent:
        if name == b"authorization":
            # Some say in their refusals which key they were called with, and it is ours.
            body = body.replace(value.removeprefix(b"Bearer "), b"[hidden]")
    return answers.from_status(response.status, response.headers, body[:_MOST_ERROR_BODY])
