"""The installation at hand as a server of its own, in this process and for one command.

Owns the way from the SDK's client to the control API without a network, as an owner of one
account: whoever may open the installation's files may do that. Must not know what is asked.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx2

from bursar import bootstrap
from bursar.bootstrap.at_hand import at_hand
from bursar.cli import output
from bursar.cli import session as sessions
from bursar.cli.session import Session
from bursar.core.secrets import KeyKind, mint
from bursar.sdk.client import Bursar
from bursar.service import accounts
from bursar.service.access import HostPrincipal

if TYPE_CHECKING:
    from bursar.adapters.mail import Letter
    from bursar.config import Settings

URL: Final = "http://127.0.0.1"
_SEAL_BYTES: Final = 32


@contextmanager
def opened(session: Session, *, account_id: int) -> Iterator[Bursar]:
    """A client of the installation, for what an owner of that account may do.

    Raises NotFound (`not_initialised`, `not_found`) and Conflict (`database_old`).
    """
    sessions.quiet_logs()
    parts = AsyncExitStack()
    with asyncio.Runner() as runner:
        try:
            app = runner.run(_open(parts, session.settings(), account_id))
            http = httpx2.Client(transport=_Inside(app, runner))
            # No key is asked for here; the client would not call without one.
            unused = mint(KeyKind.PROVISIONING, random_bytes=os.urandom(_SEAL_BYTES))
            with http, Bursar(unused, base_url=URL, http_client=http, max_retries=0) as client:
                yield client
        finally:
            runner.run(parts.aclose())


async def _open(parts: AsyncExitStack, settings: "Settings", account_id: int) -> Any:
    database = bootstrap.open_database(settings)
    parts.push_async_callback(database.close)
    await sessions.require_installation(database)
    async with database.read() as tx:
        await accounts.get(tx, account_id=account_id)
    caller = HostPrincipal(0, account_id, None, command_seal=os.urandom(_SEAL_BYTES))
    return await parts.enter_async_context(
        at_hand(settings, database, caller=caller, mailer=_Terminal())
    )


class _Terminal:
    """No mail server: whoever runs the command is shown the letter, and hands it on."""

    def send(self, letter: "Letter") -> None:
        """Print one letter."""
        output.say(f"There is no mail server; this is for {letter.to}:\n\n{letter.text}")


class _Inside(httpx2.BaseTransport):
    """Requests to an application in this process, each on the command's own event loop."""

    def __init__(self, app: Any, runner: asyncio.Runner) -> None:
        # Nobody comes from anywhere: no address is noted for what is done here.
        self._inner = httpx2.ASGITransport(app=app, client=("", 0))
        self._runner = runner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request."""
        return self._runner.run(self._answer(request))

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        answer = await self._inner.handle_async_request(request)
        content = await answer.aread()
        return httpx2.Response(answer.status_code, headers=answer.headers, content=content)
