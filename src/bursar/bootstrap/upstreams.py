"""The upstreams: settings in, clients and the router between them out.

Owns which client serves which upstream, and what it says of itself. Must not know requests.
"""

from bursar.config import Settings, UpstreamSettings
from bursar.gateway.routing import Router, Upstream, sandbox
from bursar.gateway.upstreams.pool import KeepAlivePool
from bursar.gateway.upstreams.pool_aiohttp import AiohttpPool
from bursar.gateway.upstreams.port import Limits, Timeouts, UpstreamClient


def make_router(settings: Settings) -> Router:
    """The configured upstreams in their order, the sandbox last. Raises ConfigError."""
    upstreams = [_upstream(each) for each in settings.upstreams]
    if settings.sandbox_enabled:
        upstreams.append(sandbox())
    return Router(upstreams)


def _upstream(settings: UpstreamSettings) -> Upstream:
    key = settings.read_api_key()
    headers = [(b"content-type", b"application/json"), (b"user-agent", b"bursar")]
    if key is not None:
        headers.append((b"authorization", b"Bearer " + key.encode()))
    return Upstream(
        settings.name,
        _client(settings),
        tuple(headers),
        settings.models,
        settings.rename,
        aside_s=settings.refused_aside_s,
    )


def _client(settings: UpstreamSettings) -> UpstreamClient:
    timeouts = Timeouts(
        connect_s=settings.connect_timeout_s,
        headers_s=settings.headers_timeout_s,
        idle_s=settings.idle_timeout_s,
        total_s=settings.total_timeout_s,
    )
    limits = Limits(max_connections=settings.max_connections)
    if settings.client == "aiohttp":
        return AiohttpPool(
            settings.base_url, timeouts=timeouts, limits=limits, proxy=settings.proxy
        )
    return KeepAlivePool(settings.base_url, timeouts=timeouts, limits=limits)
