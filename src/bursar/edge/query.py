"""Queries: the part of an address behind the question mark, read strictly.

Owns how a parameter becomes a value. A parameter that is unknown or given twice is refused: a
mistyped filter that is ignored answers another question than the one that was asked.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl

from bursar.core import permissions, text
from bursar.core.errors import Invalid, Unreadable
from bursar.edge import fields

_MAX_BYTES: Final = 8_192
_MAX_PARAMETERS: Final = 32
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


class Query:
    """The parameters of one request."""

    __slots__ = ("_pairs",)

    def __init__(self, query_string: bytes) -> None:
        if len(query_string) > _MAX_BYTES:
            raise _unreadable()
        try:
            self._pairs = parse_qsl(
                query_string.decode("ascii"),
                keep_blank_values=True,
                max_num_fields=_MAX_PARAMETERS,
                errors="strict",
            )
        except ValueError:
            raise _unreadable() from None

    @property
    def names(self) -> list[str]:
        """The names that were given, each as often as it was."""
        return [name for name, _ in self._pairs]

    def check(self, allowed: Iterable[str]) -> None:
        """Raise Invalid (`unknown_field`, `duplicate_parameter`) unless each name is known once."""
        known = set(allowed)
        seen: set[str] = set()
        for name, _ in self._pairs:
            if name not in known:
                raise Invalid("unknown_field", "There is no such parameter.", param=name[:64])
            if name in seen:
                raise Invalid("duplicate_parameter", "It may be given only once.", param=name)
            seen.add(name)

    def find(self, name: str) -> str | None:
        """Return the parameter's text, or None."""
        return next((value for given, value in self._pairs if given == name), None)

    def number(self, name: str, *, low: int, high: int, default: int) -> int:
        """Return a whole number between `low` and `high`; raises Invalid (`invalid_value`)."""
        value = self.find(name)
        if value is None:
            return default
        if _NUMBER.fullmatch(value) is None or not low <= int(value) <= high:
            message = f"It must be a whole number from {low} to {high}."
            raise Invalid("invalid_value", message, param=name)
        return int(value)

    def flag(self, name: str) -> bool:
        """Return whether the parameter is `true`; raises Invalid unless it is that or `false`."""
        value = self.find(name)
        if value not in {None, "true", "false"}:
            raise Invalid("invalid_value", "It must be true or false.", param=name)
        return value == "true"

    def id(self, name: str) -> int | None:
        """Return an id, or None if it is not given; raises Invalid (`invalid_value`)."""
        value = self.find(name)
        if value is None:
            return None
        number = fields.find_id(value)
        if number is None:
            raise Invalid("invalid_value", "It must be an id.", param=name)
        return number

    def moment(self, name: str) -> int | None:
        """Return a moment in ms, or None if it is not given; raises Invalid."""
        value = self.find(name)
        return None if value is None else fields.parse_moment(value, param=name)

    def label(self, name: str) -> tuple[str, str | None] | None:
        """Return a label's name and value, of `name=value` or `name`; raises Invalid."""
        value = self.find(name)
        if value is None:
            return None
        label, is_exact, wanted = value.partition("=")
        return permissions.clean_label_name(label, param=name), wanted if is_exact else None

    def name(self, name: str) -> str | None:
        """Return a name, or None if it is not given; raises Invalid as `clean_name` does."""
        value = self.find(name)
        return None if value is None else text.clean_name(value, param=name)


def _unreadable() -> Unreadable:
    return Unreadable("invalid_query", "The query of the address cannot be read.")
