"""The fields of a request, one by one: each read and judged by itself.

Owns what a field may be and the words in which a wrong one is refused. Must not know what the
request as a whole asks for (`calls`).
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from bursar.core import strictjson
from bursar.core.bounds import MOST_CHOICES, MOST_TOKENS
from bursar.core.errors import BursarError, Invalid, NotFound, Unreadable
from bursar.core.text import is_model_name
from bursar.gateway.wire import bulk

Fields = Mapping[str, msgspec.Raw]

MOST_STOPS: Final = 128
_SAMPLING: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, ValueError)
_MOST_INPUTS: Final = 2_048
_MOST_TOKENS_ALONE: Final = 4 * _MOST_INPUTS
_MOST_TOKENS_TOGETHER: Final = 1_000_000
_MOST_LABELS: Final = 64
_LABEL_LENGTH: Final = 512
_MOST_BIASES: Final = 10_000

# Fields whose use is charged beyond tokens, or at other rates, and whose price is not known here.
_UNPRICED: Final = ("enable_search", "prediction", "search_parameters", "web_search_options")
_PLAIN_TOOLS: Final = frozenset(("function", "custom"))
_PLAIN_TIERS: Final = (b"null", b'"auto"', b'"default"', b'"standard"')
_DOUBLED: Final = (
    b'"model"',
    b'"messages"',
    b'"stream"',
    b'"max_tokens"',
    b'"max_completion_tokens"',
    b'"n"',
)
_NULL: Final = b"null"

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Token = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Tokens = Annotated[list[_Token], msgspec.Meta(min_length=1)]

_FIRST: Final = re.compile(rb"\[\s*([^\s])")
_decode_texts = msgspec.json.Decoder(list[_Text]).decode
_decode_tokens = msgspec.json.Decoder(list[_Token]).decode
_decode_many_tokens = msgspec.json.Decoder(list[_Tokens]).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.decode


def read_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The request's top-level fields, undecoded. Raises Unreadable."""
    if not body.isascii():
        _require_utf8(body)
    beside, parts = bulk.split(body) if len(body) > bulk.LARGE else (body, None)
    try:
        fields = _decode_fields(beside)
    except UNREADABLE as error:
        raise Unreadable("invalid_json", "The body is not a JSON object.") from error
    if parts:
        fields.update(parts)
    for name in _DOUBLED:
        # Cheap and seldom true; a nested field of the same name only costs a second look.
        if beside.count(name) > 1:
            _require_once(beside)
            break
    return fields


def has_one_meaning(body: bytes) -> bool:
    """Whether this body, if it is JSON, has no decisive field twice, however its name is written.

    Such a body may go on as it came. False may also mean that a closer look is needed.
    """
    if len(body) > bulk.LARGE or (b"\\" in body and b"\\u" in body):
        return False
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError:
            return False
    count = body.count
    return not [name for name in _DOUBLED if count(name) > 1]


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


def model_of(fields: Fields) -> str:
    """The model's name. Raises Invalid, or NotFound for what no model is called."""
    raw = fields.get("model")
    if raw is None:
        raise invalid("invalid_value", "model", "A model is required.")
    model = _decode(raw)
    if not isinstance(model, str):
        raise invalid("invalid_value", "model", "The model must be a string.")
    return served_name(model)


def served_name(model: str) -> str:
    """The name, if a model may be called so; raises NotFound."""
    if not is_model_name(model):
        raise NotFound("model_not_found", "The model does not exist.", param="model")
    return model


def flag(fields: Fields, name: str) -> bool:
    """A field that is true or false; absent and null are false."""
    raw = fields.get(name)
    if raw is None:
        return False
    text = bytes(raw)
    if text not in (b"true", b"false", _NULL):
        raise invalid("invalid_value", name, f"{name} must be true or false.")
    return text == b"true"


def wants_usage(fields: Fields, *, is_stream: bool) -> bool:
    """Whether the caller asks for the usage event of a stream."""
    raw = fields.get("stream_options")
    if raw is None or bytes(raw) == _NULL:
        return False
    options = _decode(raw)
    if not is_stream:
        raise invalid("invalid_value", "stream_options", "stream_options needs stream: true.")
    if not isinstance(options, dict):
        raise invalid("invalid_value", "stream_options", "stream_options must be an object.")
    wanted = options.get("include_usage", False)
    if not isinstance(wanted, bool):
        raise invalid("invalid_value", "stream_options", "include_usage must be true or false.")
    return wanted


def max_output(fields: Fields) -> tuple[str | None, int | None]:
    """Which field limits the output, and to how many tokens; None and None without a limit."""
    limits = [
        (name, fields[name])
        for name in ("max_tokens", "max_completion_tokens")
        if name in fields and bytes(fields[name]) != _NULL
    ]
    if len(limits) > 1:
        raise both_limits()
    for name, raw in limits:
        return name, _whole(raw, name, most=MOST_TOKENS)
    return None, None


