"""From a call to its answer: what to send, when to try again, and what a failure is called.

Owns that as a generator that neither waits nor sends, so that both faces do the same. Tries again
after 408, 429, 5xx, a broken connection or a request of the same key that is still at work, where
sending twice does what sending once does, and not if the server asks for more patience than
`LONGEST_WAIT_S`. Must not know the network's library.
"""

import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, TypeAlias, TypeVar

from bursar.sdk import errors, values
from bursar.sdk.calls import Answer, Call
from bursar.sdk.configuration import Options
from bursar.sdk.errors import BursarError, ConfigurationError, ConnectionFailed, InvalidAnswer
from bursar.version import __version__

LONGEST_WAIT_S: Final = 60.0
SLOW_TIMEOUT_S: Final = 600.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 8.0
_AGAIN: Final = frozenset((408, 429))
_MESSAGE_LENGTH: Final = 500


@dataclass(frozen=True, slots=True)
class Send:
    """Send this, and say what came: an `Answer`, or the error for which none came.

    Of what `must_arrive` the answer is wanted even by whoever is called off meanwhile.
    """

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    content: bytes | None = field(repr=False)
    timeout_s: float | None
    is_stream: bool
    must_arrive: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Let so many seconds pass."""

    seconds: float


T = TypeVar("T")
Came: TypeAlias = Answer | BursarError | None
Steps: TypeAlias = Generator[Send | Wait, Came, T]


def exchange(call: Call[object], options: Options) -> Steps[Answer]:
    """Carry out a call; returns the success, raises BursarError for anything else."""
    request = _request(call, options)
    session = None if call.is_anonymous or options.api_key is not None else options.session
    bearer = None
    if session is not None:
        bearer = yield from session.bearer(options)
        request = _signed(request, bearer)
    left = options.max_retries if call.may_repeat else 0
    pause_s = _FIRST_PAUSE_S
    has_failed = False
    while True:
        came = yield request
        if isinstance(came, Answer) and 200 <= came.status < 300:
            return came
        if isinstance(came, Answer):
            # Gone by an attempt whose answer was lost: what was asked for has been done.
            if call.method == "DELETE" and came.status == 404 and has_failed:
                return Answer(204, came.headers, b"")
            failure: BursarError = refusal(came)
        else:
            failure = came or InvalidAnswer("Nothing came.")
        if session is not None and bearer is not None and _is_of_token(failure):
            # It has ended before its time, as by a clock that was set. Once: the next one is new.
            renewed = yield from session.renew(options, refused=bearer)
            request, bearer = _signed(request, renewed), None
            continue
        wait_s = _wait_s(failure, pause_s)
        if left <= 0 or wait_s is None:
            raise failure
        has_failed = has_failed or not _is_refused_for_now(failure)
        left -= 1
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        yield Wait(wait_s)


def refusal(answer: Answer) -> BursarError:
    """Return the error for an answer that is no success."""
    if 300 <= answer.status < 400:
        return InvalidAnswer(
            "The server redirects, which is not followed, so that no key goes astray: set the base "
            "URL to where it points.",
            status=answer.status,
            request_id=answer.request_id,
        )
    return refused(_said(answer.content), status=answer.status, headers=answer.headers)


def refused(
    said: Mapping[str, Any] | None, *, status: int, headers: Mapping[str, str]
) -> errors.Refused:
    """Return the refusal that an error object says, or that its absence says."""
    kind = errors.kind_of(status)
    request_id = headers.get("x-request-id")
    retry_after = _retry_after_s(headers)
    if said is None:
        return kind(
            f"The server answered {status} without saying why: is the base URL that of a Bursar "
            "server, and what stands before it in order?",
            status=status,
            request_id=request_id,
            retry_after=retry_after,
        )
    known = {name: _text(said.get(name)) for name in ("code", "type", "param")}
    rest = {"message", "request_id", *known}
    message = _text(said.get("message")) or f"The server answered {status}."
    return kind(
        values.redact(message[:_MESSAGE_LENGTH]),
        status=status,
        code=known["code"],
        type=known["type"],
        param=known["param"],
        request_id=request_id or _text(said.get("request_id")),
        retry_after=retry_after,
        details={name: value for name, value in said.items() if name not in rest},
    )


def _request(call: Call[object], options: Options) -> Send:
    headers = {
        "accept": "application/json",
        "user-agent": f"bursar-python/{__version__}",
        **call.headers,
    }
    if options.api_key is not None and not call.is_anonymous:
        headers["authorization"] = f"Bearer {options.api_key}"
    elif not (call.is_public or call.is_anonymous or options.session):
        raise ConfigurationError(
            "There is no API key for this address: pass api_key=…, or set BURSAR_API_KEY."
        )
    content = None
    if call.body is not None:
        content = values.encode(call.body)
        headers["content-type"] = "application/json"
    if call.is_kept:
        own = values.header("idempotency_key", call.idempotency_key or "")
        headers["idempotency-key"] = own or secrets.token_hex(16)
    timeout_s = options.timeout_s
    if call.is_slow and timeout_s is not None:
        timeout_s = max(timeout_s, SLOW_TIMEOUT_S)
    sent = {
        name: values.parameter(value) for name, value in call.query.items() if value is not None
    }
    url = options.base_url + call.path
    # What the server answers again, it does so for a few seconds.
    must_arrive = call.is_answered_again
    return Send(call.method, url, sent, headers, content, timeout_s, call.is_stream, must_arrive)


def _signed(request: Send, bearer: str) -> Send:
    return replace(request, headers={**request.headers, "authorization": f"Bearer {bearer}"})


def _is_of_token(failure: BursarError) -> bool:
    return isinstance(failure, errors.Unauthenticated) and failure.code == "invalid_token"


def _wait_s(failure: BursarError, pause_s: float) -> float | None:
    """How long to wait before the next attempt; None if there is no point in one."""
    jitter = 0.5 + secrets.randbelow(1_000) / 2_000
    if isinstance(failure, errors.TlsFailed):
        return None
    if isinstance(failure, ConnectionFailed):
        return pause_s * jitter
    if not isinstance(failure, errors.Refused):
        return None
    if not _is_passing(failure):
        return None
    if failure.retry_after is None:
        return pause_s * jitter
    return failure.retry_after if failure.retry_after <= LONGEST_WAIT_S else None


def _is_passing(failure: errors.Refused) -> bool:
    is_at_work = failure.code == "idempotency_in_progress"
    return failure.status >= 500 or failure.status in _AGAIN or is_at_work


def _is_refused_for_now(failure: BursarError) -> bool:
    """Whether the server has surely done nothing.

    A server that is busy says so by itself, with a code; one that stands before it may have passed
    the call on.
    """
    if isinstance(failure, errors.ServerFailed):
        return failure.status == 503 and failure.code is not None
    return isinstance(failure, errors.RateLimited)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until = _moment(text)
    # By the server's own clock, so that a wrong one here does no harm.
    now = _moment(headers.get("date", ""))
    if until is None or now is None:
        return None
    return max(0.0, (until - now).total_seconds())


def _moment(text: str) -> datetime | None:
    from email.utils import parsedate_to_datetime

    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo is not None else None


def _said(content: bytes) -> Mapping[str, Any] | None:
    try:
        return error_in(values.decode(content))
    except ValueError:
        return None


def error_in(body: object) -> Mapping[str, Any] | None:
    """Return the error object that a body has, None if it has none."""
    if not isinstance(body, dict):
        return None
    error = body.get("error")
    if isinstance(error, str) and error:
        # The form of other dialects on the same host.
        rest = {name: value for name, value in body.items() if name not in ("error", "error_type")}
        return {"code": body.get("error_type"), **rest, "message": error}
    return error if isinstance(error, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
