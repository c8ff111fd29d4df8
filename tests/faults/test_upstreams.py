"""Upstreams that hang, drip, lie, break off or are somebody else: what is charged, and what is not.

Against a server in a process of its own; `tests/http/test_gateway_faults.py` and `test_pool*.py`
have more of the same within the test's process. Each test says what the upstream sold, what the
caller was charged and, where the two differ, who bears the difference.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest

from tests import shop as shops
from tests import soak
from tests.copies import Template
from tests.loads import STREAMED, WHOLE, cost
from tests.shop import Deal, Shop, until
from tests.upstream_double import Behaviour

pytestmark = pytest.mark.faults

MEBIBYTE = 2**20
TIMEOUTS = {
    "connect_timeout_s": 2.0,
    "headers_timeout_s": 1.0,
    "idle_timeout_s": 1.0,
    "total_timeout_s": 3.0,
}
# A time-out is noticed by a sweep once a second; the rest is for a busy machine.
LATE_S = 4.0


@pytest.fixture(scope="module")
def shop(on_sqlite: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("upstreams")
    with shops.opened(on_sqlite, folder, settings=TIMEOUTS) as opened:
        yield opened


@pytest.fixture
def deal(shop: Shop) -> Iterator[Deal]:
    with shops.dealing(shop) as begun:
        yield begun


def require_error(answer: httpx2.Response, status: int, code: str) -> None:
    """Fail unless this is that refusal, in our shape."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.json()["error"]["code"] == code


