"""Where the world may not come in: the core, the critical sections, the life of a module."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator

from tests.tidy.rule import Finding, Rule, each, file
from tests.tidy.sources import Source, called_name, dotted_name, imported_modules, walk

# ── The core ────────────────────────────────────────────────────────────────────────────────────

WORLDLY_MODULES = frozenset(
    "asyncio concurrent contextvars ctypes getpass glob http io locale logging multiprocessing os"
    " pathlib platform queue random secrets select selectors shutil signal socket sqlite3 ssl"
    " subprocess sys tempfile threading time urllib uuid".split()
)
WORLDLY_CALLS = frozenset({
    *("open", "print", "input", "exec", "eval"),
    *("date.today", "datetime.now", "datetime.today", "datetime.utcnow"),
})  # fmt: skip


def _core(source: Source) -> Iterator[Finding]:
    if source.package != "core":
        return
    for line, module in imported_modules(source.tree):
        top = module.partition(".")[0]
        if top == "bursar" and not module.startswith("bursar.core"):
            yield Finding(source, line, f"the core knows nobody else, but imports {module}")
        elif top != "bursar" and top not in sys.stdlib_module_names:
            yield Finding(source, line, f"standard library only, but imports {module}")
        elif top in WORLDLY_MODULES:
            yield Finding(source, line, f"{top} is the world outside: hand its answer in")
    for name, node in walk(source.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield Finding(source, node.lineno, "the core does not wait", name)
        if isinstance(node, ast.Call):
            called = ".".join(dotted_name(node.func).split(".")[-2:])
            if called in WORLDLY_CALLS:
                yield Finding(source, node.lineno, f"{called} is the world outside", name)


# ── Critical sections ───────────────────────────────────────────────────────────────────────────

_CRITICAL = re.compile(r"src/bursar/worker/(purse|admission)(\.py$|/)")


def _critical(source: Source) -> Iterator[Finding]:
    if not _CRITICAL.match(source.path):
        return
    for name, node in walk(source.tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield Finding(source, node.lineno, "a critical section never suspends", name)


# ── The state of a module ───────────────────────────────────────────────────────────────────────

_CONTAINERS = frozenset(
    "list dict set bytearray defaultdict deque Counter OrderedDict WeakValueDictionary".split()
)
_MUTATORS = frozenset(
    "append add update setdefault pop popitem popleft appendleft extend insert remove discard clear"
    " sort reverse".split()
)
_CONSTANT_NAME = re.compile(r"_?[A-Z][A-Z0-9_]*$|__\w+__$")


def _module_state(source: Source) -> Iterator[Finding]:
    """A mutable at module level is a table when it is named like one, filled, and left alone."""
    if not source.is_under("src"):
        return
    names = set()
    for statement in _statements(source.tree.body):
        for target, value in _assignments(statement):
            if not _is_container(value):
                continue
            names.add(target)
            if not _CONSTANT_NAME.match(target):
                yield Finding(source, statement.lineno, f"{target} is mutable: name it a CONSTANT")
            elif _is_empty(value):
                yield Finding(source, statement.lineno, f"{target} is empty: who would fill it?")
    for name, node in walk(source.tree):
        if isinstance(node, ast.Global):
            yield Finding(source, node.lineno, f"global {', '.join(node.names)}", name)
        elif name:
            for changed in sorted(_changed(node) & names):
                yield Finding(source, node.lineno, f"{changed} is changed after import", name)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run at import, those under `if` and `try` too."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if not isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from _statements(getattr(statement, part, []))


def _assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        if statement.value is not None:
            yield statement.target.id, statement.value


def _is_container(value: ast.expr) -> bool:
    displays = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
    return isinstance(value, displays) or (
        isinstance(value, ast.Call) and called_name(value) in _CONTAINERS
    )


def _is_empty(value: ast.expr) -> bool:
    match value:
        case ast.List(elts=parts) | ast.Set(elts=parts) | ast.Dict(keys=parts):
            return not parts
        case ast.Call(args=arguments, keywords=keywords):
            return not arguments and not keywords
    return False


def _changed(node: ast.AST) -> set[str]:
    """The plain names whose contents `node` changes."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)):
            return {name} if attr in _MUTATORS else set()
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            pass
        case ast.AugAssign(target=target):
            targets = [target]
        case _:
            return set()
    inner = [target.value for target in targets if isinstance(target, ast.Subscript)]
    return {value.id for value in inner if isinstance(value, ast.Name)}


RULES = (
    Rule(
        "core_purity",
        "What the core decides must be the same tomorrow, on another machine and in a simulation:"
        " time, chance, files and other tasks are arguments.",
        each(_core),
        bad=(
            file("src/bursar/core/a.py", "import time"),
            file("src/bursar/core/a.py", "from os import environ"),
            file("src/bursar/core/a.py", "import pydantic"),
            file("src/bursar/core/a.py", "from bursar.store import keys"),
            file("src/bursar/core/a.py", "import datetime as d\nd.datetime.now(d.UTC)"),
            file("src/bursar/core/a.py", "async def f(): ..."),
        ),
        good=(
            file("src/bursar/core/a.py", "from datetime import datetime\nimport zoneinfo"),
            file("src/bursar/core/a.py", "from bursar.core.money import format_usd"),
            file("src/bursar/worker/a.py", "import time"),
        ),
    ),
    Rule(
        "critical_sections",
        "A plain function is the lock: while it runs, no other request can. One await would let"
        " two requests spend the same credit.",
        each(_critical),
        bad=(
            file("src/bursar/worker/purse.py", "class Purse:\n    async def hold(self): ..."),
            file("src/bursar/worker/admission.py", "async def admit(): ..."),
            file("src/bursar/worker/purse/slices.py", "async def take(): ..."),
        ),
        good=(
            file("src/bursar/worker/purse.py", "class Purse:\n    def hold(self): ..."),
            file("src/bursar/worker/leasing.py", "async def refill(): ..."),
        ),
    ),
    Rule(
        "module_state",
        "State belongs to an object that somebody makes and ends. State in a module is shared by"
        " tests, by applications in one process, and by nobody's leave.",
        each(_module_state),
        bad=(
            file("src/bursar/a.py", "handlers = ['x']"),
            file("src/bursar/a.py", "CACHE = {}"),
            file("src/bursar/a.py", "CACHE: dict[str, int] = dict()"),
            file("src/bursar/a.py", "if True:\n    SEEN = set()"),
            file("src/bursar/a.py", "T = {'a': 1}\ndef f():\n    T['b'] = 2"),
            file("src/bursar/a.py", "T = ['a']\nclass C:\n    def f(self):\n        T.append('b')"),
            file("src/bursar/a.py", "n = 0\ndef f():\n    global n\n    n = 1"),
        ),
        good=(
            file("src/bursar/a.py", "CODES = {'a': 1}\n__all__ = ['CODES']"),
            file("src/bursar/a.py", "SQUARES = [n * n for n in range(9)]"),
            file("src/bursar/a.py", "T = ['a']\ndef f():\n    t = []\n    t.append(T[0])"),
            file("src/bursar/a.py", "class C:\n    def __init__(self):\n        self.t = {}"),
        ),
    ),
)