def both_limits() -> Invalid:
    """The refusal of two limits that may differ."""
    return invalid(
        "invalid_value", "max_tokens", "Send max_tokens or max_completion_tokens, not both."
    )


def choices(fields: Fields) -> int:
    """How many answers are wanted."""
    wanted = 1
    for name in ("n", "best_of"):
        raw = fields.get(name)
        if raw is not None and bytes(raw) != _NULL:
            wanted = max(wanted, _whole(raw, name, most=MOST_CHOICES))
    return wanted


def _whole(raw: msgspec.Raw, name: str, *, most: int) -> int:
    value = _decode(raw)
    if type(value) is not int or not 1 <= value <= most:
        raise invalid("invalid_value", name, f"{name} must be a whole number from 1 to {most}.")
    return value


def require_input(fields: Fields) -> None:
    """Raise Invalid unless there is something to embed."""
    raw = fields.get("input")
    try:
        if raw is not None and _is_input(bytes(raw)):
            return
    except UNREADABLE:
        pass
    raise invalid(
        "invalid_value", "input", f"input must be text, tokens, or 1 to {_MOST_INPUTS} of them."
    )


def _is_input(raw: bytes) -> bool:
    """Whether this is a text, some texts, tokens or some of those; may raise what UNREADABLE is.

    What it is a list of shows in its first entry; how many there are, before they are built.
    """
    first = _FIRST.match(raw)
    if first is None:
        return bool(msgspec.json.decode(raw, type=str))
    if first[1] == b'"':
        return len(_decode_texts(raw)) <= _MOST_INPUTS
    if first[1] == b"[":
        is_bounded = raw.count(b",") <= _MOST_TOKENS_TOGETHER
        return is_bounded and len(_decode_many_tokens(raw)) <= _MOST_INPUTS
    is_bounded = raw.count(b",") < _MOST_TOKENS_ALONE
    return is_bounded and len(_decode_tokens(raw)) > 0


def require_priced_features(fields: Fields) -> None:
    """Raise Invalid for features that cost extra and have no price here."""
    for name in _UNPRICED:
        if name in fields and bytes(fields[name]) not in (_NULL, b"false"):
            raise invalid("unpriced_feature", name, f"{name} has no price here.")
    tier = fields.get("service_tier")
    if tier is not None and bytes(tier) not in _PLAIN_TIERS:
        raise invalid("unpriced_feature", "service_tier", "This service tier has no price here.")

    tools = fields.get("tools")
    if tools is not None and not _are_plain_tools(_decode(tools)):
        raise invalid(
            "unpriced_feature",
            "tools",
            "tools must be functions; built-in ones have no price here.",
        )


def _are_plain_tools(tools: object) -> bool:
    return tools is None or (
        isinstance(tools, list)
        and all(isinstance(tool, dict) and tool.get("type") in _PLAIN_TOOLS for tool in tools)
    )


def require_sane_sampling(fields: Fields) -> None:
    """Raise Invalid for sampling fields that no server could make sense of."""
    for name in _SAMPLING:
        value = _decode(fields[name]) if name in fields else None
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise invalid("invalid_value", name, f"{name} must be a number.")
    stop = _decode(fields["stop"]) if "stop" in fields else None
    if stop is not None and not isinstance(stop, str):
        if not isinstance(stop, list) or len(stop) > MOST_STOPS or not _are_texts(stop):
            raise invalid("invalid_value", "stop", f"stop must be text, or up to {MOST_STOPS}.")
    bias = _decode(fields["logit_bias"]) if "logit_bias" in fields else None
    if bias is not None and not (isinstance(bias, dict) and len(bias) <= _MOST_BIASES):
        raise invalid("invalid_value", "logit_bias", f"logit_bias may have {_MOST_BIASES} entries.")


def _are_texts(values: list[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def require_plain_labels(fields: Fields) -> None:
    """Raise Invalid for `user` and `metadata` that are too long, not text or not printable."""
    user = _decode(fields["user"]) if "user" in fields else None
    if user is not None and not _is_label(user):
        raise invalid("invalid_value", "user", f"user must be text of at most {_LABEL_LENGTH}.")
    labels = _decode(fields["metadata"]) if "metadata" in fields else None
    if labels is None:
        return
    texts = [*labels, *labels.values()] if isinstance(labels, dict) else [None]
    if len(texts) > 2 * _MOST_LABELS or not all(map(_is_label, texts)):
        raise invalid(
            "invalid_value",
            "metadata",
            f"metadata may have {_MOST_LABELS} texts of at most {_LABEL_LENGTH} characters.",
        )


def _is_label(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LABEL_LENGTH and value.isprintable()


def _decode(raw: msgspec.Raw) -> object:
    try:
        return _decode_any(raw)
    except UNREADABLE as error:
        raise Unreadable("invalid_json", "The body is not valid JSON.") from error


def invalid(code: str, param: str, message: str) -> Invalid:
    """The refusal of one field."""
    return Invalid(code, message, param=param)
