"""The fields of a request, one by one: each read and judged by itself.

Owns what a field may be and the words in which a wrong one is refused. Must not know what the
request as a whole asks for (`calls`).
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import msgspec

from bursar.core import strictjson
from bursar.core.errors import BursarError, Invalid, NotFound, Unreadable

Fields = Mapping[str, msgspec.Raw]

MOST_TOKENS: Final = 10**9
MOST_CHOICES: Final = 128
MOST_MESSAGES: Final = 10_000
MODEL_LENGTH: Final = 200
UNREADABLE: Final = (msgspec.MsgspecError, RecursionError, ValueError)
_MOST_INPUTS: Final = 2_048
_USER_LENGTH: Final = 512

# Fields whose use is charged beyond tokens, or at other rates, and whose price is not known here.
_UNPRICED: Final = ("web_search_options", "prediction")
_PLAIN_TIERS: Final = (b"null", b'"auto"', b'"default"', b'"standard"')
_DOUBLED: Final = (b'"model"', b'"stream"', b'"max_tokens"', b'"max_completion_tokens"', b'"n"')
_MEDIA: Final = (b'"image_url"', b'"input_audio"', b'"file"', b'"image"', b'"video_url"')
_ROLES: Final = frozenset(
    (b'"system"', b'"user"', b'"assistant"', b'"tool"', b'"developer"', b'"function"')
)
_CONTENT: Final = frozenset((b'"', b"[", b"n"))
_NULL: Final = b"null"

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_messages = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_decode_any = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


def read_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The request's top-level fields, undecoded. Raises Unreadable."""
    if not body.isascii():
        _require_utf8(body)
    try:
        fields = _decode_fields(body)
    except UNREADABLE as error:
        raise Unreadable("invalid_json", "The body is not a JSON object.") from error
    for name in _DOUBLED:
        # Cheap and seldom true; a nested field of the same name only costs a second look.
        if body.count(name) > 1:
            _require_once(body)
            break
    return fields


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
    if not model or len(model) > MODEL_LENGTH or not model.isprintable() or " " in model:
        raise NotFound("model_not_found", "The model does not exist.", param="model")
    return model


def has_media(body: bytes) -> bool:
    """Whether a message has parts whose tokens their bytes do not bound."""
    if b"\\u00" in body:
        # A name may be spelt with escapes; this one is the name itself.
        with suppress(*UNREADABLE):
            body = _encode(_decode_any(body))
    # A part always has a type; most requests have none.
    return b'"type"' in body and any(map(body.__contains__, _MEDIA))


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


def require_messages(fields: Fields) -> None:
    """Raise Invalid unless the messages are some, with known roles and plain content."""
    raw = fields.get("messages")
    if raw is None:
        raise invalid("invalid_value", "messages", "messages are required.")
    try:
        messages = _decode_messages(raw)
    except UNREADABLE as error:
        raise invalid("invalid_value", "messages", "messages must be a list of objects.") from error
    if not 1 <= len(messages) <= MOST_MESSAGES:
        raise invalid(
            "invalid_value", "messages", f"messages must have 1 to {MOST_MESSAGES} entries."
        )
    for message in messages:
        role = message.get("role")
        if role is None or bytes(role) not in _ROLES:
            raise invalid("invalid_value", "messages", "A message has no known role.")
        content = bytes(message.get("content", _NULL))
        if content[:1] not in _CONTENT:
            raise invalid("invalid_value", "messages", "content must be text or a list of parts.")


def require_input(fields: Fields) -> None:
    """Raise Invalid unless there is something to embed."""
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
    raise invalid(
        "invalid_value", "input", f"input must be text, tokens, or 1 to {_MOST_INPUTS} of them."
    )


def _are_tokens(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(type(item) is int and 0 <= item < 2**31 for item in value)
    )


def require_priced_features(fields: Fields) -> None:
    """Raise Invalid for features that cost extra and have no price here."""
    for name in _UNPRICED:
        if name in fields and bytes(fields[name]) != _NULL:
            raise invalid("unpriced_feature", name, f"{name} has no price here.")
    tier = fields.get("service_tier")
    if tier is not None and bytes(tier) not in _PLAIN_TIERS:
        raise invalid("unpriced_feature", "service_tier", "This service tier has no price here.")


def require_plain_user(fields: Fields) -> None:
    """Raise Invalid for an end user's name that is too long or not printable."""
    raw = fields.get("user")
    if raw is None or bytes(raw) == _NULL:
        return
    user = _decode(raw)
    if not isinstance(user, str) or len(user) > _USER_LENGTH or not user.isprintable():
        raise invalid("invalid_value", "user", f"user must be text of at most {_USER_LENGTH}.")


def _decode(raw: msgspec.Raw) -> object:
    try:
        return _decode_any(raw)
    except UNREADABLE as error:
        raise Unreadable("invalid_json", "The body is not valid JSON.") from error


def invalid(code: str, param: str, message: str) -> Invalid:
    """The refusal of one field."""
    return Invalid(code, message, param=param)
