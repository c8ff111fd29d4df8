"""Names that say something, and sentences where a name cannot say enough."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import PurePosixPath

from tests.tidy.rule import Finding, Rule, each, file
from tests.tidy.sources import Function, Source, dotted_name

VAGUE = frozenset(
    "base bases common commons helper helpers manager managers misc stuff tool tools util utility"
    " utils".split()
)


def _vague(source: Source) -> Iterator[Finding]:
    if not source.is_python or not source.is_under("src", "tests", "bench", "scripts"):
        return
    for part in PurePosixPath(source.path).parts:
        words = set(part.removesuffix(".py").split("_"))
        for word in sorted(words & VAGUE):
            yield Finding(source, 1, f"'{word}' says nothing of what is in {part}")


def _module_docstrings(source: Source) -> Iterator[Finding]:
    if source.is_python and not (ast.get_docstring(source.tree) or "").strip():
        yield Finding(source, 1, "no module docstring")


def _public_docstrings(source: Source) -> Iterator[Finding]:
    """Methods are left to judgement: a twin of a port need not repeat the port."""
    if not source.is_under("src"):
        return
    for node in source.tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if _is_overload(node) or (ast.get_docstring(node) or "").strip():
            continue
        yield Finding(source, node.lineno, f"{node.name} has no docstring", node.name)


def _is_overload(node: Function | ast.ClassDef) -> bool:
    return any(dotted_name(mark).endswith("overload") for mark in node.decorator_list)


RULES = (
    Rule(
        "vague_names",
        "A file called utils is where things go that nobody has understood. Name what it owns.",
        each(_vague),
        bad=(
            file("src/bursar/store/utils.py", ""),
            file("src/bursar/common/a.py", ""),
            file("tests/key_helpers.py", ""),
        ),
        good=(file("src/bursar/core/base62.py", ""), file("src/bursar/store/keys.py", "")),
    ),
    Rule(
        "module_docstrings",
        "The first lines of a file say what it owns and what it must not know, so that a reader"
        " can leave again.",
        each(_module_docstrings),
        bad=(file("src/bursar/a.py", "x = 1"), file("tests/test_a.py", '""" """')),
        good=(file("src/bursar/a.py", '"""Owns x."""\nx = 1'), file("docs/a.md", "")),
    ),
    Rule(
        "public_docstrings",
        "What others call is described by one sentence, its units, guarantees and errors.",
        each(_public_docstrings),
        bad=(
            file("src/bursar/a.py", "def f(): ..."),
            file("src/bursar/a.py", "async def f(): ..."),
            file("src/bursar/a.py", "class C: ..."),
        ),
        good=(
            file("src/bursar/a.py", 'def f():\n    """Do it."""'),
            file("src/bursar/a.py", "def _f(): ..."),
            file("src/bursar/a.py", "@typing.overload\ndef f(): ..."),
        ),
    ),
)