def require_cut(answer: httpx2.Response, code: str) -> None:
    """Fail unless a stream that had begun ends with that error."""
    assert answer.status_code == 200, answer.text[:500]
    last = answer.text.rstrip("\n").rsplit("\n", 1)[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == code
    assert "[DONE]" not in answer.text


# Too late


@pytest.mark.parametrize("stream", [False, True])
def test_f_39_an_upstream_that_never_begins_is_given_up_and_has_sold_nothing(
    shop: Shop, deal: Deal, *, stream: bool
) -> None:
    shop.upstream.behave(Behaviour(hang_before_headers=True))
    began = time.monotonic()
    require_error(shop.ask(stream=stream), 504, "upstream_timeout")
    assert time.monotonic() - began < TIMEOUTS["headers_timeout_s"] + LATE_S
    until(lambda: shop.upstream.sales[-1].is_abandoned)
    deal.require_free()


def test_f_39_what_an_upstream_finishes_after_it_was_given_up_is_the_operators_loss(
    shop: Shop, deal: Deal
) -> None:
    shop.upstream.behave(Behaviour(delay_s=3, works_on=True))
    require_error(shop.ask(), 504, "upstream_timeout")
    until(lambda: cost(shop.upstream.sales[-1]) > 0)
    deal.require_free(lost=True)


def test_f_40_a_stream_that_falls_silent_ends_with_an_error_and_what_came_is_charged(
    shop: Shop, deal: Deal
) -> None:
    shop.upstream.behave(Behaviour(tokens=20, hang_after=8))
    before = shop.figure("bursar_upstream_failures_total")
    require_cut(shop.ask(stream=True), "upstream_timeout")
    deal.require_estimated("cut")
    assert shop.figure("bursar_upstream_failures_total") == before + 1


def test_f_41_a_stream_that_drips_has_an_end_and_its_slot_is_free(shop: Shop, deal: Deal) -> None:
    shop.upstream.behave(Behaviour(tokens=900, gap_s=0.1))
    began = time.monotonic()
    require_cut(shop.ask(stream=True), "upstream_timeout")
    assert time.monotonic() - began < TIMEOUTS["total_timeout_s"] + LATE_S
    until(lambda: shop.upstream.sales[-1].is_abandoned)
    row = deal.require_estimated("cut", tolerance=2)
    assert row.output_tokens >= 5


def test_f_41_a_body_that_drips_has_an_end_and_costs_the_caller_nothing(
    shop: Shop, deal: Deal
) -> None:
    shop.upstream.behave(Behaviour(is_dripping=True, gap_s=0.1))
    began = time.monotonic()
    require_error(shop.ask(), 504, "upstream_timeout")
    assert time.monotonic() - began < TIMEOUTS["total_timeout_s"] + LATE_S
    until(lambda: shop.upstream.sales[-1].is_abandoned)
    deal.require_free(lost=True)


# Refusals and nonsense


@pytest.mark.parametrize("stream", [False, True])
def test_f_42_a_refusal_is_translated_and_never_charged(
    shop: Shop, deal: Deal, *, stream: bool
) -> None:
    for status, answered, code in (
        (500, 502, "upstream_error"),
        (502, 503, "upstream_unavailable"),
        (503, 503, "upstream_unavailable"),
        (529, 503, "upstream_unavailable"),
        (429, 429, "upstream_rate_limited"),
        (401, 502, "upstream_auth"),
        (403, 502, "upstream_auth"),
    ):
        shop.upstream.behave(Behaviour(status=status, retry_after=7))
        answer = shop.ask(stream=stream)
        require_error(answer, answered, code)
        assert answer.headers.get("retry-after") == {429: "7", 503: "1"}.get(answered)
        assert "scripted failure" not in answer.text
    deal.require_free()


UNUSABLE = {
    "HTML": (Behaviour(garbage=True), "upstream_invalid", False),
    "JSON that ends too early": (Behaviour(length_error=-20), "upstream_invalid", True),
    "cut in the middle": (Behaviour(cut_after=40), "upstream_unreachable", True),
    "shorter than it says": (Behaviour(length_error=10), "upstream_unreachable", True),
    "a gzip bomb": (Behaviour(gzip_bytes=200_000_000), "upstream_invalid", False),
    "a redirect": (Behaviour(redirect_to="/v1/chat/completions"), "upstream_invalid", False),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_f_43_an_answer_that_is_none_is_a_bad_gateway_and_costs_the_caller_nothing(
    shop: Shop, deal: Deal, name: str
) -> None:
    behaviour, code, is_lost = UNUSABLE[name]
    memory = shop.resident_bytes()
    shop.upstream.behave(behaviour)
    require_error(shop.ask(), 502, code)
    assert shop.resident_bytes() - memory < 20 * MEBIBYTE
    # It may have been made; asked for again it was not.
    assert len(deal.sales()) == 1
    deal.require_free(lost=is_lost)


# Streams that break


@pytest.mark.parametrize(
    ("within", "text"),
    [
        pytest.param(3, "word", id="in the field's name"),
        pytest.param(60, "word", id="in the data"),
        pytest.param(-40, "漢字🙂" * 30, id="in the text"),
    ],
)
def test_f_44_a_stream_cut_within_an_event_is_charged_for_whole_events(
    shop: Shop, deal: Deal, within: int, text: str
) -> None:
    whole = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    line = "data: " + json.dumps({"choices": [whole]}, ensure_ascii=False)
    event = line.encode() + b"\n\n"
    # Where it is cut in the text, that is within a character: three bytes each.
    part = event[:within] if within > 0 else event[: event.index("漢".encode()) + 4]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    shop.upstream.behave(Behaviour(raw=(head + event * 3, part)))
    answer = shop.ask(stream=True)
    assert answer.content.startswith(event * 3)
    (row,) = deal.rows()
    tokens = 3 * max(1, -(-len(text.encode()) // 4))
    assert (row.outcome, bool(row.is_estimated)) == ("cut", True)
    assert tokens <= row.output_tokens <= tokens + tokens // 3 + 1
    deal.is_compared = True


@pytest.mark.parametrize("after", [0, 1, 5])
def test_f_44_a_stream_whose_connection_breaks_is_charged_for_what_came(
    shop: Shop, deal: Deal, after: int
) -> None:
    shop.upstream.behave(Behaviour(tokens=9, cut_after=after, cut_within=20))
    answer = shop.ask(stream=True)
    if after:
        require_cut(answer, "upstream_unreachable")
        deal.require_estimated("cut")
    else:
        # Nothing had been passed on, so that it could still be said in the status.
        require_error(answer, 502, "upstream_unreachable")
        deal.require_free(lost=True)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("is_ended", [False, True])
def test_f_44_line_ends_comments_and_a_missing_end_mark_change_no_charge(
    shop: Shop, deal: Deal, newline: bytes, *, is_ended: bool
) -> None:
    comment = b": still here" + newline * 2
    shop.upstream.behave(
        Behaviour(tokens=12, newline=newline, comment=comment, no_done=not is_ended)
    )
    assert shop.ask(stream=True).status_code == 200
    deal.require_even("ok" if is_ended else "cut")


def test_f_44_a_line_of_a_mebibyte_breaks_the_stream_off(shop: Shop, deal: Deal) -> None:
    shop.upstream.behave(Behaviour(tokens=5, long_line=True))
    answer = shop.ask(stream=True)
    require_cut(answer, "upstream_invalid")
    assert len(answer.content) < 10_000
    (row,) = deal.rows()
    # What was passed on, and the beginning of what was not.
    assert (row.outcome, row.output_tokens >= 5, row.overrun_nanos) == ("cut", True, 0)
    deal.is_compared = True


# Lies about usage


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lie", ["absent", "null", "negative", "string", "huge"])
def test_f_45_usage_that_makes_no_sense_is_estimated_and_never_a_credit(
    shop: Shop, deal: Deal, lie: str, *, stream: bool
) -> None:
    shop.upstream.behave(Behaviour(tokens=10, usage=lie))
    before = shop.figure("bursar_upstream_failures_total")
    assert shop.ask(stream=stream).status_code == 200
    (row,), (sale,) = deal.rows(), deal.sales()
    assert (row.outcome, bool(row.is_estimated), row.overrun_nanos) == ("ok", True, 0)
    # A token for every four bytes, or for each event: near what was sold, whatever was said.
    assert sale.completion_tokens * 0.5 <= row.output_tokens <= sale.completion_tokens * 2
    assert 0 < row.cost_nanos < cost(sale) * 20
    # Somebody should look at such an upstream.
    assert shop.figure("bursar_upstream_failures_total") == before + 1
    deal.is_compared = True


@pytest.mark.parametrize(
    ("lie", "factor"), [("twice", 1.0), ("decreasing", 0.5), ("tenfold", 10.0)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_f_45_of_several_reports_the_last_that_makes_sense_is_charged(
    shop: Shop, deal: Deal, lie: str, factor: float, *, stream: bool
) -> None:
    shop.upstream.behave(Behaviour(prompt_tokens=100, tokens=10, usage=lie))
    assert shop.ask(stream=stream).status_code == 200
    (row,) = deal.rows()
    assert not row.is_estimated
    assert deal.billed() == deal.sold() * factor
    deal.is_compared = True


# Without end


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("body", "upstream_invalid"),
        ("line", "upstream_invalid"),
        ("events", "upstream_timeout"),
    ],
)
def test_f_46_an_answer_without_end_is_cut_off_and_memory_stays_bounded(
    shop: Shop, deal: Deal, kind: str, code: str
) -> None:
    """A whole answer may have 32 MiB, of a stream less than 2 MiB are ever kept."""
    count, each = soak.times(3, soaked=20), 2 if kind != "body" else 70
    shop.upstream.models[STREAMED] = Behaviour(without_end=kind)
    memory = shop.resident_bytes()
    peak = 0

    def ask(_number: int) -> None:
        nonlocal peak
        answer = shop.ask(model=STREAMED, stream=kind != "body")
        peak = max(peak, shop.resident_bytes() - memory)
        if kind == "events":
            require_cut(answer, code)
        else:
            require_error(answer, 502, code)

    shops.at_once(ask, count)
    assert peak < (count * each + 30) * MEBIBYTE
    rows = deal.rows()
    assert len(rows) == (count if kind == "events" else 0)
    for row in rows:
        # As much as was held for, however much more came.
        assert (row.outcome, row.output_tokens, row.overrun_nanos) == ("cut", 900, 0)
    until(lambda: all(not sale.is_complete for sale in deal.sales()))
    deal.is_compared = True


# Somebody else


def test_f_47_a_redirect_takes_the_upstreams_key_nowhere(shop: Shop, deal: Deal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.5)
        for path in ("/v1/chat/completions", "/latest/meta-data"):
            target = f"http://127.0.0.1:{elsewhere.getsockname()[1]}{path}"
            for stream in (False, True):
                shop.upstream.behave(Behaviour(redirect_to=target))
                answer = shop.ask(stream=stream)
                require_error(answer, 502, "upstream_invalid")
                assert "location" not in answer.headers
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    deal.require_free()


def test_a_shop_with_a_bad_upstream_serves_everybody_else(shop: Shop, deal: Deal) -> None:
    """Forty calls wait for an upstream that hangs; the others do not notice."""
    shop.upstream.models[STREAMED] = Behaviour(hang_before_headers=True)
    took: list[float] = []

    def ask(number: int) -> None:
        if number < 40:
            require_error(shop.ask(model=STREAMED, stream=True), 504, "upstream_timeout")
            return
        began = time.monotonic()
        assert shop.ask(model=WHOLE).status_code == 200
        took.append(time.monotonic() - began)

    shops.at_once(ask, 50)
    assert max(took) < TIMEOUTS["headers_timeout_s"] + LATE_S
    deal.require_even(*["ok"] * 10)
