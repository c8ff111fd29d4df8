"""Money is counted, never measured."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.rule import Finding, Rule, each, file
from tests.tidy.sources import Source, walk

# The nouns under which money is computed, in every layer.
MONEY_MODULES = frozenset(
    "allowances bounds charges invoices ledger money pricebook prices purse settlement"
    " transfers".split()
)


def _floats(source: Source) -> Iterator[Finding]:
    if not source.is_under("src/bursar") or source.stem not in MONEY_MODULES:
        return
    seconds = {id(inner) for node in ast.walk(source.tree) for inner in _seconds(node)}
    for name, node in walk(source.tree):
        if id(node) in seconds:
            continue
        if isinstance(node, ast.Name) and node.id == "float":
            yield Finding(source, node.lineno, "float cannot hold a cent", name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield Finding(source, node.lineno, f"{node.value} is a float", name)
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield Finding(source, node.lineno, "/ makes a float: // or round_half_up", name)


def _seconds(node: ast.AST) -> Iterator[ast.AST]:
    """What is given to, or said of, a name that ends in `_s`: seconds may be floats."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            parts = [value]
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            parts = [annotation, *([value] if value else [])]
        case ast.arg(arg=name, annotation=annotation) if annotation:
            parts = [annotation]
        case ast.keyword(arg=str() as name, value=value):
            parts = [value]
        case _:
            return
    if name.lower().endswith("_s"):
        for part in parts:
            yield from ast.walk(part)


RULES = (
    Rule(
        "float_money",
        "0.1 + 0.2 is not 0.3. Amounts are whole nano-USD, prices exact decimals, and there is one"
        " rounding.",
        each(_floats),
        bad=(
            file("src/bursar/core/money.py", "def f(n):\n    return float(n)"),
            file("src/bursar/store/ledger.py", "def f(n: float): ..."),
            file("src/bursar/core/prices.py", "RATE = 0.15"),
            file("src/bursar/service/ledger.py", "def f(a, b):\n    return a / b"),
        ),
        good=(
            file("src/bursar/core/money.py", "def f(a, b):\n    return a // b"),
            file("src/bursar/worker/clocks.py", "TICK = 0.01"),
            file("src/bursar/store/ledger.py", "PAUSE_S = 0.1\ndef f(wait_s: float): ..."),
        ),
    ),
)
