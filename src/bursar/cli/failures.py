"""What a failure is called on a terminal: one sentence, what to do about it, and an exit code.

Owns the table from errors to exit codes and advice. Must not know commands.
"""

import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import typer

from bursar.core import errors
from bursar.core.money import InvalidAmount

OK, FOUND, USAGE, MISSING, CONFLICT, UNAVAILABLE, BUG = range(7)
INTERRUPTED: Final = 130

_CODES: Final[tuple[tuple[type[errors.BursarError], int], ...]] = (
    (errors.Unreadable, USAGE),
    (errors.Invalid, USAGE),
    (errors.NotFound, MISSING),
    (errors.Gone, MISSING),
    (errors.Unavailable, UNAVAILABLE),
    (errors.InvariantViolated, BUG),
    (errors.BursarError, CONFLICT),
)
_ADVICE: Final = {
    "account_cancelled": "A cancelled account stays cancelled; open another one.",
    "address_unavailable": "Stop what listens there, or choose another --host or --port.",
    "already_initialised": "Its secrets were shown then. Make new keys with: bursar keys create",
    "already_served": "Stop the other server first, or give this one its own --data-dir.",
    "backup_damaged": "Nothing was changed. Use another copy, or an earlier backup.",
    "backup_exists": "Choose another name, or a folder: the name is then the moment.",
    "backup_newer": "Install the version that made it, or a newer one.",
    "credit_leased": "Wait for the requests in flight, then try again.",
    "database_newer": "Install the newer version of Bursar.",
    "database_old": "Start the server once, or run: bursar init",
    "insufficient_credit": "See what is left with: bursar accounts show ID",
    "invalid_price_file": "Correct the file and load it again; nothing was changed.",
    "insufficient_role": "Ask an owner or an admin of the account: bursar users list",
    "invalid_api_key": "The key is not good, or not any more. Sign in again: bursar login URL",
    "invalid_token": "The sign-in is over. Sign in again: bursar login URL",
    "not_found": "See what there is, with the command's own list: bursar keys list",
    "not_empty": "Nothing was changed. To lose what is there, back it up and say --replace.",
    "not_configured": "Sign in with: bursar login URL. Or name a key: BURSAR_API_KEY.",
    "not_initialised": "Make one with: bursar init. Or sign in to a server: bursar login URL",
    "servers_running": "Nothing was changed. Stop every server, wait a minute, and try again.",
    "wrong_key_type": "Managing takes a provisioning key, and chat an inference key: --profile.",
    "stdout_closed": "Have it written somewhere, or lost on purpose: > /dev/null",
    "unknown_provider": "See which there are: bursar prices import --list",
}
# Errors of the SDK, by the names of their classes: the SDK is not loaded to say what went wrong.
_OF_THE_SDK: Final = {
    "ConfigurationError": (USAGE, "not_configured"),
    "InvalidArgument": (USAGE, "invalid_value"),
    "MissingDependency": (UNAVAILABLE, "not_installed"),
    "TimedOut": (UNAVAILABLE, "timed_out"),
    "TlsFailed": (UNAVAILABLE, "tls_failed"),
    "StreamCut": (UNAVAILABLE, "stream_cut"),
    "ConnectionFailed": (UNAVAILABLE, "connection_failed"),
    "InvalidAnswer": (UNAVAILABLE, "invalid_answer"),
    "InvalidRequest": (USAGE, "refused"),
    "NotFound": (MISSING, "refused"),
    "RateLimited": (UNAVAILABLE, "refused"),
    "ServerFailed": (UNAVAILABLE, "refused"),
    "Refused": (CONFLICT, "refused"),
}
_OF_DATABASES: Final = (("sqlalchemy.exc", "SQLAlchemyError"), ("asyncpg", "PostgresError"))
_DOCTOR: Final = "See what is wrong with: bursar doctor"
_SERVER_ONLY: Final = "Install the server's packages: pip install 'bursar[server]'"


class Failure(NamedTuple):
    """A failure for a terminal, and for programs by its `code`."""

    exit_code: int
    code: str
    message: str
    advice: str = ""
    request_id: str | None = None


def report(error: BaseException, *, is_json: bool) -> int:
    """Say on stderr what went wrong and return the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else OK
    if isinstance(error, BrokenPipeError):
        _give_up_stdout()
        return OK
    failure = describe(error)
    with suppress(OSError, ValueError):
        _say(failure, error, is_json=is_json)
    return failure.exit_code


def describe(error: BaseException) -> Failure:
    """What an error is called and what to do about it."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return Failure(INTERRUPTED, "interrupted", "Interrupted.")
    if hasattr(error, "format_message"):
        return _describe_usage(error)
    if isinstance(error, errors.BursarError):
        exit_code = next(code for kind, code in _CODES if isinstance(error, kind))
        return Failure(exit_code, error.code, _named(error), _ADVICE.get(error.code, ""))
    if isinstance(error, InvalidAmount):
        return Failure(USAGE, error.code, str(error), "An amount looks like 12.50.")
    if _is_a(error, "bursar.sdk.errors", "BursarError"):
        return _describe_refusal(error)
    if isinstance(error, ModuleNotFoundError):
        missing = f"The package {error.name} is not installed."
        return Failure(UNAVAILABLE, "not_installed", missing, _SERVER_ONLY)
    return _describe_foreign(error)


