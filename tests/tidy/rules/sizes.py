"""How long things may get before they are two things."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.tidy.rule import Finding, Rule, each, file
from tests.tidy.sources import Source, functions

MODULE_LINES = 400
TEST_LINES = 600
FUNCTION_LINES = 60
PACKAGE_MODULES = 12


def _modules(source: Source) -> Iterator[Finding]:
    if source.is_python and source.is_under("src", "bench", "scripts"):
        yield from _longer_than(MODULE_LINES, source)


def _tests(source: Source) -> Iterator[Finding]:
    if source.is_python and source.is_under("tests"):
        yield from _longer_than(TEST_LINES, source)


def _longer_than(most: int, source: Source) -> Iterator[Finding]:
    count = len(source.lines)
    if count > most:
        yield Finding(source, count, f"{count} lines, at most {most}")


def _functions(source: Source) -> Iterator[Finding]:
    if not source.is_under("src", "bench", "scripts"):
        return
    for name, node in functions(source.tree):
        count = (node.end_lineno or node.lineno) - node.lineno + 1
        if count > FUNCTION_LINES:
            yield Finding(
                source, node.lineno, f"{name} has {count} lines, at most {FUNCTION_LINES}", name
            )


def _packages(tree: Sequence[Source]) -> Iterator[Finding]:
    """Migrations are a history, not a package: they only grow."""
    modules = [
        source
        for source in tree
        if source.is_python and source.is_under("src") and source.stem != "__init__"
    ]
    counts = Counter(source.folder for source in modules)
    for folder, count in sorted(counts.items()):
        if count > PACKAGE_MODULES and not folder.endswith("/migrations/versions"):
            first = next(source for source in modules if source.folder == folder)
            message = f"{folder} has {count} modules, at most {PACKAGE_MODULES}"
            yield Finding(first, 1, message)


def _package(folder: str, count: int) -> tuple[Source, ...]:
    return tuple(Source(f"{folder}/m{number}.py", "") for number in range(count))


def _function(lines: int) -> str:
    return "class A:\n    def f(self):\n" + "        x = 1\n" * (lines - 1)


RULES = (
    Rule(
        "module_length",
        "A file is read from top to bottom in one sitting. Split it by what its parts own.",
        each(_modules),
        bad=(file("src/bursar/a.py", "x = 1\n" * 401), file("bench/a.py", "x = 1\n" * 401)),
        good=(file("src/bursar/a.py", "x = 1\n" * 400), file("docs/a.md", "x\n" * 401)),
    ),
    Rule(
        "test_length",
        "A test file holds one subject to its word. Split it by guarantee.",
        each(_tests),
        bad=(file("tests/core/test_a.py", "x = 1\n" * 601),),
        good=(file("tests/core/test_a.py", "x = 1\n" * 600),),
    ),
    Rule(
        "function_length",
        "A function that does not fit on a screen does several things. Name them.",
        each(_functions),
        bad=(file("src/bursar/a.py", _function(61)),),
        good=(file("src/bursar/a.py", _function(60)),),
    ),
    Rule(
        "package_size",
        "A package with more modules than one can list is two packages.",
        _packages,
        bad=(_package("src/bursar/store", 13),),
        good=(
            (*_package("src/bursar/store", 12), Source("src/bursar/store/__init__.py", "")),
            _package("src/bursar/store/migrations/versions", 40),
        ),
    ),
)
