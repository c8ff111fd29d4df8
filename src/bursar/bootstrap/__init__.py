"""The only wiring: settings in, a database, a worker and one application out.

Owns which part is given which, and the order in which they start and stop. Must not hold a rule of
its own: whatever decides something lives in the part that is wired here.
"""

import asyncio
import fcntl
import gc
import itertools
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvicorn

from bursar import failpoints, jobs
from bursar.adapters import processes
from bursar.api import app as control
from bursar.bootstrap import walls
from bursar.bootstrap.http import HttpServer, Told
from bursar.bootstrap.people import make_people
from bursar.bootstrap.upstreams import make_router
from bursar.config import ConfigError, Settings
from bursar.core import permissions
from bursar.core.errors import Conflict, Unavailable
from bursar.dialects.cerevox import app as cerevox
from bursar.dialects.cerevox.routes import BRANCHES
from bursar.dialects.venice import app as venice
from bursar.dialects.venice import errors as venice_errors
from bursar.dialects.venice import routes as venice_routes
from bursar.edge.calls import make_plane
from bursar.edge.switch import Switch
from bursar.gateway.access.rights import Access
from bursar.gateway.app import Application, uvicorn_options
from bursar.gateway.dispatch import Dispatch
from bursar.gateway.forward import Gateway
from bursar.gateway.forward import Limits as GatewayLimits
from bursar.gateway.http.names import Names
from bursar.gateway.http.patience import Patience
from bursar.gateway.planning import Planner
from bursar.gateway.routing import Router
from bursar.gateway.upstreams.aside import Aside
from bursar.gateway.wire.faces import Face
from bursar.service.audit import settings as starts
from bursar.service.people.ports import People
from bursar.store.database import SQLITE, Database
from bursar.telemetry import LoopLag, Metrics
from bursar.version import __version__
from bursar.worker.plane import OWN_CONNECTIONS, Limits, Worker, wall_clock_ms

_log = structlog.get_logger("bursar")
VENICE = Face(word=venice_errors.encode, has_moments=True, balance=venice_routes.BALANCE_FIELD)
_BACKLOG = 4_096
_GC_THRESHOLD = 20_000


@dataclass(frozen=True, slots=True)
class Server:
    """Everything that one process runs."""

    database: Database
    worker: Worker
    router: Router
    metrics: Metrics
    app: Application
    settings: Settings

    def options(self, *, patience: Patience | None = None) -> dict[str, Any]:
        """What uvicorn serves the application with."""
        found = self.settings
        names = Names(hosts=_hosts(found), origins=found.cors_origins)
        is_encrypted = found.url.startswith("https:")
        return uvicorn_options(self.app, patience=patience, names=names, is_encrypted=is_encrypted)


def open_database(settings: Settings) -> Database:
    """The installation's database, for a command; nothing is connected until it is used.

    Commands wait for the database as long as it takes: a proof or a migration of many rows does.
    """
    return Database(settings.resolved_database_url, clock_ms=wall_clock_ms, command_timeout_s=None)


@contextmanager
def owning(settings: Settings) -> Iterator[None]:
    """Own the SQLite file while serving: a second server on it would break every promise.

    Raises Conflict (`already_served`). On PostgreSQL any number may serve.
    """
    if not settings.resolved_database_url.startswith(SQLITE):
        yield
        return
    path = Path(settings.resolved_database_url.partition("///")[2] + ".owner")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                "already_served",
                "Another bursar serve owns this SQLite file; stop it, or use PostgreSQL.",
            ) from error
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    metrics: Metrics | None = None,
    clock_ms: Callable[[], int] = wall_clock_ms,
) -> AsyncIterator[Server]:
    """Everything that serves, started, without the HTTP server around it."""
    metrics = metrics or Metrics()
    async with AsyncExitStack() as parts:
        router = make_router(settings)
        parts.push_async_callback(router.close)
        database = Database(
            settings.resolved_database_url,
            clock_ms=clock_ms,
            connections=settings.database_connections,
        )
        parts.push_async_callback(database.close)
        worker = Worker(database, worker_limits(settings), metrics, clock_ms=clock_ms)
        await worker.start()
        parts.push_async_callback(worker.stop)
        await walls.take_up(database, row_security=settings.row_security)
        values = settings.model_dump(mode="json")
        await database.transact(partial(starts.note_start, values=values))
        lag, aside = LoopLag(), Aside()
        metrics.gauges = lambda: {
            **worker.gauges(),
            "bursar_loop_lag_seconds": lag.longest_s,
            "bursar_upstreams_aside": aside.count,
        }
        periodic = jobs.start(database, limit_log_days=settings.limit_log_days)
        post, people = make_people(settings)
        parts.callback(people.passwords.close)
        beside = [asyncio.create_task(each) for each in (*periodic, lag.run(), post.run())]
        parts.push_async_callback(_cancel, beside)
        app = _application(settings, worker, router, aside, people)
        yield Server(database, worker, router, metrics, app, settings)


