"""Strict JSON for the control API: what every reader would understand alike, or a refusal.

Owns the one way in which a body becomes values. Numbers become int or Decimal, never float.
Must not know fields or HTTP. The time is linear in the body, whose size the caller caps.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import NoReturn

from bursar.core.errors import Unreadable

_MAX_NUMBER_LENGTH = 400
_MAX_MAGNITUDE = 1000
# Strings are passed over whole, so that brackets inside them do not count. Possessive, and
# content with a missing end, so that no input is read twice.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
# Escaped backslashes and well-paired surrogates are taken out first; what is left is alone.
_PAIRED = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}",
)
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def loads(body: bytes, max_depth: int = 32) -> object:
    """Return the value of a JSON document in UTF-8.

    Raises Unreadable: `duplicate_key` for a name that occurs twice in one object, else
    `invalid_json` (syntax, encoding, byte order mark, NaN and infinities, half a surrogate
    pair, numbers beyond 400 digits, arrays and objects nested deeper than `max_depth`).
    """
    if _is_too_deep(body, max_depth):
        raise _invalid(f"it is nested deeper than {max_depth} levels")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid("it is not UTF-8") from error
    if "\\u" in text and _LONE_SURROGATE.search(_PAIRED.sub(" ", text)):
        raise _invalid("it has half of a surrogate pair")
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _invalid(f"line {error.lineno} column {error.colno}") from error


def _is_too_deep(body: bytes, max_depth: int) -> bool:
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return False
    depth = 0
    for bracket in _STRINGS.sub(b"", body).translate(None, _NOT_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > max_depth:
                return True
        else:
            depth -= 1
    return False


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("duplicate_key", "The body has a name twice in one object.")
    return found


def _int(digits: str) -> int:
    if len(digits) > _MAX_NUMBER_LENGTH:
        raise _invalid("a number is too long")
    return int(digits)


def _decimal(digits: str) -> Decimal:
    # A caller may write the number out, so its magnitude is bounded as well as its length.
    if len(digits) <= _MAX_NUMBER_LENGTH:
        try:
            number = Decimal(digits)
        except InvalidOperation:
            raise _invalid("a number is too large") from None
        if number.is_finite() and abs(number.adjusted()) <= _MAX_MAGNITUDE:
            return number
    raise _invalid("a number is too long or too large")


def _constant(name: str) -> NoReturn:
    raise _invalid(f"{name} is not JSON")


def _invalid(why: str) -> Unreadable:
    return Unreadable("invalid_json", f"The body is not valid JSON: {why}.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_int, parse_float=_decimal, parse_constant=_constant
)
