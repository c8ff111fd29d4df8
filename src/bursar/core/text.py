"""Text that people give to things.

Owns which characters and lengths a name may have. Names are kept as given, never escaped or
normalised: escaping is the duty of each place that shows them. Must not know what is named.
"""

import re
import unicodedata

from bursar.core.errors import Invalid

MODEL_LENGTH = 200

# Controls, surrogates, private use, unassigned, and line and paragraph separators.
_REFUSED_CATEGORIES = frozenset(("Cc", "Cs", "Co", "Cn", "Zl", "Zp"))
# Embeddings, overrides and isolates change how the text around a name reads.
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")
# Letters and symbols by category that nevertheless draw nothing.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_BLANK_CATEGORIES = frozenset(("Zs", "Cf"))


def clean_name(value: str, *, max_len: int = 255, param: str = "name") -> str:
    """Return a name without the spaces around it.

    `max_len` counts code points as given (at most four bytes each). Raises Invalid for
    `param`: `name_too_long`, `invalid_characters` (controls, line breaks, direction overrides,
    surrogates, private or unassigned code points), or `invalid_name` when nothing shows.
    """
    if len(value) > max_len:
        raise Invalid("name_too_long", f"At most {max_len} characters.", param=param)
    if not value.isascii() or not value.isprintable():
        _require_allowed(value, param)
    name = value.strip()
    if all(_is_blank(character) for character in name):
        raise Invalid("invalid_name", "It must not be empty.", param=param)
    return name


def is_model_name(value: str) -> bool:
    """Whether a model may be called so: 1 to 200 printable characters without spaces."""
    return 1 <= len(value) <= MODEL_LENGTH and value.isprintable() and " " not in value


def _require_allowed(value: str, param: str) -> None:
    refused = _DIRECTION.search(value) is not None or any(
        unicodedata.category(character) in _REFUSED_CATEGORIES for character in value
    )
    if refused:
        message = "Control characters, line breaks and the like are not allowed."
        raise Invalid("invalid_characters", message, param=param)


def _is_blank(character: str) -> bool:
    return (
        unicodedata.category(character) in _BLANK_CATEGORIES
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
        or character in _INVISIBLE
    )