def _describe_usage(error: Any) -> Failure:
    # The classes of such errors are not part of what Typer publishes; their method is.
    context = getattr(error, "ctx", None)
    advice = f"See: {context.command_path} --help" if context else "See: bursar --help"
    message = error.format_message().removeprefix("Invalid value: ")
    return Failure(USAGE, "usage", message, advice)


def _describe_refusal(error: Any) -> Failure:
    """What the SDK says, and what a server said through it."""
    names = [kind.__name__ for kind in type(error).__mro__]
    exit_code, code = next(_OF_THE_SDK[name] for name in names if name in _OF_THE_SDK)
    code = getattr(error, "code", None) or code
    message = error.message
    if getattr(error, "param", None):
        message = f"{error.param}: {message}"
    return Failure(exit_code, code, message, _ADVICE.get(code, ""), error.request_id)


def _named(error: errors.BursarError) -> str:
    """The error's sentence, with the field that it is about."""
    return f"{error.param}: {error.message}" if error.param else error.message


def _describe_foreign(error: BaseException) -> Failure:
    message = str(error).partition("\n")[0]
    if _is_a(error, "bursar.worker.journal", "JournalDamaged"):
        advice = "Keep a copy of the journal folder, and restore the file from a backup."
        return Failure(UNAVAILABLE, "journal_damaged", f"{message}.", advice)
    if _is_a(error, "bursar.worker.recovery", "JournalFormer"):
        advice = "Move it away; or restore again with --take-over, and it is settled."
        return Failure(UNAVAILABLE, "journal_former", f"{message}.", advice)
    if _is_a(error, "bursar.worker.journal", "JournalForeign"):
        advice = "Move it to the data directory of the database that it was written for."
        return Failure(UNAVAILABLE, "journal_foreign", f"{message}.", advice)
    if _is_a(error, "bursar.worker.journal", "JournalFull"):
        advice = "Make room on the disk of the data directory: each process takes 8 MB to begin."
        return Failure(UNAVAILABLE, "journal_full", f"The journal has {message}.", advice)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        cause = error.strerror or message or type(error).__name__
        return Failure(UNAVAILABLE, "system_failed", f"{place}{cause}.", _DOCTOR)
    if any(_is_a(error, *kind) for kind in _OF_DATABASES):
        from bursar.store.database import describe as describe_database

        cause = describe_database(error)
        return Failure(UNAVAILABLE, "database_failed", f"The database failed: {cause}.", _DOCTOR)
    message = f"Bursar failed in a way that nobody thought of ({type(error).__name__}: {message})."
    advice = "Please report it, with what BURSAR_LOG_LEVEL=debug shows."
    return Failure(BUG, "bug", message, advice)


def _is_a(error: BaseException, module: str, name: str) -> bool:
    """Whether the error is of a class whose module may not even be installed here."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(error, getattr(loaded, name))


def _say(failure: Failure, error: BaseException, *, is_json: bool) -> None:
    without_secrets = _find_redaction()
    message, advice = _printable(without_secrets(failure.message)), failure.advice
    if is_json:
        shown = {"code": failure.code, "message": message, "advice": advice}
        if failure.request_id:
            shown["request_id"] = failure.request_id
        print(json.dumps({"error": shown}), file=sys.stderr)
    elif message.startswith("Usage:"):
        # A group without a command: its help is the whole answer.
        print(message, file=sys.stderr)
    else:
        of_request = f" ({failure.request_id})" if failure.request_id else ""
        print(f"bursar: {message}{of_request}", file=sys.stderr)
    if advice and not is_json and not message.startswith("Usage:"):
        print(advice, file=sys.stderr)
    if failure.exit_code in (BUG, UNAVAILABLE) and os.environ.get("BURSAR_LOG_LEVEL") == "debug":
        print(without_secrets("".join(traceback.format_exception(error))), file=sys.stderr)


def _find_redaction() -> Callable[[str], str]:
    try:
        from bursar.telemetry import without_secrets
    except ModuleNotFoundError:
        # Only the SDK and the command line are installed.
        from bursar.sdk.values import redact

        return redact
    return without_secrets


def _printable(text: str) -> str:
    """Without what would steer a terminal: a server's words may be anybody's."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def _give_up_stdout() -> None:
    # Python would complain once more when it flushes at exit.
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
