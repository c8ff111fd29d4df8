"""Health: whether the process lives, whether it can serve, and its figures.

Owns who may see the figures: this machine, or an operator. Must not know what is measured.
"""

import ipaddress
from typing import Final

from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.edge.calls import Call, prove, reply
from bursar.service.access import OperatorPrincipal

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
# A request that came through a proxy comes from this machine only by the look of it.
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


class HealthShape(TypedDict):
    """`ok`, or why not."""

    status: str


async def show_life(call: Call[None]) -> Response:
    """Whether the process answers at all."""
    return reply(HealthShape(status="ok"))


async def show_readiness(call: Call[None]) -> Response:
    """Whether requests can be served; 503 with the reason otherwise."""
    reason = call.plane.why_not_ready()
    if reason is None:
        return reply(HealthShape(status="ok"))
    response = reply(HealthShape(status=reason), status=503)
    response.headers["retry-after"] = "1"
    return response


async def show_metrics(call: Call[None]) -> Response:
    """The process's figures, for Prometheus."""
    if not _is_local(call):
        async with call.plane.gate.enter():
            await prove(
                call.plane,
                secret=call.secret or None,
                wanted=OperatorPrincipal,
                address=call.address,
            )
    return Response(call.plane.metrics(), media_type=_TEXT)


def _is_local(call: Call[None]) -> bool:
    if any(name in call.headers for name in _FORWARDED):
        return False
    try:
        return ipaddress.ip_address(call.client).is_loopback
    except ValueError:
        return False
