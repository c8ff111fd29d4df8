"""What an upstream reports is believed only if it makes sense."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.gateway.meter.usage import (
    MAX_TOKENS,
    NoUsage,
    Usage,
    estimate_body,
    parse_usage,
    text_bytes,
    usage_of_body,
    why_no_usage,
)

GOOD = {"prompt_tokens": 24, "completion_tokens": 26, "total_tokens": 50}


def body_of(usage: object) -> bytes:
    return json.dumps({"id": "x", "choices": [], "usage": usage, "z": None}).encode()


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        (GOOD, Usage(24, 0, 26, 0, 0, 0)),
        (
            {
                **GOOD,
                "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 4},
                "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 6},
            },
            Usage(24, 8, 26, 20, 4, 6),
        ),
        (
            {**GOOD, "prompt_tokens_details": None, "completion_tokens_details": None},
            Usage(24, 0, 26, 0, 0, 0),
        ),
        ({**GOOD, "prompt_tokens_details": {"cached_tokens": None}}, Usage(24, 0, 26, 0, 0, 0)),
        ({**GOOD, "cost": 0.1, "provider": {"any": ["thing"]}}, Usage(24, 0, 26, 0, 0, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0, 0, 0, 0, 0)),
        (
            {"prompt_tokens": MAX_TOKENS, "completion_tokens": 0},
            Usage(MAX_TOKENS, 0, 0, 0, 0, 0),
        ),
        (
            {
                "input_tokens": 24,
                "input_tokens_details": {"cached_tokens": 8},
                "output_tokens": 26,
                "output_tokens_details": {"reasoning_tokens": 20},
            },
            Usage(24, 8, 26, 20, 0, 0),
        ),
        # Both families' names, one of them not filled.
        ({**GOOD, "input_tokens": 0, "output_tokens": 0}, Usage(24, 0, 26, 0, 0, 0)),
        (
            {"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 24, "output_tokens": 26},
            Usage(24, 0, 26, 0, 0, 0),
        ),
        # Embeddings have no output.
        ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0, 0, 0, 0, 0)),
        # Anthropic's cache counts lie beside the input.
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 20,
            },
            Usage(125, 100, 7, 0, 0, 0, 20),
        ),
        (
            {**GOOD, "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 16}},
            Usage(24, 8, 26, 0, 0, 0, 16),
        ),
    ],
)
def test_what_makes_sense_is_read(reported: dict[str, Any], expected: Usage) -> None:
    assert usage_of_body(body_of(reported)) == expected
    assert parse_usage(reported) == expected


@pytest.mark.parametrize(
    "reported",
    [
        {},
        {"prompt_tokens": 24},
        {"completion_tokens": 26},
        {"prompt_tokens": 24, "total_tokens": 30},
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": -1, "completion_tokens": 26},
        {"prompt_tokens": 24, "completion_tokens": -1},
        {"prompt_tokens": "24", "completion_tokens": "26"},
        {"prompt_tokens": 24.0, "completion_tokens": 26},
        {"prompt_tokens": 24.5, "completion_tokens": 26},
        {"prompt_tokens": True, "completion_tokens": 26},
        {"prompt_tokens": [24], "completion_tokens": 26},
        {"prompt_tokens": MAX_TOKENS + 1, "completion_tokens": 26},
        {"prompt_tokens": 10**18, "completion_tokens": 10**18},
        {"prompt_tokens": 1e18, "completion_tokens": 26},
        {"prompt_tokens": 10**400, "completion_tokens": 26},
        {**GOOD, "prompt_tokens_details": {"cached_tokens": 25}},
        {**GOOD, "prompt_tokens_details": {"cached_tokens": -1}},
        {**GOOD, "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 20}},
        {**GOOD, "prompt_tokens_details": {"cached_tokens": "8"}},
        {**GOOD, "prompt_tokens_details": [8]},
        {**GOOD, "completion_tokens_details": {"reasoning_tokens": 27}},
        {**GOOD, "completion_tokens_details": {"audio_tokens": -3}},
        {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": -1},
        {
            "input_tokens": 5,
            "output_tokens": 7,
            "cache_read_input_tokens": MAX_TOKENS,
            "cache_creation_input_tokens": MAX_TOKENS,
        },
        "24",
        24,
        [],
        True,
    ],
)
def test_what_makes_no_sense_is_refused_and_said_to_be_nonsense(reported: object) -> None:
    body = body_of(reported)
    assert usage_of_body(body) is None
    assert parse_usage(reported) is None
    assert why_no_usage(body) is NoUsage.NONSENSICAL


@pytest.mark.parametrize("body", [b'{"choices":[]}', b'{"usage":null}', b'{"a":{"usage":{}}}'])
def test_no_usage_is_told_from_nonsense(body: bytes) -> None:
    assert usage_of_body(body) is None
    assert why_no_usage(body) is NoUsage.ABSENT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"7",
        b"null",
        b'{"usage":{"prompt_tokens":1,"completion_tokens":1}',
        b'{"usage":{"prompt_tokens":1,"completion_tokens":1}} trailing',
        b"[" * 200_000,
        b'{"a":' + b"[" * 200_000,
        b'{"usage":{"prompt_tokens":NaN}}',
        b"\xff\xfe",
    ],
)
def test_what_is_no_json_object_gives_no_usage(body: bytes) -> None:
    assert usage_of_body(body) is None
    assert why_no_usage(body) is NoUsage.NOT_JSON


def test_text_that_looks_like_usage_is_only_text() -> None:
    fake = '"usage":{"prompt_tokens":1,"completion_tokens":1}'
    choices = [{"message": {"content": fake, "usage": GOOD}}]
    body = json.dumps({"choices": choices, "nested": {"usage": GOOD}}).encode()
    assert usage_of_body(body) is None


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    (*GOOD, "input_tokens", "output_tokens", "prompt_tokens_details", "completion_tokens_details")
)


@given(st.dictionaries(_NAMES, _ANY | st.integers(-5, 50), max_size=7))
def test_whatever_is_reported_ends_in_sense_or_in_none(reported: dict[str, Any]) -> None:
    usage = parse_usage(reported)
    assert usage == usage_of_body(body_of(reported))
    if usage is not None:
        assert 0 <= usage.cached_input_tokens + usage.input_audio_tokens <= usage.input_tokens
        assert 0 <= usage.reasoning_tokens + usage.output_audio_tokens <= usage.output_tokens
        assert max(usage.input_tokens, usage.output_tokens) <= MAX_TOKENS


@given(st.binary(max_size=200))
def test_no_bytes_whatsoever_raise(body: bytes) -> None:
    assert usage_of_body(body) is None
    assert why_no_usage(body) in NoUsage
    assert estimate_body(body) >= 0


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        ({"choices": [{"message": {"role": "assistant", "content": "héllo"}}]}, 6),
        ({"choices": [{"message": {"content": "ab", "reasoning_content": "cde"}}]}, 5),
        ({"choices": [{"message": {"content": [{"type": "text", "text": "abc"}]}}]}, 3),
        ({"choices": [{"message": {"content": None, "refusal": "no"}}]}, 2),
        ({"choices": [{"text": "abc"}, {"text": "de"}]}, 5),
        (
            {"choices": [{"message": {"tool_calls": [{"function": {"arguments": '{"a":1}'}}]}}]},
            7,
        ),
        ({"type": "message", "content": [{"type": "text", "text": "abcd"}]}, 4),
        ({"type": "response.output_text.delta", "delta": "abcd"}, 4),
        ({"type": "response.output_text.done", "text": "abcd"}, 0),
        ({"model": "gpt", "id": "chatcmpl", "object": "chat.completion"}, 0),
        ([], 0),
    ],
)
def test_generated_text_is_counted_in_utf8_bytes(answer: object, size: int) -> None:
    assert text_bytes(json.dumps(answer).encode()) == size
    assert text_bytes(json.dumps(answer, ensure_ascii=False).encode()) == size


def test_the_estimate_is_a_token_for_every_four_bytes_rounded_up() -> None:
    def answer(text: str) -> bytes:
        return json.dumps({"choices": [{"message": {"content": text}}]}).encode()

    assert [estimate_body(answer("x" * size)) for size in (0, 1, 4, 5, 400)] == [0, 1, 1, 2, 100]


def test_a_large_answer_is_estimated_by_its_size_without_being_built() -> None:
    body = b'{"choices":[' + b"[]," * 5_000_000 + b"[]]}"
    began = time.thread_time()
    assert estimate_body(body) == -(-len(body) // 4)
    assert time.thread_time() - began < 0.05
    small = json.dumps({"choices": [{"message": {"content": "x" * 999_000}}]}).encode()
    assert estimate_body(small) == 999_000 // 4
