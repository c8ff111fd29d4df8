"""When a call is tried again, after how long, and what its last failure is called.

The flow neither waits nor sends, so that every case is tried without either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from bursar import (
    BursarError,
    ConfigurationError,
    Conflict,
    ConnectionFailed,
    Forbidden,
    InsufficientCredit,
    InvalidAnswer,
    InvalidRequest,
    NotFound,
    RateLimited,
    Refused,
    ServerFailed,
    TlsFailed,
    Unauthenticated,
)
from bursar.sdk.calls import Answer, Call, Method, nothing
from bursar.sdk.configuration import Options
from bursar.sdk.flow import LONGEST_WAIT_S, Send, Wait, exchange
from bursar.sdk.values import Secret

SECRET = "bpk_" + "s3cr3t" * 6
GONE = ConnectionFailed("gone")
FINE = Answer(200, {}, b"{}")


@dataclass
class Log:
    """What a flow has asked for."""

    sent: list[Send] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


def refusal(
    status: int, code: str = "x", headers: Mapping[str, str] | None = None, **said: object
) -> Answer:
    """An answer in the server's own form."""
    error = {"type": "t", "code": code, "message": "No.", "param": None, "request_id": "r", **said}
    return Answer(status, headers or {}, json.dumps({"error": error}).encode())


def call(method: Method, *, is_kept: bool = False, key: str | None = None) -> Call[None]:
    """A call of which nothing but its way matters."""
    return Call(method, "/v1/x", nothing, is_kept=is_kept, idempotency_key=key)


def drive(
    asked: Call[None], came: Sequence[Answer | BursarError], *, retries: int = 2
) -> tuple[Answer | BursarError, Log]:
    """The outcome of a call to which the network answers so, one after the other."""
    log, answers = Log(), list(came)
    flow = exchange(asked, Options("http://b", Secret(SECRET), max_retries=retries))
    step = next(flow)
    try:
        while True:
            if isinstance(step, Wait):
                log.waits.append(step.seconds)
                step = flow.send(None)
            else:
                log.sent.append(step)
                step = flow.send(answers.pop(0))
    except StopIteration as done:
        return done.value, log
    except BursarError as error:
        assert not answers, "it gave up before its time"
        return error, log


@pytest.mark.parametrize("failure", [refusal(408), refusal(429), refusal(500), refusal(503), GONE])
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_what_fails_in_passing_is_tried_again(
    failure: Answer | BursarError, method: Method
) -> None:
    outcome, log = drive(call(method), [failure, failure, FINE])
    assert outcome is FINE
    assert len(log.sent) == 3
    assert len(log.waits) == 2


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    outcome, log = drive(call("GET"), [refusal(status)])
    assert isinstance(outcome, Refused)
    assert (len(log.sent), log.waits) == (1, [])


def test_the_last_failure_is_raised_once_no_attempt_is_left() -> None:
    outcome, log = drive(call("GET"), [GONE, refusal(500), refusal(503, "last")])
    assert isinstance(outcome, ServerFailed)
    assert outcome.code == "last"
    assert len(log.sent) == 3
    assert len(drive(call("GET"), [GONE], retries=0)[1].sent) == 1


@pytest.mark.parametrize("failure", [refusal(429), refusal(503), GONE])
def test_a_post_that_could_do_it_twice_is_sent_once(failure: Answer | BursarError) -> None:
    _, log = drive(call("POST"), [failure])
    assert len(log.sent) == 1
    assert "idempotency-key" not in log.sent[0].headers


@pytest.mark.parametrize("failure", [refusal(429), refusal(503), GONE])
def test_a_post_is_repeated_under_the_key_of_its_first_attempt(
    failure: Answer | BursarError,
) -> None:
    _, log = drive(call("POST", is_kept=True), [failure, FINE])
    keys = [sent.headers["idempotency-key"] for sent in log.sent]
    assert len(keys) == 2
    assert keys[0] == keys[1]
    _, other = drive(call("POST", is_kept=True), [FINE])
    assert other.sent[0].headers["idempotency-key"] != keys[0]
    _, own = drive(call("POST", is_kept=True, key="mine"), [FINE])
    assert own.sent[0].headers["idempotency-key"] == "mine"


def test_a_post_waits_for_its_first_attempt_that_is_still_at_work() -> None:
    at_work = refusal(409, "idempotency_in_progress")
    outcome, _ = drive(call("POST", is_kept=True), [GONE, at_work, FINE])
    assert outcome is FINE


def test_what_a_lost_answer_deleted_counts_as_deleted() -> None:
    outcome, _ = drive(call("DELETE"), [GONE, refusal(404)])
    assert isinstance(outcome, Answer)
    # Nothing was deleted where the first attempt was turned away, or where there was none.
    assert isinstance(drive(call("DELETE"), [refusal(429), refusal(404)])[0], NotFound)
    assert isinstance(drive(call("DELETE"), [refusal(503), refusal(404)])[0], NotFound)
    # Something before the server may have passed the call on.
    page = Answer(503, {}, b"<html>")
    assert isinstance(drive(call("DELETE"), [page, refusal(404)])[0], Answer)
    assert isinstance(drive(call("DELETE"), [GONE, refusal(503), refusal(404)])[0], Answer)
    assert isinstance(drive(call("DELETE"), [refusal(404)])[0], NotFound)


