"""How the tests' own process logs, where a test has not set it up as the server does.

Plain lines, as a server writes them: structlog's own default shows the local variables of a
traceback, and those hold secrets. Nothing is hidden from these lines, so that a test sees what a
line would have said.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from bursar import telemetry


def set_up() -> None:
    """Log to standard output, tracebacks without local variables."""
    structlog.reset_defaults()
    plain = structlog.dev.plain_traceback
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=plain),
        ],
        cache_logger_on_first_use=False,
    )


@contextmanager
def as_a_server(*, level: str) -> Iterator[None]:
    """Log as a server does for the length of a block: what comes after it is not its business."""
    root = logging.getLogger()
    handlers, former, raises = root.handlers[:], root.level, logging.raiseExceptions
    telemetry.set_up_logs(log_format="json", level=level)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(former)
        logging.raiseExceptions = raises
        set_up()
