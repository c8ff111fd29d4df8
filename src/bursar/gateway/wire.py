"""What a request to the gateway says, read without decoding what does not matter.

Owns which fields of an OpenAI request decide price, size and destination, and the rebuilding of the
body that goes upstream. Must not know keys, prices or upstreams. The body is always rebuilt from
the fields as they were read, so a field sent twice cannot mean one thing here and another upstream.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

from bursar.core import strictjson
from bursar.core.errors import BursarError, Forbidden, Invalid, NotFound, Unreadable
from bursar.core.prices import Price

MOST_TOKENS: Final = 10**9
MOST_CHOICES: Final = 128
_MOST_MESSAGES: Final = 10_000
_MOST_INPUTS: Final = 2_048
_MODEL_LENGTH: Final = 200
_USER_LENGTH: Final = 512


class Endpoint(StrEnum):
    """The model endpoints that are served."""

    CHAT = "chat.completions"
    EMBEDDINGS = "embeddings"


# Fields by which some servers and proxies let a caller choose destination, credentials or another
# model than the one that was priced. They never reach an upstream.
DROPPED: Final = frozenset(
    {
        "api_base",
        "api_key",
        "api_type",
        "api_version",
        "azure_ad_token",
        "base_url",
        "custom_llm_provider",
        "deployment_id",
        "extra_body",
        "extra_headers",
        "extra_query",
        "fallbacks",
        "context_window_fallbacks",
        "headers",
        "mock_response",
        "model_list",
        "models",
        "num_retries",
        "organization",
        "plugins",
        "provider",
        "proxy_server_request",
        "route",
        "router_settings",
        "transforms",
        "user_config",
        "vertex_credentials",
        "vertex_location",
        "vertex_project",
    }
)

# Fields whose use is charged beyond tokens, or at other rates, and whose price is not known here.
_UNPRICED: Final = ("web_search_options", "prediction")
_PLAIN_TIERS: Final = (b"null", b'"auto"', b'"default"', b'"standard"')
_DOUBLED: Final = ("model", "stream", "max_tokens", "max_completion_tokens", "n")
_MEDIA: Final = (b'"image_url"', b'"input_audio"', b'"file"', b'"image"', b'"video_url"')

# Fields that few requests carry; a request without them is read in one go.
_SELDOM: Final = frozenset(
    {
        "audio",
        "best_of",
        "modalities",
        "prediction",
        "service_tier",
        "stream_options",
        "user",
        "web_search_options",
    }
)


class _Message(msgspec.Struct, gc=False):
    role: Literal["system", "user", "assistant", "tool", "developer", "function"]
    content: str | list[msgspec.Raw] | None = None


class _Chat(msgspec.Struct, gc=False):
    """A chat request whose every field that matters is as it should be."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=_MODEL_LENGTH)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1, max_length=_MOST_MESSAGES)]
    stream: bool | None = False
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)] | None = None


_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.decode
_encode = msgspec.json.Encoder().encode
_decode_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_UNREADABLE = (msgspec.MsgspecError, RecursionError, ValueError)
_NULL = b"null"


@dataclass(slots=True)
class Call:
    """One request: what it asks for and the fields that it came with.

    `max_output` None: the caller named no limit. `input_count` is how many inputs an embedding
    request has; `choices` how many answers a chat request wants.
    """

    endpoint: Endpoint
    model: str
    is_stream: bool
    wants_usage: bool
    max_output: int | None
    choices: int
    body_bytes: int
    has_media: bool
    wants_audio: bool
    fields: dict[str, msgspec.Raw] = field(repr=False)
    limit_field: str | None = None


def read_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The request's top-level fields, undecoded. Raises Unreadable."""
    if not body.isascii():
        _require_utf8(body)
    try:
        fields = _decode_fields(body)
    except _UNREADABLE as error:
        raise Unreadable("invalid_json", "The body is not a JSON object.") from error
    for name in _DOUBLED:
        # Cheap and seldom true; a nested field of the same name only costs a second look.
        if name in fields and body.count(b'"%b"' % name.encode()) > 1:
            _require_once(body)
            break
    return fields


def read_call(endpoint: Endpoint, fields: dict[str, msgspec.Raw], body: bytes) -> Call:
    """What the request asks for. Raises Invalid with the field at fault, or NotFound."""
    if endpoint is Endpoint.CHAT and fields.keys().isdisjoint(_SELDOM):
        try:
            return _plain_call(_decode_chat(body), fields, body)
        except _UNREADABLE:
            # Something is not as it should be; what exactly is found out field by field.
            return _any_call(endpoint, fields, body)
    return _any_call(endpoint, fields, body)