def test_pauses_grow_and_differ() -> None:
    failures = [GONE] * 8
    _, log = drive(call("GET"), failures, retries=7)
    for number, wait in enumerate(log.waits):
        most = min(8.0, 0.5 * 2**number)
        assert most / 2 <= wait <= most
    assert len({drive(call("GET"), failures[:2], retries=1)[1].waits[0] for _ in range(20)}) > 1


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_the_server_says_how_long_to_wait(status: int) -> None:
    _, log = drive(call("GET"), [refusal(status, headers={"retry-after": "7"}), FINE])
    assert log.waits == [7.0]


def test_retry_after_may_be_a_moment_of_the_servers_own_clock() -> None:
    headers = {
        "retry-after": "Sat, 21 Nov 2037 08:00:30 GMT",
        "date": "Sat, 21 Nov 2037 08:00:00 GMT",
    }
    _, log = drive(call("GET"), [refusal(503, headers=headers), FINE])
    assert log.waits == [30.0]


@pytest.mark.parametrize(
    "text",
    [
        *("soon", "-1", "", "1e9", "٣", "Sat, 99 Nov", "Sat, 21 Nov 2037 08:00:30 GMT"),
        f"Sat, 21 Nov {'9' * 30} 08:00:30 GMT",
        f"Sat, 21 Nov 2037 08:00:30 +{'9' * 30}",
    ],
)
def test_a_retry_after_that_says_nothing_is_not_one(text: str) -> None:
    outcome, log = drive(call("GET"), [refusal(429, headers={"retry-after": text})], retries=0)
    assert isinstance(outcome, RateLimited)
    assert outcome.retry_after is None
    assert log.waits == []


def test_a_server_that_asks_for_more_patience_is_not_waited_for() -> None:
    headers = {"retry-after": str(int(LONGEST_WAIT_S) + 1)}
    outcome, log = drive(call("GET"), [refusal(429, headers=headers)])
    assert isinstance(outcome, RateLimited)
    assert outcome.retry_after == LONGEST_WAIT_S + 1
    assert log.waits == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, Unauthenticated),
        (402, InsufficientCredit),
        (403, Forbidden),
        (404, NotFound),
        (405, InvalidRequest),
        (409, Conflict),
        (410, NotFound),
        (413, InvalidRequest),
        (418, InvalidRequest),
        (422, InvalidRequest),
        (429, RateLimited),
        (500, ServerFailed),
        (599, ServerFailed),
    ],
)
def test_a_refusal_is_of_a_class_and_says_what_the_server_said(
    status: int, kind: type[Refused]
) -> None:
    answer = refusal(status, "c", {"x-request-id": "req_1", "retry-after": "99"}, left="0.5", n=1)
    error, _ = drive(call("GET"), [answer], retries=0)
    assert type(error) is kind
    assert isinstance(error, Refused)
    assert (error.status, error.code, error.type, error.request_id) == (status, "c", "t", "req_1")
    assert (error.retry_after, error.details) == (99.0, {"left": "0.5", "n": 1})
    assert str(error) == f"No. ({status}, c, req_1)"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>no</html>", b"null", b"[]", b"{}", b'{"error": null}', b"\xff"),
        *(b'{"error": [1]}', b"[" * 100_000),
    ],
)
def test_a_refusal_without_words_has_a_sentence_all_the_same(body: bytes) -> None:
    error, _ = drive(call("GET"), [Answer(502, {"x-request-id": "q"}, body)], retries=0)
    assert isinstance(error, ServerFailed)
    assert "502" in error.message
    assert (error.code, error.request_id, error.details) == (None, "q", {})


def test_a_refusal_of_another_dialect_is_understood() -> None:
    error, _ = drive(call("GET"), [Answer(401, {}, b'{"error":"Go away","code":"NO"}')])
    assert isinstance(error, Unauthenticated)
    assert (error.message, error.code) == ("Go away", "NO")


def test_a_redirect_is_not_followed() -> None:
    error, log = drive(call("GET"), [Answer(302, {"location": "https://evil.example"}, b"")])
    assert isinstance(error, InvalidAnswer)
    assert "base URL" in error.message
    assert len(log.sent) == 1


def test_an_untrusted_certificate_is_not_tried_again() -> None:
    error, log = drive(call("GET"), [TlsFailed("no")])
    assert isinstance(error, TlsFailed)
    assert len(log.sent) == 1


def test_nothing_is_sent_without_a_key() -> None:
    with pytest.raises(ConfigurationError, match="BURSAR_API_KEY"):
        next(exchange(call("GET"), Options("http://b", None)))


def test_no_error_and_no_repr_shows_the_key() -> None:
    answer = refusal(401, message=f"The key {SECRET} is unknown.")
    error, log = drive(call("GET"), [answer])
    shown = [repr(log.sent), str(error), repr(error), repr(Options("http://b", Secret(SECRET)))]
    assert SECRET not in "".join(shown)
    assert log.sent[0].headers["authorization"] == f"Bearer {SECRET}"
