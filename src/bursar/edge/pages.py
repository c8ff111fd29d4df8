"""Pages: cursors into lists that grow while they are read.

Owns the form of a cursor: the position behind the last item of a page, and whose list it is. It is
opaque but not secret, and needs no signature: it is checked strictly, works only on the list that
it was made for, and lists are confined to the caller's account anyway.
"""

import base64
import binascii
import re
from typing import Final

from bursar.core.errors import Invalid

MAX_ITEMS: Final = 1_000
DEFAULT_ITEMS: Final = 100
_FORM: Final = re.compile(r"[A-Za-z0-9_-]{1,800}")


def write(list_name: str, *position: int | str) -> str:
    """Return the cursor behind the item at this position of the named list."""
    text = "\n".join([list_name, *map(str, position)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(cursor: str, list_name: str, *, form: re.Pattern[str]) -> tuple[str, ...]:
    """Return the position as the groups of `form`, which is matched against its lines.

    Raises Invalid (`invalid_cursor`) for anything that `write` has not made for this list.
    """
    if _FORM.fullmatch(cursor):
        try:
            text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        except (binascii.Error, ValueError):
            text = ""
        name, _, position = text.partition("\n")
        match = form.fullmatch(position)
        # A cursor has one spelling: what decodes to the same position otherwise is not ours.
        if name == list_name and match and write(name, position) == cursor:
            return match.groups()
    raise invalid_cursor()


def invalid_cursor() -> Invalid:
    """The refusal of what is no cursor of the list."""
    return Invalid("invalid_cursor", "The cursor is not one of this list.", param="cursor")
