"""What an upstream says that it sold, read from its answer without decoding the rest of it.

Owns the one judgement whether a reported usage makes sense, for every shape in which OpenAI and
Anthropic compatible servers report it, and the estimate that stands in where none does. Must not
know prices, holds or how the answer travelled.

The estimate: a token for every four UTF-8 bytes of generated text, rounded up. English runs at
about four bytes a token, other languages at fewer tokens a byte only rarely, and no tokenizer has
to be fetched from anywhere.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from bursar.core.bounds import BYTES_PER_TOKEN

MAX_TOKENS = 10**12
_LARGE_BODY = 1_000_000

# What a malformed, hostile or merely deep document can make the decoder raise.
UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)

_TEXT_FIELDS = frozenset(
    (
        "arguments",
        "content",
        "delta",
        "partial_json",
        "reasoning",
        "reasoning_content",
        "refusal",
        "text",
        "thinking",
    )
)


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one call, parts included in their totals.

    `input_tokens` includes the cached, cache-writing and audio parts; `output_tokens` includes
    the reasoning and audio parts.
    """

    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    input_audio_tokens: int
    output_audio_tokens: int
    cache_write_tokens: int = 0


class NoUsage(StrEnum):
    """Why an answer gave no usage."""

    NOT_JSON = "not_json"
    ABSENT = "absent"
    NONSENSICAL = "nonsensical"


class _Parts(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class UsageFields(msgspec.Struct):
    """The fields of a usage object as they came, under either family's names."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Parts | None = None
    completion_tokens_details: _Parts | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: _Parts | None = None
    output_tokens_details: _Parts | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Body(msgspec.Struct):
    usage: UsageFields | None = None


class _LooseBody(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_loose_body = msgspec.json.Decoder(_LooseBody).decode
_decode_fields = msgspec.json.Decoder(UsageFields).decode


def usage_of_body(body: bytes) -> Usage | None:
    """Read the top-level usage of a JSON answer; None if there is none that makes sense.

    A usage implies that the body is valid JSON. `why_no_usage` tells what a None means.
    """
    try:
        fields = _decode_body(body).usage
    except UNREADABLE:
        return None
    return None if fields is None else judge(fields)


def why_no_usage(body: bytes) -> NoUsage:
    """Tell why `usage_of_body` returned None: garbage, nothing reported, or nonsense reported."""
    try:
        usage = bytes(_decode_loose_body(body).usage)
    except UNREADABLE:
        return NoUsage.NOT_JSON
    return NoUsage.ABSENT if usage in (b"", b"null") else NoUsage.NONSENSICAL


def parse_usage(usage: object) -> Usage | None:
    """Judge a decoded usage object (a dict); None if it makes no sense."""
    try:
        return judge(msgspec.convert(usage, UsageFields))
    except UNREADABLE:
        return None


def decode_fields(usage: bytes) -> UsageFields | None:
    """Decode a usage object's JSON; None if a field is not what its name says."""
    try:
        return _decode_fields(usage)
    except UNREADABLE:
        return None


def judge(fields: UsageFields) -> Usage | None:
    """Accept or refuse what was reported.

    Refused: a total that is missing, negative or above 10**12, and parts that exceed their total.
    Missing output is zero only if the total says so too (embeddings).
    """
    total_in = _total(fields.prompt_tokens, fields.input_tokens)
    total_out = _total(fields.completion_tokens, fields.output_tokens)
    if total_in is None:
        return None
    if total_out is None:
        if fields.total_tokens != total_in:
            return None
        total_out = 0
    parts_in = fields.prompt_tokens_details or fields.input_tokens_details or _Parts()
    parts_out = fields.completion_tokens_details or fields.output_tokens_details or _Parts()
    cached = parts_in.cached_tokens or 0
    written = parts_in.cache_write_tokens or 0
    if fields.cache_read_input_tokens is not None or fields.cache_creation_input_tokens is not None:
        # Anthropic counts what the cache took or gave beside the input, not within it.
        cached = fields.cache_read_input_tokens or 0
        written = fields.cache_creation_input_tokens or 0
        total_in += cached + written
    audio_in = parts_in.audio_tokens or 0
    audio_out = parts_out.audio_tokens or 0
    reasoning = parts_out.reasoning_tokens or 0
    if total_in > MAX_TOKENS or total_out > MAX_TOKENS:
        return None
    if cached < 0 or written < 0 or audio_in < 0 or audio_out < 0 or reasoning < 0:
        return None
    if cached + written + audio_in > total_in or reasoning + audio_out > total_out:
        return None
    return Usage(total_in, cached, total_out, reasoning, audio_in, audio_out, written)


def estimate_body(body: bytes) -> int:
    """Estimate the output tokens of a JSON answer without usage: at least 1 if it holds text.

    All of a body above a megabyte counts as text: to look for it would keep everybody waiting.
    """
    return tokens_of_text(len(body) if len(body) > _LARGE_BODY else text_bytes(body))


def tokens_of_text(size: int) -> int:
    """Return the estimated tokens of `size` bytes of text."""
    return -(-size // BYTES_PER_TOKEN)


def text_bytes(document: bytes) -> int:
    """Count the UTF-8 bytes of generated text in a JSON answer or stream event; 0 if unreadable."""
    try:
        decoded = msgspec.json.decode(document)
        if isinstance(decoded, dict) and _repeats(decoded.get("type")):
            return 0
        return _count_text(decoded, is_text=False)
    except UNREADABLE:
        return 0


def _repeats(event_type: object) -> bool:
    # The Responses API sends a text in deltas and then whole again, two or three times.
    is_response_event = isinstance(event_type, str) and event_type.startswith("response.")
    return is_response_event and not str(event_type).endswith(".delta")


def _count_text(value: object, *, is_text: bool) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace")) if is_text else 0
    if isinstance(value, list):
        return sum(_count_text(item, is_text=is_text) for item in value)
    if isinstance(value, dict):
        return sum(_count_text(item, is_text=name in _TEXT_FIELDS) for name, item in value.items())
    return 0


def _total(one: int | None, other: int | None) -> int | None:
    # Servers that speak both families sometimes fill only one and leave the other at zero.
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
