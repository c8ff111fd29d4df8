"""What is sent to the database is written down, not put together."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.tidy.rule import Finding, Rule, each, file
from tests.tidy.sources import Source, called_name, walk

# Calls whose first argument is SQL text: it must be a constant.
TEXT_CALLS = frozenset(
    "text literal_column exec_driver_sql executescript prepare fetch fetchrow fetchval fetchmany"
    " copy_from_query".split()
)
# Calls that take a statement object, or a text that was chosen elsewhere: it must not be made.
STATEMENT_CALLS = frozenset(
    "driver execute executemany scalar scalars stream stream_scalars".split()
)

_CONSTANT_NAME = re.compile(r"_?[A-Z][A-Z0-9_]*$")
_SQL_START = re.compile(
    r"\s*(SELECT\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\b"
    r"|CREATE\s+(OR\s+REPLACE\s+)?(TEMP\s+|UNIQUE\s+)?(TABLE|INDEX|VIEW|TRIGGER|FUNCTION|ROLE)\s"
    r"|ALTER\s+(TABLE|ROLE)\s|DROP\s+(TABLE|INDEX|VIEW|TRIGGER|FUNCTION)\s|TRUNCATE\s|PRAGMA\s"
    r"|SET\s+(LOCAL|SESSION)\s|NOTIFY\s|LISTEN\s|VACUUM\s)"
)


def _built_sql(source: Source) -> Iterator[Finding]:
    if not source.is_under("src"):
        return
    texts = _Texts(source.tree)
    for name, node in walk(source.tree):
        if isinstance(node, ast.Call) and node.args and source.package == "store":
            called, first = called_name(node), node.args[0]
            if called in TEXT_CALLS and not texts.is_constant(first):
                yield Finding(source, node.lineno, f"{called}() takes a constant", name)
            elif called in STATEMENT_CALLS and (texts.is_built(first) or texts.was_built(first)):
                yield Finding(source, node.lineno, f"{called}() of text put together here", name)
        if isinstance(node, ast.expr) and texts.is_built(node):
            if _SQL_START.match(_beginning(node)):
                yield Finding(source, node.lineno, "SQL put together from parts", name)


class _Texts:
    """What is constant in one file."""

    def __init__(self, tree: ast.Module) -> None:
        self._loop_names: set[str] = set()
        self._built_names: set[str] = set()
        loops = [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.comprehension)]
        # A name that runs over constants is one; outer loops come first in the walk.
        for loop in loops:
            if isinstance(loop.target, ast.Name) and self._is_row_of_constants(loop.iter):
                self._loop_names.add(loop.target.id)
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.is_built(value):
                    self._built_names.add(name)
                case ast.AugAssign(target=ast.Name(id=name), op=ast.Add()):
                    self._built_names.add(name)

    def is_constant(self, node: ast.expr) -> bool:
        """A literal, a CONSTANT, an entry of one, a choice between such, or a sum of them."""
        match node:
            case ast.Constant(value=str()):
                return True
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return bool(_CONSTANT_NAME.match(name)) or name in self._loop_names
            case ast.Subscript(value=inner) | ast.FormattedValue(value=inner):
                return self.is_constant(inner)
            case ast.Call(func=ast.Attribute(value=inner, attr="upper" | "lower"), args=[]):
                return self.is_constant(inner)
            case ast.JoinedStr(values=parts):
                return all(map(self.is_constant, parts))
            case ast.BinOp(left=one, op=ast.Add(), right=other):
                return self.is_constant(one) and self.is_constant(other)
            case ast.IfExp(body=one, orelse=other):
                return self.is_constant(one) and self.is_constant(other)
        return False

    def is_built(self, node: ast.expr) -> bool:
        """Text that is made when the line runs, of parts that are not all constants."""
        match node:
            case ast.JoinedStr():
                return not self.is_constant(node)
            case ast.BinOp(left=left, op=ast.Add() | ast.Mod()):
                return self._is_text(left) and not self.is_constant(node)
            case ast.Call(func=ast.Attribute(attr="format" | "join" | "replace", value=value)):
                return self._is_text(value)
        return False

    def was_built(self, node: ast.expr) -> bool:
        """A name that is somewhere given such a text."""
        return isinstance(node, ast.Name) and node.id in self._built_names

    def _is_text(self, node: ast.expr) -> bool:
        return isinstance(node, ast.JoinedStr) or self.is_built(node) or _beginning(node) != ""

    def _is_row_of_constants(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Tuple | ast.List):
            return all(map(self.is_constant, node.elts))
        return self.is_constant(node)


def _beginning(node: ast.expr) -> str:
    """The literal text that `node` starts with; "" if it starts with something else."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=[first, *_]):
            return _beginning(first)
        case ast.BinOp(left=left):
            return _beginning(left)
        case ast.Call(func=ast.Attribute(value=value)):
            return _beginning(value)
    return ""


RULES = (
    Rule(
        "built_sql",
        "SQL that is put together from parts is one careless part away from an injection, and"
        " nobody can read what is sent. Bind values; keep texts as constants.",
        each(_built_sql),
        bad=(
            file("src/bursar/store/a.py", "async def f(c, n):\n    await c.execute(f'x {n}')"),
            file("src/bursar/store/a.py", "def f(c, n):\n    c.execute('DELETE FROM ' + n)"),
            file("src/bursar/store/a.py", "def f(c, n):\n    c.execute('x %s' % n)"),
            file("src/bursar/store/a.py", "def f(c, n):\n    c.execute('x {}'.format(n))"),
            file("src/bursar/store/a.py", "def f(sql):\n    return sa.text(sql)"),
            file("src/bursar/store/a.py", "def f(c, sql):\n    return c.fetchrow(sql, 1)"),
            file("src/bursar/store/a.py", "def f(n):\n    q = f'SELECT a FROM {n}'\n    return q"),
            file("src/bursar/store/a.py", "def f(tx, a):\n    tx.driver(f'x {a}')"),
            file("src/bursar/store/a.py", "def f(tx, a):\n    q = ' '.join(a)\n    tx.driver(q)"),
            file("src/bursar/store/a.py", "def f(tx, a):\n    q = A\n    q += a\n    tx.driver(q)"),
            file("src/bursar/store/a.py", "for t in names():\n    op.execute(f'DROP TABLE {t}')"),
            file("src/bursar/api/a.py", "def f(n):\n    return 'UPDATE x SET a = ' + n"),
            file("src/bursar/store/a.py", "def f(t):\n    return 'SELECT {}'.format(t)"),
        ),
        good=(
            file("src/bursar/store/a.py", "S = 'SELECT 1'\ndef f(c):\n    c.execute(sa.text(S))"),
            file("src/bursar/store/a.py", "A = 'a'\nS = f'SELECT {A}' + A\n"),
            file("src/bursar/store/a.py", "def f(c, d, n):\n    c.fetchrow(SETTLE[d], n)"),
            file("src/bursar/store/a.py", "def f(c, n):\n    c.execute(select(t).where(t.n == n))"),
            file("src/bursar/store/a.py", "for t in TABLES:\n    op.execute(f'DROP TABLE {t}')"),
            file("src/bursar/store/a.py", "def f(tx, pair):\n    tx.driver(pair[0])"),
            file("src/bursar/store/a.py", "def f(c, w):\n    c.driver('B X' if w else 'B')"),
            file("src/bursar/store/a.py", "def f(n):\n    raise E(f'no such key: {n}')"),
            file("src/bursar/store/a.py", "def f(cursor):\n    return cursor.fetchmany()"),
        ),
    ),
)
