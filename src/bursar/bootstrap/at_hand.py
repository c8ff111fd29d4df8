"""The control API without a server: for a command on the installation's own host.

Owns how the application is put together for one caller who needs no proof, because they have the
installation's files. It works beside running servers, in short transactions, as every command does.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from bursar.adapters.mail import Mailer
from bursar.api import app as control
from bursar.bootstrap.people import make_people
from bursar.bootstrap.upstreams import make_router
from bursar.config import Settings
from bursar.edge.calls import make_plane
from bursar.service.access import HostPrincipal
from bursar.store.database import Database
from bursar.version import __version__


@asynccontextmanager
async def at_hand(
    settings: Settings, database: Database, *, caller: HostPrincipal, mailer: Mailer
) -> AsyncIterator[Any]:
    """The control API as an ASGI application, all of whose requests are this caller's.

    Letters leave before the end; where there is no mail server, by `mailer`.
    """
    router = make_router(settings)
    post, people = make_people(settings, without_server=mailer)
    plane = make_plane(
        database,
        why_not_ready=lambda: None,
        metrics=lambda: b"",
        max_body_bytes=settings.max_control_body_bytes,
        serving=router.places,
        people=people,
        caller=caller,
    )
    sending = asyncio.create_task(post.run())
    try:
        yield control.create(plane, version=__version__, is_described=False)
        await post.settle()
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        people.passwords.close()
        await router.close()
