"""How the tests' own process logs, where a test has not set it up as the server does.

Plain lines, as a server writes them: structlog's own default shows the local variables of a
traceback, and those hold secrets. Nothing is hidden from these lines, so that a test sees what a
line would have said.
"""

from __future__ import annotations

import structlog


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
