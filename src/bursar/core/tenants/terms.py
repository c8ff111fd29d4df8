"""Terms: the features that an account has, and the currency of its invoices.

Owns what may be written down of them. What a feature means is for whoever asks for it to know:
Bursar keeps names and values. Must not know where they are stored.
"""

import json
import re
from collections.abc import Mapping
from typing import Final, TypeAlias

from bursar.core.errors import Invalid

Feature: TypeAlias = bool | int | str

DEFAULT_CURRENCY: Final = "USD"
MOST_FEATURES: Final = 64
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_CURRENCY: Final = re.compile(r"[A-Z]{3}", re.ASCII)
_TEXT_LENGTH: Final = 255
_MOST: Final = 2**53 - 1


def clean_currency(text: str, *, param: str = "currency") -> str:
    """Return the code of a currency, three capitals as ISO 4217 has them; else Invalid."""
    if _CURRENCY.fullmatch(text) is None:
        raise Invalid("invalid_value", "A currency is a code such as USD or EUR.", param=param)
    return text


def merge_features(
    before: Mapping[str, Feature], given: Mapping[str, object]
) -> dict[str, Feature]:
    """Return the features with the given ones set, or taken away where the value is None.

    A name is lower-case letters, digits and underscores; a value is true or false, a whole number
    that every JSON reader has room for, or a text of at most 255 characters. Raises Invalid
    (`invalid_value`) for anything else, and for more than 64 features.
    """
    found = dict(before)
    for name, value in given.items():
        if _NAME.fullmatch(name) is None:
            raise _refused("A feature's name is lower-case letters, digits and underscores.")
        if value is None:
            found.pop(name, None)
        else:
            found[name] = _value(name, value)
    if len(found) > MOST_FEATURES:
        raise _refused(f"An account has at most {MOST_FEATURES} features.")
    return dict(sorted(found.items()))


def encode_features(features: Mapping[str, Feature]) -> str:
    """Return features as they are stored: one JSON object, its names in order."""
    return json.dumps(features, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def decode_features(stored: str) -> dict[str, Feature]:
    """Return features from what is stored."""
    found: dict[str, Feature] = json.loads(stored)
    return found


def _value(name: str, value: object) -> Feature:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and -_MOST <= value <= _MOST:
        return value
    if isinstance(value, str) and len(value) <= _TEXT_LENGTH and value.isprintable():
        return value
    raise _refused(f"{name} is neither true or false, nor a whole number, nor a short text.")


def _refused(message: str) -> Invalid:
    return Invalid("invalid_value", message, param="features")