def _hosts(settings: Settings) -> tuple[str, ...]:
    """The names that this server goes by; none where it goes by any."""
    if not settings.allowed_hosts:
        return ()
    own = urlsplit(settings.url).hostname or ""
    return (*settings.allowed_hosts, f"[{own}]" if ":" in own else own)


def listen(settings: Settings) -> tuple[socket.socket, Settings]:
    """Take the address; with it the settings in which the port is the true one.

    Raises Unavailable when the address cannot be had.
    """
    listener = _bind(settings)
    return listener, settings.model_copy(update={"port": listener.getsockname()[1]})


def serve(
    settings: Settings,
    listener: socket.socket,
    *,
    metrics: Metrics | None = None,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until told to stop; `on_ready` is called once requests are answered.

    With several workers each is a process of its own on the same socket, and one that ends unasked
    is replaced. Raises Conflict when the file is owned.
    """

    _warn_of_failpoints()

    def run(number: int) -> None:
        with owning(settings), asyncio.Runner(loop_factory=_new_loop) as runner:
            runner.run(_serve(settings, listener, metrics, None if number else on_ready))

    if settings.workers == 1:
        run(0)
    else:
        processes.supervise(settings.workers, run)


def _warn_of_failpoints() -> None:
    try:
        found = failpoints.what_is_set()
    except ValueError as error:
        raise ConfigError(f"{error}.") from error
    if found:
        _log.warning(
            "failpoint_set",
            failpoint=found,
            danger="this server fails on purpose; it is for tests alone",
        )


def worker_limits(settings: Settings) -> Limits:
    """The settings of a worker."""
    return Limits(
        journal_dir=settings.journal_dir,
        journal_max_bytes=settings.journal_max_bytes,
        settle_batch=settings.settle_batch,
        settle_linger_s=settings.settle_linger_ms / 1000,
        settle_backlog_most=settings.settle_backlog_most,
        max_staleness_s=settings.max_staleness_s,
        lease_ttl_s=settings.lease_ttl_s,
        lease_idle_s=settings.lease_idle_s,
        keyring_most=settings.keyring_most,
    )


async def _serve(
    settings: Settings,
    listener: socket.socket,
    metrics: Metrics | None,
    on_ready: Callable[[], None] | None,
) -> None:
    with Told() as told:
        async with running(settings, metrics=metrics) as server:
            options = server.options()
            drain_s = max(1, round(settings.drain_s))
            http = HttpServer(uvicorn.Config(**options, timeout_graceful_shutdown=drain_s))
            told.pass_on(http, server.worker)
            _log.info("serving", url=settings.url)
            if on_ready is not None:
                on_ready()
            # What was built at the start stays for good: looking through it again and again for
            # garbage costs each request more than its own arithmetic.
            gc.collect()
            gc.freeze()
            gc.set_threshold(_GC_THRESHOLD, 50, 50)
            await http.serve(sockets=[listener])
            _log.info("stopping")
            # Whoever was not done in time ends now, before the last charges are settled.
            await _cancel(http.server_state.tasks)


def _application(
    settings: Settings, worker: Worker, router: Router, aside: Aside, people: People
) -> Application:
    access = Access(permissions.parse_networks(settings.trusted_proxies))
    gateway = Gateway(
        worker,
        Planner(worker, router, access),
        worker.metrics,
        limits=GatewayLimits(settings.max_body_bytes, settings.disconnect_drain_s),
        access=access,
        dispatch=Dispatch(worker.metrics, aside),
        next_id=_request_ids(),
    )
    plane = make_plane(
        worker.database,
        why_not_ready=worker.why_not_ready,
        metrics=worker.metrics.render,
        activity_cache_s=round(settings.activity_cache_s),
        max_body_bytes=settings.max_control_body_bytes,
        most_at_once=settings.database_connections - OWN_CONNECTIONS,
        serving=router.places,
        trusted_proxies=settings.trusted_proxies,
        people=people,
    )
    count_gone = worker.metrics.count_gone
    api = control.create(plane, version=__version__, count_gone=count_gone)
    dialect = venice.create(
        plane,
        served=gateway.planner.served,
        shows_totals=settings.venice_totals,
        count_gone=count_gone,
    )
    users = cerevox.create(plane, count_gone=count_gone)
    dialects = {venice_routes.PREFIX.encode(): dialect, **dict.fromkeys(BRANCHES, users)}
    return Application(
        gateway,
        Switch(dialects, otherwise=api),
        faces={venice_routes.MODELS_PREFIX: VENICE},
    )


def _request_ids() -> Callable[[], str]:
    """Ids that differ between processes and starts, and cost next to nothing to make."""
    start = secrets.token_hex(8)
    numbers = itertools.count(1)
    return lambda: f"req_{start}{next(numbers):08x}"


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server(
            (settings.host, settings.port), family=family, backlog=_BACKLOG, reuse_port=False
        )
    except OSError as error:
        raise Unavailable(
            "address_unavailable",
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror}.",
        ) from error


def _new_loop() -> asyncio.AbstractEventLoop:
    with suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.new_event_loop()


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    ended = list(tasks)
    for task in ended:
        task.cancel()
    await asyncio.gather(*ended, return_exceptions=True)
