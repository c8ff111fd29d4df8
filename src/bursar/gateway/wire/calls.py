"""What a request to the gateway says, read without decoding what does not matter.

Owns what a request as a whole asks for, and the rebuilding of the body that goes upstream: always
from the fields as they were read, so a field sent twice cannot mean one thing here and another
there. Must not know keys or upstreams.
"""

from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from bursar.core.bounds import MOST_CHOICES, MOST_TOKENS
from bursar.core.errors import Forbidden
from bursar.core.prices import Price
from bursar.core.text import MODEL_LENGTH, is_model_name
from bursar.gateway.routing import Route
from bursar.gateway.wire import fields as fields_
from bursar.gateway.wire import messages
from bursar.gateway.wire.fields import UNREADABLE, Fields


class Endpoint(NamedTuple):
    """A model endpoint: its name in usage rows and metrics, and its path at an upstream."""

    name: str
    path: bytes


CHAT: Final = Endpoint("chat.completions", b"/chat/completions")
EMBEDDINGS: Final = Endpoint("embeddings", b"/embeddings")


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

# Fields of which an upstream gets what was read and priced here, or nothing. Some servers take any
# spelling for a field's name, so no other one of these goes on.
_OURS: Final = DROPPED | {
    "audio",
    "best_of",
    "enable_search",
    "input",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "modalities",
    "model",
    "n",
    "prediction",
    "search_parameters",
    "service_tier",
    "stream",
    "stream_options",
    "tools",
    "web_search_options",
}


class _Text(msgspec.Struct, gc=False):
    type: Literal["text"]
    text: str = ""


class _Message(msgspec.Struct, gc=False):
    role: Literal["system", "user", "assistant", "tool", "developer", "function"]
    content: str | list[_Text] | None = None
    audio: None = None


class _Tool(msgspec.Struct, gc=False):
    type: Literal["function", "custom"]


class _Chat(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A chat request that is all text, with no field but these, each as it should be."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=MODEL_LENGTH)]
    messages: Annotated[
        list[_Message], msgspec.Meta(min_length=1, max_length=messages.MOST_MESSAGES)
    ]
    stream: bool | None = False
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=fields_.MOST_STOPS)] | None = None
    tools: list[_Tool] | None = None
    logprobs: msgspec.Raw = msgspec.Raw()
    parallel_tool_calls: msgspec.Raw = msgspec.Raw()
    reasoning_effort: msgspec.Raw = msgspec.Raw()
    response_format: msgspec.Raw = msgspec.Raw()
    seed: msgspec.Raw = msgspec.Raw()
    tool_choice: msgspec.Raw = msgspec.Raw()
    top_logprobs: msgspec.Raw = msgspec.Raw()


_decode_chat = msgspec.json.Decoder(_Chat).decode
_decode_any = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct, gc=False):
    """One request: what it asks for and the body that it came with.

    `max_output` None: the caller named no limit. `choices` is how many answers are wanted. `fields`
    None: they are what the body says, whoever reads it.
    """

    endpoint: Endpoint
    model: str
    is_stream: bool
    wants_usage: bool
    max_output: int | None
    choices: int
    has_media: bool
    wants_audio: bool
    body: bytes
    fields: Fields | None = None
    limit_field: str | None = None

    @property
    def body_bytes(self) -> int:
        """How long the body is: no prompt has more tokens."""
        return len(self.body)


def read_plain(endpoint: Endpoint, body: bytes) -> Call | None:
    """The call of a chat request that uses nothing out of the ordinary, read in one go.

    None: what it asks for, or what is wrong with it, is found out field by field.
    """
    if endpoint is not CHAT or not fields_.has_one_meaning(body):
        return None
    try:
        chat = _decode_chat(body)
    except UNREADABLE:
        return None
    limit, limit_field = chat.max_tokens, "max_tokens"
    if chat.max_completion_tokens is not None:
        if limit is not None:
            return None
        limit, limit_field = chat.max_completion_tokens, "max_completion_tokens"
    if chat.tools is not None and body.count(b'"tools"') > 1:
        return None
    if not is_model_name(chat.model):
        return None
    # By position, in the order of the fields.
    return Call(
        CHAT,
        chat.model,
        bool(chat.stream),
        False,  # noqa: FBT003
        limit,
        chat.n or 1,
        False,  # noqa: FBT003
        False,  # noqa: FBT003
        body,
        None,
        None if limit is None else limit_field,
    )


def read_call(endpoint: Endpoint, fields: Fields, body: bytes) -> Call:
    """What any request asks for. Raises Invalid with the field at fault, or NotFound."""
    model = fields_.model_of(fields)
    is_chat = endpoint is CHAT
    is_stream = fields_.flag(fields, "stream") if is_chat else False
    has_media = False
    if is_chat:
        has_media = messages.check(fields)
    else:
        fields_.require_input(fields)
    fields_.require_priced_features(fields)
    fields_.require_sane_sampling(fields)
    fields_.require_plain_labels(fields)
    limit_field, max_output = fields_.max_output(fields) if is_chat else (None, None)
    return Call(
        endpoint=endpoint,
        model=model,
        is_stream=is_stream,
        wants_usage=fields_.wants_usage(fields, is_stream=is_stream),
        max_output=max_output,
        choices=fields_.choices(fields) if is_chat else 1,
        has_media=has_media,
        wants_audio="audio" in fields or b'"audio"' in bytes(fields.get("modalities", b"")),
        body=body,
        fields=fields,
        limit_field=limit_field,
    )


def upstream_body(call: Call, route: Route, max_output: int | None) -> bytes:
    """The body to send: the caller's fields, with price, size and destination settled by us.

    `max_output` None sends no limit (embeddings).
    """
    found = call.fields
    if found is None:
        if route.model == call.model and max_output == call.max_output and not call.is_stream:
            return call.body
        found = fields_.read_fields(call.body)
    fields: dict[str, object] = {
        name: value
        for name, value in found.items()
        if name not in DROPPED and (_is_plain(name) or name.casefold() not in _OURS)
    }
    fields["model"] = route.model
    if max_output is not None:
        fields[call.limit_field or route.limit_field] = max_output
    if call.is_stream:
        asked = found.get("stream_options")
        options = None if asked is None else _decode_any(asked)
        fields["stream_options"] = {**(options or {}), "include_usage": True}
    else:
        fields.pop("stream_options", None)
    return _encode(fields)


def _is_plain(name: str) -> bool:
    return name.isascii() and name.islower()


def require_rates(call: Call, price: Price) -> None:
    """Refuse what the price book has no rate for: unpriced is not free."""
    is_priced = price.is_chat_priced if call.endpoint is CHAT else price.is_embedding_priced
    if not is_priced:
        raise Forbidden(
            "model_not_priced",
            f"The model {call.model!r} has no price for this use, and is not served without one.",
            param="model",
        )
    if call.wants_audio and not price.has_rates("output_audio_tokens"):
        raise fields_.invalid(
            "unpriced_feature", "audio", "This model has no price for audio output."
        )