def _plain_call(chat: "_Chat", fields: dict[str, msgspec.Raw], body: bytes) -> Call:
    """The call of a chat request that uses nothing out of the ordinary."""
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        raise _both_limits()
    newer = chat.max_completion_tokens is not None
    return Call(
        endpoint=Endpoint.CHAT,
        model=_served_name(chat.model),
        is_stream=bool(chat.stream),
        wants_usage=False,
        max_output=chat.max_completion_tokens if newer else chat.max_tokens,
        choices=chat.n or 1,
        body_bytes=len(body),
        has_media=_has_media(body),
        wants_audio=False,
        fields=fields,
        limit_field="max_completion_tokens" if newer else _limit_field(chat.max_tokens),
    )


def _any_call(endpoint: Endpoint, fields: dict[str, msgspec.Raw], body: bytes) -> Call:
    """The call of any request, every field looked at by itself."""
    model = _model(fields)
    is_chat = endpoint is Endpoint.CHAT
    is_stream = _flag(fields, "stream") if is_chat else False
    if is_chat:
        _require_messages(fields)
    else:
        _require_input(fields)
    _require_priced_features(fields)
    _require_plain_user(fields)
    limit_field, max_output = _max_output(fields) if is_chat else (None, None)
    return Call(
        endpoint=endpoint,
        model=model,
        is_stream=is_stream,
        wants_usage=_wants_usage(fields, is_stream=is_stream),
        max_output=max_output,
        choices=_choices(fields) if is_chat else 1,
        body_bytes=len(body),
        has_media=is_chat and _has_media(body),
        wants_audio="audio" in fields or b'"audio"' in bytes(fields.get("modalities", b"")),
        fields=fields,
        limit_field=limit_field,
    )


def upstream_body(call: Call, *, model: str, max_output: int | None, limit_field: str) -> bytes:
    """The body to send: the caller's fields, with price, size and destination settled by us.

    `max_output` None sends no limit (embeddings).
    """
    fields: dict[str, object] = {
        name: value for name, value in call.fields.items() if name not in DROPPED
    }
    fields["model"] = model
    if max_output is not None:
        fields[call.limit_field or limit_field] = max_output
    if call.is_stream:
        options = _decode_any(fields["stream_options"]) if "stream_options" in fields else None  # type: ignore[call-overload]
        fields["stream_options"] = {**(options or {}), "include_usage": True}
    else:
        fields.pop("stream_options", None)
    return _encode(fields)


def require_rates(call: Call, price: Price) -> None:
    """Refuse what the price book has no rate for: unpriced is not free."""
    is_priced = (
        price.is_chat_priced if call.endpoint is Endpoint.CHAT else price.is_embedding_priced
    )
    if not is_priced:
        raise Forbidden(
            "model_not_priced",
            f"The model {call.model!r} has no price for this use, and is not served without one.",
            param="model",
        )
    if call.wants_audio and not price.has_rates("output_audio_tokens"):
        raise _invalid("unpriced_feature", "audio", "This model has no price for audio output.")


def _require_utf8(body: bytes) -> None:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Unreadable("invalid_json", "The body is not valid UTF-8.") from error


def _require_once(body: bytes) -> None:
    try:
        strictjson.loads(body)
    except BursarError as error:
        if error.code == "duplicate_key":
            raise


def _model(fields: Mapping[str, msgspec.Raw]) -> str:
    raw = fields.get("model")
    if raw is None:
        raise _invalid("invalid_value", "model", "A model is required.")
    model = _decode(raw)
    if not isinstance(model, str):
        raise _invalid("invalid_value", "model", "The model must be a string.")
    return _served_name(model)


def _served_name(model: str) -> str:
    if not model or len(model) > _MODEL_LENGTH or not model.isprintable() or " " in model:
        raise NotFound("model_not_found", "The model does not exist.", param="model")
    return model


def _limit_field(max_tokens: int | None) -> str | None:
    return None if max_tokens is None else "max_tokens"


def _has_media(body: bytes) -> bool:
    """Whether a message has parts whose tokens their bytes do not bound."""
    if b"\\u00" in body:
        # A name may be spelt with escapes; this one is the name itself.
        with suppress(*_UNREADABLE):
            body = _encode(_decode_any(body))
    return any(map(body.__contains__, _MEDIA))


def _flag(fields: Mapping[str, msgspec.Raw], name: str) -> bool:
    raw = fields.get(name)
    if raw is None:
        return False
    text = bytes(raw)
    if text not in (b"true", b"false", _NULL):
        raise _invalid("invalid_value", name, f"{name} must be true or false.")
    return text == b"true"


