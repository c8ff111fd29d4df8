"""How the product may fail: as a value, as one of our errors, never by accident or in silence."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.tidy.rule import Finding, Rule, each, file
from tests.tidy.sources import Source, called_name, dotted_name, walk

_BROAD = ("Exception", "BaseException")


def _asserts(source: Source) -> Iterator[Finding]:
    if source.is_under("src"):
        for name, node in walk(source.tree):
            if isinstance(node, ast.Assert):
                yield Finding(source, node.lineno, "assert in the product", name)


def _broad_excepts(source: Source) -> Iterator[Finding]:
    """A handler that cleans up and raises again swallows nothing, so it may be broad."""
    if not source.is_under("src"):
        return
    for name, node in walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
            if not _raises_again(node):
                yield Finding(source, node.lineno, "catches everything", name)
        elif isinstance(node, ast.Call) and called_name(node) == "suppress":
            if any(_is_broad(argument) for argument in node.args):
                yield Finding(source, node.lineno, "suppresses everything", name)


def _is_broad(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Tuple):
        return any(_is_broad(part) for part in node.elts)
    return node is None or dotted_name(node).rpartition(".")[2] in _BROAD


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _prints(source: Source) -> Iterator[Finding]:
    if not source.is_under("src") or source.package == "cli":
        return
    for name, node in walk(source.tree):
        if isinstance(node, ast.Call) and dotted_name(node.func) == "print":
            yield Finding(source, node.lineno, "print outside the command line", name)


def _unfinished(source: Source) -> Iterator[Finding]:
    if not source.is_under("src"):
        return
    for name, node in walk(source.tree):
        if isinstance(node, ast.Name) and node.id in ("NotImplementedError", "NotImplemented"):
            yield Finding(source, node.lineno, f"{node.id}: not there yet, or not needed?", name)


def _error_tree(source: Source) -> Iterator[Finding]:
    if not source.is_under("src") or source.stem != "errors":
        return
    drawn = ast.get_docstring(source.tree) or ""
    raised = set(_BROAD)
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and any(
            dotted_name(parent) in raised or dotted_name(parent).endswith("Error")
            for parent in node.bases
        ):
            raised.add(node.name)
            if node.name not in drawn:
                yield Finding(source, node.lineno, f"{node.name} is not drawn in the docstring")


RULES = (
    Rule(
        "asserts_in_the_product",
        "`python -O` removes asserts, and with them whatever they guarded. Raise an error.",
        each(_asserts),
        bad=(file("src/bursar/a.py", "def f(n):\n    assert n > 0"),),
        good=(file("tests/test_a.py", "def test_a():\n    assert True"),),
    ),
    Rule(
        "broad_excepts",
        "A handler for everything hides the error that nobody thought of. Catch what you can"
        " answer; let the rest reach the edge, which logs it once. Edges and the worker's loops"
        " are listed in exceptions.py.",
        each(_broad_excepts),
        bad=(
            file("src/bursar/a.py", "try:\n    f()\nexcept Exception:\n    pass"),
            file("src/bursar/a.py", "try:\n    f()\nexcept:\n    pass"),
            file(
                "src/bursar/a.py", "try:\n    f()\nexcept (OSError, BaseException) as e:\n    g(e)"
            ),
            file("src/bursar/a.py", "with contextlib.suppress(Exception):\n    f()"),
        ),
        good=(
            file("src/bursar/a.py", "try:\n    f()\nexcept OSError:\n    pass"),
            file("src/bursar/a.py", "try:\n    f()\nexcept BaseException:\n    g()\n    raise"),
        ),
    ),
    Rule(
        "prints",
        "A server's words go through telemetry, where they have a name, a level and no secrets.",
        each(_prints),
        bad=(file("src/bursar/worker/a.py", "print('x')"),),
        good=(file("src/bursar/cli/a.py", "print('x')"), file("bench/a.py", "print('x')")),
    ),
    Rule(
        "unfinished_code",
        "What is on main works. A port is a Protocol; what is not needed yet is not there yet.",
        each(_unfinished),
        bad=(file("src/bursar/a.py", "def f():\n    raise NotImplementedError"),),
        good=(file("src/bursar/a.py", "class P(Protocol):\n    def f(self): ..."),),
    ),
    Rule(
        "error_tree",
        "The tree of errors is drawn at the top of its file, whole, for whoever writes a handler.",
        each(_error_tree),
        bad=(
            file("src/bursar/core/errors.py", '"""Errors: Lost."""\nclass Found(Exception): ...'),
        ),
        good=(
            file("src/bursar/core/errors.py", '"""Errors: Lost."""\nclass Lost(Exception): ...'),
        ),
    ),
)
