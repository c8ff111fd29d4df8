"""Price lists in YAML, read strictly: a price that is not understood is an error, never a guess.

Owns the file's format. Every complaint names the line and the model. Must not know which prices
are in force.

The document is read as a tree of nodes, not as objects: only nodes have lines, repeated keys, and
the digits of a number as somebody wrote them.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import NoReturn, TypeVar

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bursar.core.errors import Invalid
from bursar.core.prices import TOKEN_METERS, InvalidPrice
from bursar.store import prices
from bursar.store.prices import NewPrice

MAX_BYTES = 5_000_000
_FIELDS = frozenset(
    (
        "model",
        "product",
        "per_million",
        "per_unit",
        "tiers",
        "free",
        "context_window",
        "max_output_tokens",
        "effective",
    )
)
_METER = re.compile(r"[a-z][a-z0-9_]{0,63}")
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
_AMOUNT = re.compile(r"[0-9]{1,16}(\.[0-9]{1,18})?")
_COUNT = re.compile(r"[0-9]{1,15}")
_TAG = "tag:yaml.org,2002:"

T = TypeVar("T")


class _Reader:
    """Reads one file; knows its name and which entry it is at, for complaints."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._entry = ""

    def read(self, text: str, now_ms: int) -> list[NewPrice]:
        root = self._fields(self._compose(text), allowed=frozenset(("prices",)))
        if "prices" not in root:
            self._refuse(None, "it must have a list `prices`")
        entries = self._items(root["prices"])
        offers: dict[tuple[str, str, int], NewPrice] = {}
        for node in entries:
            self._entry = _peek(node)
            offer = self._offer(node, now_ms)
            key = (offer.model, offer.product, offer.effective_ms)
            if key in offers:
                self._refuse(node, "there are two prices for the same moment")
            offers[key] = offer
        return list(offers.values())

    def _compose(self, text: str) -> Node:
        if len(text) > MAX_BYTES:
            self._refuse(None, "it is larger than 5 MB")
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self._refuse(line, f"this is not YAML: {error.problem or 'unreadable'}")
        except (yaml.YAMLError, RecursionError):
            self._refuse(None, "this is not YAML")
        if root is None:
            self._refuse(None, "it is empty")
        return root

    def _offer(self, node: Node, now_ms: int) -> NewPrice:
        fields = self._fields(node, allowed=_FIELDS)
        if ("model" in fields) == ("product" in fields):
            self._refuse(node, "an entry has either a model or a product")
        model = self._optional(fields, "model", self._model, "")
        product = self._optional(fields, "product", self._model, "")
        offer = NewPrice(
            model=model,
            product=product,
            per_million=self._optional(fields, "per_million", self._per_million, {}),
            per_unit=self._optional(fields, "per_unit", self._per_unit, {}),
            tiers=self._optional(fields, "tiers", self._tiers, ()),
            is_free=self._optional(fields, "free", self._flag, False),  # noqa: FBT003
            context_window=self._optional(fields, "context_window", self._count, None),
            max_output_tokens=self._optional(fields, "max_output_tokens", self._count, None),
            effective_ms=self._optional(fields, "effective", self._moment, now_ms),
            source=f"file {self._name}",
        )
        try:
            prices.as_price(0, offer)
        except InvalidPrice as error:
            self._refuse(node, str(error).rstrip("."))
        return offer

    def _optional(
        self, fields: Mapping[str, Node], name: str, read: Callable[[Node], T], default: T
    ) -> T:
        return read(fields[name]) if name in fields else default

    def _model(self, node: Node) -> str:
        name = self._scalar(node, "str", "a name")
        if not _NAME.fullmatch(name):
            self._refuse(node, "a name is 1 to 255 characters without spaces")
        return name

    def _per_million(self, node: Node) -> dict[str, Decimal]:
        return self._amounts(node, is_token=True)

    def _per_unit(self, node: Node) -> dict[str, Decimal]:
        return self._amounts(node, is_token=False)

    def _amounts(self, node: Node, *, is_token: bool) -> dict[str, Decimal]:
        amounts = {}
        for meter, value in self._fields(node, allowed=None).items():
            if not _METER.fullmatch(meter):
                self._refuse(value, f"{meter} is not a meter's name")
            if is_token and meter not in TOKEN_METERS:
                known = ", ".join(sorted(TOKEN_METERS))
                self._refuse(value, f"{meter} is not counted in tokens (those are: {known})")
            if not is_token and meter in TOKEN_METERS:
                self._refuse(value, f"{meter} has a price per_million, not per_unit")
            amounts[meter] = self._amount(value)
        return amounts

    def _amount(self, node: Node) -> Decimal:
        if isinstance(node, ScalarNode) and node.tag == f"{_TAG}float":
            self._refuse(node, f'write the price in quotes: "{node.value}"')
        if not isinstance(node, ScalarNode) or node.tag not in (f"{_TAG}str", f"{_TAG}int"):
            self._refuse(node, "a price is a decimal number in quotes")
        if not _AMOUNT.fullmatch(node.value):
            self._refuse(node, "a price is a plain decimal number that is not negative")
        return Decimal(node.value)

    def _tiers(self, node: Node) -> tuple[tuple[int, Mapping[str, Decimal]], ...]:
        allowed = frozenset(("above_input_tokens", "per_million"))
        tiers = []
        for item in self._items(node):
            fields = self._fields(item, allowed=allowed)
            if fields.keys() != allowed:
                self._refuse(item, "a tier has above_input_tokens and per_million")
            above = self._count(fields["above_input_tokens"])
            tiers.append((above, self._per_million(fields["per_million"])))
        return tuple(tiers)

    def _count(self, node: Node) -> int:
        text = self._scalar(node, "int", "a whole number")
        if not _COUNT.fullmatch(text):
            self._refuse(node, "this must be a whole number, plainly written")
        return int(text)

    def _flag(self, node: Node) -> bool:
        return self._scalar(node, "bool", "true or false").lower() in ("true", "yes", "on")

    def _moment(self, node: Node) -> int:
        is_text = isinstance(node, ScalarNode) and node.tag == f"{_TAG}str"
        text = self._scalar(node, "str" if is_text else "timestamp", "a moment")
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self._refuse(node, "a moment looks like 2026-11-01T00:00:00Z")
        if moment.tzinfo is None:
            self._refuse(node, "a moment needs its time zone: 2026-11-01T00:00:00Z")
        milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000
        return max(0, int(milliseconds))

    def _scalar(self, node: Node, kind: str, words: str) -> str:
        if not isinstance(node, ScalarNode) or node.tag != _TAG + kind:
            self._refuse(node, f"this must be {words}")
        return str(node.value)

    def _items(self, node: Node) -> list[Node]:
        if not isinstance(node, SequenceNode):
            self._refuse(node, "this must be a list")
        return list(node.value)

    def _fields(self, node: Node, *, allowed: frozenset[str] | None) -> dict[str, Node]:
        if not isinstance(node, MappingNode):
            self._refuse(node, "this must be names with values")
        fields: dict[str, Node] = {}
        for key, value in node.value:
            name = self._scalar(key, "str", "a name")
            if name in fields:
                self._refuse(key, f"{name} stands here twice")
            if allowed is not None and name not in allowed:
                self._refuse(key, f"{name} is not known (known are: {', '.join(sorted(allowed))})")
            fields[name] = value
        return fields

    def _refuse(self, where: Node | int | None, problem: str) -> NoReturn:
        line = where.start_mark.line + 1 if isinstance(where, Node) else where
        place = self._name if line is None else f"{self._name}, line {line}"
        entry = f", {self._entry}" if self._entry else ""
        raise Invalid("invalid_price_file", f"{place}{entry}: {problem}.")


def _peek(entry: Node) -> str:
    """The entry's name, for complaints about it, before anything else of it is read."""
    for key, value in entry.value if isinstance(entry, MappingNode) else ():
        if key.value in ("model", "product") and isinstance(value, ScalarNode):
            return str(value.value)[:255]
    return ""


def parse(text: str, *, name: str, now_ms: int) -> list[NewPrice]:
    """Return the prices that the file lists; those without a moment take effect now.

    Raises Invalid (`invalid_price_file`): one sentence with the file, the line and the model.
    """
    return _Reader(name).read(text, now_ms)
