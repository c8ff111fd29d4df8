"""Bodies: strict JSON of bounded size, checked against a model.

Owns what a body may look like before its fields mean anything. Must not know any field. The
framework's own parser is not used: it takes NaN, duplicate names and floats.
"""

from collections.abc import AsyncIterator
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import Headers

from bursar.core import strictjson
from bursar.core.errors import Invalid, Unreadable

_MAX_SHOWN: Final = 64


class Model(BaseModel):
    """A body's fields: exactly these, each of exactly its type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


M = TypeVar("M", bound=Model)


async def read(headers: Headers, stream: AsyncIterator[bytes], *, max_bytes: int) -> bytes:
    """Return a JSON request's body, unparsed.

    Raises Unreadable: `unsupported_media_type` unless it is declared as plain JSON in UTF-8, and
    `body_too_large` beyond `max_bytes`, by what it declares or while it arrives.
    """
    _check_media_type(headers)
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) > max_bytes:
        raise _too_large(max_bytes)
    received = bytearray()
    async for part in stream:
        received += part
        if len(received) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(received)


def parse(body: bytes) -> dict[str, object]:
    """Return the object that a body is; raises Unreadable (`invalid_json`, `duplicate_key`)."""
    document = strictjson.loads(body)
    if not isinstance(document, dict):
        raise Unreadable("invalid_json", "The body must be a JSON object.")
    return document


def check(model: type[M], document: dict[str, object]) -> M:
    """Return the document as its model.

    Raises Invalid for the field at fault: `unknown_field`, `missing_field`, `invalid_value`, or
    what the field's own type says.
    """
    known = {field.alias or name for name, field in model.model_fields.items()}
    for name in document:
        if name not in known:
            shown = name[:_MAX_SHOWN]
            raise Invalid("unknown_field", "There is no such field here.", param=shown)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"])[:_MAX_SHOWN]
        if first["type"] == "missing":
            raise Invalid("missing_field", "This field is required.", param=param) from None
        if first["type"] == "extra_forbidden":
            raise Invalid("unknown_field", "There is no such field here.", param=param) from None
        raise Invalid("invalid_value", f"{first['msg']}.", param=param) from None


def _check_media_type(headers: Headers) -> None:
    kinds = headers.getlist("content-type")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if len(kinds) != 1 or encoding != "identity":
        raise _unsupported()
    kind, _, parameters = kinds[0].partition(";")
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if kind.strip().lower() != "application/json" or charset not in {"", "charset=utf-8"}:
        raise _unsupported()


def _unsupported() -> Unreadable:
    message = "Send JSON in UTF-8, uncompressed, as content-type: application/json."
    return Unreadable("unsupported_media_type", message)


def _too_large(max_bytes: int) -> Unreadable:
    return Unreadable("body_too_large", f"A body may have at most {max_bytes} bytes.")
