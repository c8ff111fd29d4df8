"""Leak reports over HTTP: for scanners that have found a secret in public.

Owns the form, and that every report is answered alike. Must not know rules; `service.keys.leaks`
does.
"""

from functools import partial
from typing import Final

import structlog
from starlette.responses import Response
from typing_extensions import TypedDict

from bursar.core import text
from bursar.edge.body import Model, check
from bursar.edge.calls import Call, reply
from bursar.service.keys import leaks

_log: Final = structlog.get_logger("bursar.keys")
_SECRET_LENGTH: Final = 512
_SOURCE_LENGTH: Final = 1_000


class LeakFields(Model):
    """A secret that was found in public, and where: a link, or whatever helps its owner."""

    secret: str
    source: str | None = None


class LeakShape(TypedDict):
    """The answer to every report, whether the secret is known here or not."""

    message: str


async def report(call: Call[None]) -> Response:
    """Report a secret that is public. Its key is disabled at once, and its account is told.

    No key is needed, and the answer is always the same. An address may do so 60 times a minute.
    """
    call.plane.leak_pace.take(call.address, now_ms=call.plane.now_ms())
    fields = check(LeakFields, call.document)
    source = ""
    if fields.source and fields.source.strip():
        source = text.clean_name(fields.source, max_len=_SOURCE_LENGTH, param="source")
    if len(fields.secret) <= _SECRET_LENGTH:
        work = partial(leaks.report, secret=fields.secret.strip(), source=source)
        async with call.plane.gate.enter():
            leaked = await call.plane.database.transact(work)
        if leaked is not None:
            _log.warning("key_leaked", account_id=leaked.account_id, key_id=leaked.key_id)
    message = "Thank you. If this opens anything here, it has been stopped."
    return reply(LeakShape(message=message), status=202)
