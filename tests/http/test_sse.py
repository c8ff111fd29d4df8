"""A stream is metered the same however it is cut up, and text never passes for anything else."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.gateway.meter.sse import MAX_LINE, SAMPLE_BYTES, StreamMeter
from bursar.gateway.meter.usage import Usage
from bursar.gateway.upstreams.port import UpstreamError

USAGE = {"prompt_tokens": 24, "completion_tokens": 3, "total_tokens": 27}
SOLD = Usage(24, 0, 3, 0, 0, 0)
DONE = b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def word(text: str, **fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}], **fields})


def report(usage: object = USAGE, **fields: Any) -> bytes:
    return event({"choices": [], "usage": usage, **fields})


STREAM = word("one ") + word("two ") + word("three") + report() + DONE


def feed(data: bytes, *places: int, strip_usage: bool = False) -> tuple[bytes, StreamMeter]:
    meter = StreamMeter(strip_usage=strip_usage)
    bounds = [0, *sorted(place for place in places if 0 < place < len(data)), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(bounds)]
    out = b"".join(meter.feed(piece) for piece in pieces)
    return out + meter.finish(), meter


def seen(meter: StreamMeter) -> tuple[object, ...]:
    return (
        meter.usage,
        meter.usage_faults,
        meter.events,
        meter.is_done,
        meter.has_error,
        meter.estimate_output_tokens(),
    )


# What is read


def test_usage_events_and_the_end_are_seen() -> None:
    out, meter = feed(STREAM)
    assert out == STREAM
    assert seen(meter)[:5] == (SOLD, 0, 4, True, False)


def test_the_last_report_that_makes_sense_counts() -> None:
    later = {"prompt_tokens": 24, "completion_tokens": 9}
    _, meter = feed(report() + report(later) + report({"prompt_tokens": -1}) + DONE)
    assert (meter.usage, meter.usage_faults) == (Usage(24, 0, 9, 0, 0, 0), 1)


@pytest.mark.parametrize("usage", [{}, "24", 7, [], {"prompt_tokens": "24"}, {"prompt_tokens": -1}])
def test_a_report_that_makes_no_sense_is_counted_and_not_believed(usage: object) -> None:
    _, meter = feed(word("one") + report(usage) + DONE)
    assert (meter.usage, meter.usage_faults) == (None, 1)


def test_an_empty_report_is_none() -> None:
    for null in (b'"usage":null', b'"usage": null'):
        _, meter = feed(b'data: {"choices":[],' + null + b"}\n\n" + DONE)
        assert (meter.usage, meter.usage_faults) == (None, 0)


def test_usage_beside_content_is_read_and_never_removed() -> None:
    stream = word("one", usage=USAGE) + DONE
    out, meter = feed(stream, strip_usage=True)
    assert (out, meter.usage) == (stream, SOLD)


def test_an_error_in_the_stream_is_seen() -> None:
    for cuts in ([], [len(word("one"))]):
        _, meter = feed(word("one") + event({"error": {"message": "overloaded"}}), *cuts)
        assert (meter.has_error, meter.is_done) == (True, False)
    _, meter = feed(event({"error": None, "choices": []}))
    assert not meter.has_error


def test_the_responses_api_reports_within_its_closing_event() -> None:
    usage = {"input_tokens": 24, "output_tokens": 3, "total_tokens": 27}
    stream = (
        b"event: response.output_text.delta\n"
        + event({"type": "response.output_text.delta", "delta": "hi"})
        + b"event: response.completed\n"
        + event({"type": "response.completed", "response": {"id": "r", "usage": usage}})
    )
    out, meter = feed(stream, strip_usage=True)
    assert (out, meter.usage, meter.is_done) == (stream, SOLD, True)


def test_anthropic_reports_the_input_first_and_the_output_last() -> None:
    start = {"input_tokens": 24, "output_tokens": 1, "cache_read_input_tokens": 6}
    stream = (
        event({"type": "message_start", "message": {"id": "m", "usage": start}})
        + event({"type": "content_block_delta", "delta": {"text": "hi"}})
        + event({"type": "message_delta", "usage": {"output_tokens": 15}})
    )
    out, meter = feed(stream)
    assert (out, meter.usage, meter.is_done) == (stream, Usage(30, 6, 15, 0, 0, 0), True)


def test_lines_that_end_differently_are_counted_alike() -> None:
    stream = word("one") + b"data: {}\rdata: {}\r\ndata: {}\n\n"
    for cuts in ([], [len(word("one"))]):
        assert feed(stream, *cuts)[1].events == 4


# Text is only text

HOSTILE = [
    "data: [DONE]",
    "\n\ndata: [DONE]\n\n",
    '"usage":{"prompt_tokens":1,"completion_tokens":1}',
    '\n\ndata: {"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}\n\n',
    '{"error":{"message":"x"}}',
    "usage",
    "error",
    '"usage":null',
    "</script>",
    "\r\r",
    "\u2028\u2029\x85",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["content", "usage", "error"])
def test_text_that_a_model_writes_cannot_pose_as_anything_else(text: str, field: str) -> None:
    stream = event({"choices": [{"index": 0, "delta": {field: text, "usage": USAGE}}]})
    for place in range(1, len(stream)):
        out, meter = feed(stream, place, strip_usage=True)
        assert out == stream
        assert seen(meter)[:5] == (None, 0, 1, False, False)


def test_fields_below_the_top_level_are_not_the_event_s() -> None:
    nested = {"choices": [], "extra": {"usage": USAGE, "error": {"message": "x"}}}
    _, meter = feed(
        event(nested) + event([{"usage": USAGE}]) + event({"message": {"usage": USAGE}})
    )
    assert seen(meter)[:5] == (None, 0, 3, False, False)


@pytest.mark.parametrize("line", [b"data: {", b'data: {"usage":', b'data: <html>"usage"', b"data"])
def test_what_cannot_be_read_is_passed_on_as_it_is(line: bytes) -> None:
    stream = line + b"\n\n" + STREAM
    out, meter = feed(stream)
    assert (out, meter.usage, meter.is_done) == (stream, SOLD, True)


def test_a_deep_event_is_passed_on_as_it_is() -> None:
    stream = b'data: {"usage":' + b"[" * 200_000 + b"\n\n"
    out, meter = feed(stream)
    assert (out, meter.usage) == (stream, None)


# What is removed


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_only_the_usage_event_that_nobody_asked_for_is_removed(newline: bytes) -> None:
    stream = STREAM.replace(b"\n", newline)
    out, meter = feed(stream, strip_usage=True)
    assert out == stream.replace(report().replace(b"\n", newline), b"")
    assert (meter.usage, meter.is_done) == (SOLD, True)


def test_all_fields_of_the_usage_event_are_removed_with_it() -> None:
    extra = b"event: chunk\nid: 7\n: within\n" + report()[:-1] + b"retry: 5\n\n"
    out, _ = feed(word("one") + extra + b"id: 8\n" + word("two") + DONE, strip_usage=True)
    assert out == word("one") + b"id: 8\n" + word("two") + DONE


def test_the_end_mark_is_kept_where_the_blank_line_before_it_is_missing() -> None:
    out, meter = feed(word("one") + report()[:-1] + DONE, strip_usage=True)
    assert (out, meter.usage, meter.is_done) == (word("one") + DONE, SOLD, True)


def test_comments_are_kept_and_keep_their_place() -> None:
    stream = b": ping\n\n" + b"id: 1\n: within\n" + word("one") + b": ping\n" + DONE
    out, _ = feed(stream, strip_usage=True)
    assert out == stream


def test_a_comment_between_events_is_not_held_back() -> None:
    meter = StreamMeter(strip_usage=True)
    assert meter.feed(b": ping\n") == b": ping\n"


@pytest.mark.parametrize(
    "kept",
    [
        report(None),
        event({"choices": [], "prompt_filter_results": [{"index": 0}]}),
        report(error={"message": "x"}),
        word("one", usage=USAGE),
    ],
)
def test_an_event_that_says_more_than_usage_is_kept(kept: bytes) -> None:
    out, _ = feed(kept + DONE, strip_usage=True)
    assert out == kept + DONE


@pytest.mark.parametrize(
    "choices",
    [
        [{"index": 0, "delta": {}}],
        [{"index": 0, "delta": {"content": None}, "finish_reason": None, "logprobs": None}],
        [{"index": 0, "delta": {"content": ""}}, {"index": 1, "delta": {}}],
    ],
)
def test_a_report_whose_choices_say_nothing_is_a_report_and_no_more(choices: list[Any]) -> None:
    out, meter = feed(word("one") + report(choices=choices) + DONE, strip_usage=True)
    assert out == word("one") + DONE
    assert meter.usage == SOLD


@pytest.mark.parametrize(
    "choices",
    [
        [{"index": 0, "delta": {"content": "x"}}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        [{"index": 0, "delta": {"role": "assistant", "content": ""}}],
        [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}],
        [{"index": 0, "delta": {}, "extra": 1}],
        [{"index": 0, "delta": {}}, {"index": 1, "delta": {"content": "x"}}],
        None,
        "text",
    ],
)
def test_a_report_with_anything_else_in_it_is_passed_on(choices: object) -> None:
    stream = word("one") + report(choices=choices) + DONE
    out, meter = feed(stream, strip_usage=True)
    assert out == stream
    assert meter.usage == SOLD


# How it is cut up


@pytest.mark.parametrize("strip_usage", [False, True])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_every_single_cut_gives_the_same(strip_usage: bool, newline: bytes) -> None:
    text = word("é漢🙂") + b": c\n\nid: 1\n" + report(None) + STREAM
    stream = text.replace(b"\n", newline)
    whole = feed(stream, strip_usage=strip_usage)
    for place in range(1, len(stream)):
        pieces = feed(stream, place, strip_usage=strip_usage)
        assert (pieces[0], seen(pieces[1])) == (whole[0], seen(whole[1]))
    bytewise = feed(stream, *range(len(stream)), strip_usage=strip_usage)
    assert (bytewise[0], seen(bytewise[1])) == (whole[0], seen(whole[1]))


@pytest.mark.parametrize("strip_usage", [False, True])
def test_all_ways_to_cut_between_lines_give_the_same(strip_usage: bool) -> None:
    stream = word("one") + word("two") + b"id: 7\n" + report() + b"id: 8\n" + report() + DONE
    ends = list(itertools.accumulate(map(len, stream.splitlines(keepends=True))))[:-1]
    whole = feed(stream, strip_usage=strip_usage)
    for chosen in itertools.product((False, True), repeat=len(ends)):
        places = itertools.compress(ends, chosen)
        out, meter = feed(stream, *places, strip_usage=strip_usage)
        assert (out, seen(meter)) == (whole[0], seen(whole[1]))


_LINES = st.sampled_from(
    [
        word("hi")[:-2],
        word("é漢🙂" * 3, usage=None)[:-2],
        word("[DONE]")[:-2],
        report()[:-2],
        report({"prompt_tokens": -1})[:-2],
        report(None)[:-2],
        event({"error": {"message": "x"}})[:-2],
        event({"type": "message_start", "message": {"usage": USAGE}})[:-2],
        b"data: [DONE]",
        b"data:[DONE]",
        b"data:",
        b"data",
        b"data: {broken",
        b"event: chunk",
        b"id: 7",
        b": comment",
        b"\xef\xbb\xbfdata: {}",
        b"\xff\xfe",
        b"",
        b"",
    ]
)
_ENDS = st.sampled_from([b"\n", b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\r", b"\r\r", b""])
_PIECES = st.lists(st.tuples(_LINES, _ENDS).map(b"".join), max_size=14)
_STREAMS = _PIECES.map(b"".join)


@given(stream=_STREAMS, places=st.lists(st.integers(1, 900), max_size=10), strip=st.booleans())
def test_any_cuts_give_the_same_bytes_usage_and_counts(
    stream: bytes, places: list[int], strip: bool
) -> None:
    whole = feed(stream, strip_usage=strip)
    pieces = feed(stream, *places, strip_usage=strip)
    assert (pieces[0], seen(pieces[1])) == (whole[0], seen(whole[1]))


@given(pieces=_PIECES, others=_PIECES, strip=st.booleans())
def test_cuts_between_lines_where_the_quick_way_is_taken_give_the_same(
    pieces: list[bytes], others: list[bytes], strip: bool
) -> None:
    # Two pieces in one chunk as well as one: a chunk may hold whole lines and half an event.
    chunks = [*pieces, *(b"".join(pair) for pair in itertools.pairwise(others))]
    stream = b"".join(chunks)
    whole = feed(stream, strip_usage=strip)
    places = list(itertools.accumulate(map(len, chunks)))
    cut = feed(stream, *places, strip_usage=strip)
    assert (cut[0], seen(cut[1])) == (whole[0], seen(whole[1]))


@given(stream=_STREAMS | st.binary(max_size=300), places=st.lists(st.integers(1, 900), max_size=5))
def test_without_removal_every_byte_goes_through(stream: bytes, places: list[int]) -> None:
    assert feed(stream, *places)[0] == stream


@given(stream=_STREAMS)
def test_what_is_forwarded_is_always_whole_lines(stream: bytes) -> None:
    meter = StreamMeter()
    for place in range(len(stream)):
        out = meter.feed(stream[place : place + 1])
        assert not out or out.endswith((b"\n", b"\r"))


@given(stream=_STREAMS)
def test_removal_takes_whole_events_and_nothing_else(stream: bytes) -> None:
    kept, meter = feed(stream, strip_usage=True)
    again, second = feed(kept, strip_usage=True)
    assert meter.is_done == second.is_done
    assert len(again) <= len(kept) <= len(stream)


# Bounds


def test_an_incomplete_line_waits_for_its_end() -> None:
    meter = StreamMeter()
    line = word("one")
    assert meter.feed(line[:20]) == b""
    assert meter.feed(line[20:-2]) == b""
    assert meter.feed(line[-2:]) == line


def test_a_line_without_end_is_refused_at_one_mebibyte() -> None:
    meter = StreamMeter()
    part = b"x" * 65_536
    for _ in range(MAX_LINE // len(part)):
        assert meter.feed(part) == b""
    with pytest.raises(UpstreamError) as caught:
        meter.feed(b"x")
    assert caught.value.kind == "too_large"


@pytest.mark.parametrize("cuts", [[], [5], [10], list(range(0, MAX_LINE, 100_000))])
def test_a_long_line_is_refused_however_it_comes(cuts: list[int]) -> None:
    for size, is_refused in ((MAX_LINE - 9, False), (MAX_LINE - 8, True)):
        stream = b"data: {}\n\n" + b"data: " + b"x" * size + b"xx\n\n"
        if is_refused:
            with pytest.raises(UpstreamError):
                feed(stream, *cuts)
        else:
            assert feed(stream, *cuts)[0] == stream


def test_fields_without_data_cannot_fill_memory() -> None:
    meter = StreamMeter(strip_usage=True)
    with pytest.raises(UpstreamError):
        for _ in range(3000):
            meter.feed(b"id: " + b"7" * 1000 + b"\n")


# The estimate


def test_without_usage_four_bytes_are_a_token() -> None:
    _, meter = feed(word("x" * 41) + DONE)
    assert meter.estimate_output_tokens() == 11


def test_every_event_with_text_is_a_token_at_least() -> None:
    _, meter = feed(word("a") * 20 + event({"choices": [{"delta": {}}]}) + DONE)
    assert meter.estimate_output_tokens() == 20


def test_an_empty_stream_is_estimated_at_nothing() -> None:
    assert StreamMeter().estimate_output_tokens() == 0
    assert feed(DONE)[1].estimate_output_tokens() == 0


def test_a_long_stream_is_estimated_from_its_beginning() -> None:
    count = 5000
    _, meter = feed(word("x" * 40) * count + DONE)
    assert len(word("x" * 40)) * count > 4 * SAMPLE_BYTES
    assert meter.estimate_output_tokens() == pytest.approx(count * 10, rel=0.01)


def test_a_sample_without_a_whole_line_counts_as_text() -> None:
    meter = StreamMeter()
    meter.feed(b"data: " + b"x" * (2 * SAMPLE_BYTES - 6))
    assert meter.estimate_output_tokens() == SAMPLE_BYTES // 2


def test_memory_does_not_grow_with_the_stream() -> None:
    meter = StreamMeter()
    for _ in range(2000):
        meter.feed(word("x" * 500))
    assert sum(map(len, meter._sample)) == SAMPLE_BYTES
    assert not meter._held
