"""The labels that a caller puts on one call, in the header `x-bursar-labels`.

Owns how the header is read. Must not know which labels a key allows.
"""

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from bursar.core import permissions
from bursar.core.errors import Invalid, Unreadable

HEADER: Final = b"x-bursar-labels"
PARAM: Final = HEADER.decode("ascii")
# Sixteen labels of full length, every byte of their values written as %XX.
_MOST_BYTES: Final = 16_384
_SPACE: Final = b" \t"


def read(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the labels of a call, by name: `team=search, feature=x`; none without the header.

    Values are percent-decoded UTF-8, so that one can have a comma. Several such headers count as
    one. Raises Unreadable (`invalid_label`) for anything else, and for a name that comes twice.
    """
    values = [value for name, value in headers if name == HEADER]
    if sum(map(len, values)) > _MOST_BYTES:
        raise _malformed(f"The labels have more than {_MOST_BYTES} bytes.")
    found: dict[str, str] = {}
    for part in b",".join(values).split(b","):
        item = part.strip(_SPACE)
        if item:
            name, value = _label(item)
            if name in found:
                raise _malformed(f"The label {name} comes twice.")
            found[name] = value
    try:
        return permissions.clean_labels(found, param=PARAM)
    except Invalid as error:
        raise _malformed(error.message) from None


def _label(item: bytes) -> tuple[str, str]:
    name, separator, value = (part.strip(_SPACE) for part in item.partition(b"="))
    if not separator or not item.isascii():
        raise _malformed("Labels are written name=value, with commas between them.")
    try:
        text = _decode(value)
        return permissions.clean_label_name(name.decode("ascii"), param=PARAM), text
    except UnicodeDecodeError:
        raise _malformed("A label's value is percent-encoded UTF-8.") from None
    except Invalid as error:
        raise _malformed(error.message) from None


def _decode(value: bytes) -> str:
    parts: Sequence[bytes] = value.split(b"%")
    if any(not _is_escape(part[:2]) for part in parts[1:]):
        raise _malformed("In a label's value % begins an escape of two hexadecimal digits.")
    return unquote_to_bytes(value).decode("utf-8")


def _is_escape(digits: bytes) -> bool:
    return len(digits) == 2 and all(digit in b"0123456789abcdefABCDEF" for digit in digits)


def _malformed(message: str) -> Unreadable:
    return Unreadable("invalid_label", message, param=PARAM)