def _wants_usage(fields: Mapping[str, msgspec.Raw], *, is_stream: bool) -> bool:
    raw = fields.get("stream_options")
    if raw is None or bytes(raw) == _NULL:
        return False
    options = _decode(raw)
    if not is_stream:
        raise _invalid("invalid_value", "stream_options", "stream_options needs stream: true.")
    if not isinstance(options, dict):
        raise _invalid("invalid_value", "stream_options", "stream_options must be an object.")
    wanted = options.get("include_usage", False)
    if not isinstance(wanted, bool):
        raise _invalid("invalid_value", "stream_options", "include_usage must be true or false.")
    return wanted


def _max_output(fields: Mapping[str, msgspec.Raw]) -> tuple[str | None, int | None]:
    limits = [
        (name, fields[name])
        for name in ("max_tokens", "max_completion_tokens")
        if name in fields and bytes(fields[name]) != _NULL
    ]
    if len(limits) > 1:
        raise _both_limits()
    for name, raw in limits:
        return name, _whole(raw, name, most=MOST_TOKENS)
    return None, None


def _both_limits() -> Invalid:
    return _invalid(
        "invalid_value", "max_tokens", "Send max_tokens or max_completion_tokens, not both."
    )


def _choices(fields: Mapping[str, msgspec.Raw]) -> int:
    wanted = 1
    for name in ("n", "best_of"):
        raw = fields.get(name)
        if raw is not None and bytes(raw) != _NULL:
            wanted = max(wanted, _whole(raw, name, most=MOST_CHOICES))
    return wanted


def _whole(raw: msgspec.Raw, name: str, *, most: int) -> int:
    value = _decode(raw)
    if type(value) is not int or not 1 <= value <= most:
        raise _invalid("invalid_value", name, f"{name} must be a whole number from 1 to {most}.")
    return value


def _require_messages(fields: Mapping[str, msgspec.Raw]) -> None:
    raw = fields.get("messages")
    if raw is None:
        raise _invalid("invalid_value", "messages", "messages are required.")
    try:
        messages = _decode_messages(raw)
    except _UNREADABLE as error:
        raise _invalid(
            "invalid_value", "messages", "messages must be a list of objects."
        ) from error
    if not 1 <= len(messages) <= _MOST_MESSAGES:
        raise _invalid(
            "invalid_value", "messages", f"messages must have 1 to {_MOST_MESSAGES} entries."
        )
    for message in messages:
        role = message.get("role")
        if role is None or bytes(role) not in _ROLES:
            raise _invalid("invalid_value", "messages", "A message has no known role.")
        content = bytes(message.get("content", _NULL))
        if content[:1] not in _CONTENT:
            raise _invalid("invalid_value", "messages", "content must be text or a list of parts.")


_ROLES: Final = frozenset(
    (b'"system"', b'"user"', b'"assistant"', b'"tool"', b'"developer"', b'"function"')
)
_CONTENT: Final = frozenset((b'"', b"[", b"n"))


def _require_input(fields: Mapping[str, msgspec.Raw]) -> None:
    raw = fields.get("input")
    value = None if raw is None else _decode(raw)
    if isinstance(value, str) and value:
        return
    if isinstance(value, list) and 1 <= len(value) <= _MOST_INPUTS * 4:
        if all(isinstance(item, str) and item for item in value) and len(value) <= _MOST_INPUTS:
            return
        if _are_tokens(value):
            return
        if len(value) <= _MOST_INPUTS and all(_are_tokens(item) for item in value):
            return
    raise _invalid(
        "invalid_value", "input", f"input must be text, tokens, or 1 to {_MOST_INPUTS} of them."
    )


def _are_tokens(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int and 0 <= item < 2**31 for item in value)
    )


def _require_priced_features(fields: Mapping[str, msgspec.Raw]) -> None:
    for name in _UNPRICED:
        if name in fields and bytes(fields[name]) != _NULL:
            raise _invalid("unpriced_feature", name, f"{name} has no price here.")
    tier = fields.get("service_tier")
    if tier is not None and bytes(tier) not in _PLAIN_TIERS:
        raise _invalid("unpriced_feature", "service_tier", "This service tier has no price here.")


def _require_plain_user(fields: Mapping[str, msgspec.Raw]) -> None:
    raw = fields.get("user")
    if raw is None or bytes(raw) == _NULL:
        return
    user = _decode(raw)
    if not isinstance(user, str) or len(user) > _USER_LENGTH or not user.isprintable():
        raise _invalid("invalid_value", "user", f"user must be text of at most {_USER_LENGTH}.")


def _decode(raw: msgspec.Raw) -> object:
    try:
        return _decode_any(raw)
    except _UNREADABLE as error:
        raise Unreadable("invalid_json", "The body is not valid JSON.") from error


def _invalid(code: str, param: str, message: str) -> Invalid:
    return Invalid(code, message, param=param)
