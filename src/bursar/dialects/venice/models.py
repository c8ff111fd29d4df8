"""Models as Venice lists them: by type, with their prices per million tokens.

Owns their shape. What is not known of a model (what it can do) is left out, not guessed. Must not
know which models there are; a port says so.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from starlette.responses import Response

from bursar.core.errors import Invalid
from bursar.core.prices import INPUT, OUTPUT, Price, format_rate
from bursar.edge.calls import Call, Endpoint, reply

# The models that are priced and served at this moment.
Served = Callable[[], list[Price]]

TEXT: Final = "text"
EMBEDDING: Final = "embedding"
_ALL: Final = "all"
# The types that Venice knows; there are models of the first two here.
_TYPES: Final = frozenset(
    {TEXT, EMBEDDING, _ALL, "asr", "code", "decision", "image", "inpaint", "music", "tts"}
    | {"upscale", "video"}
)
_MILLION: Final = 1_000_000
_METERS: Final = (
    (INPUT, "input"),
    (OUTPUT, "output"),
    ("cached_input_tokens", "cache_input"),
    ("cache_write_tokens", "cache_write"),
)


def lister(served: Served) -> Endpoint:
    """Return the endpoint that lists the models of one type, text if none is named."""

    async def list_models(call: Call[None]) -> Response:
        wanted = call.query.find("type") or TEXT
        if wanted not in _TYPES:
            message = f"The types are {', '.join(sorted(_TYPES))}."
            raise Invalid("invalid_value", message, param="type")
        found = [_model(price) for price in served() if wanted in (_ALL, type_of(price))]
        return reply({"object": "list", "type": wanted, "data": found})

    endpoint: Callable[[Call[None]], Awaitable[Response]] = list_models
    return endpoint


def type_of(price: Price) -> str:
    """Return the type of a model: embedding if it is priced for nothing else."""
    return TEXT if price.is_chat_priced else EMBEDDING


def _model(price: Price) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": price.model, "offline": False, "traits": []}
    rates = [(name, price.per_token[meter]) for meter, name in _METERS if meter in price.per_token]
    spec["pricing"] = {name: _tier(rate) for name, rate in rates}
    model: dict[str, Any] = {
        "id": price.model,
        "object": "model",
        "created": price.effective_ms // 1000,
        "owned_by": price.source or "bursar",
        "type": type_of(price),
        "model_spec": spec,
    }
    if price.context_window is not None:
        model["context_length"] = price.context_window
        spec["availableContextTokens"] = price.context_window
    if price.max_output_tokens is not None:
        spec["maxCompletionTokens"] = price.max_output_tokens
    return model


def _tier(rate: int) -> dict[str, Any]:
    """A price per million in both currencies: a DIEM is by definition a USD of credit."""
    usd = msgspec.Raw(format_rate(rate, per=_MILLION).encode())
    return {"usd": usd, "diem": usd}
