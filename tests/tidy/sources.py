"""The repository's files as the house rules see them.

Owns reading and walking; it must not know any rule.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TypeAlias

ROOT = Path(__file__).parents[2]

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One text file; `path` is relative to the repository, with slashes."""

    path: str
    text: str
    tree: ast.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tree = ast.parse(self.text, self.path) if self.is_python else ast.Module([], [])
        object.__setattr__(self, "tree", tree)

    @property
    def is_python(self) -> bool:
        """Whether the rules about code apply."""
        return self.path.endswith(".py")

    @property
    def folder(self) -> str:
        """The folder's path."""
        return str(PurePosixPath(self.path).parent)

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return PurePosixPath(self.path).stem

    @property
    def lines(self) -> list[str]:
        """The text by lines."""
        return self.text.splitlines()

    def is_under(self, *folders: str) -> bool:
        """Whether it lies in one of `folders`, at any depth."""
        return any(self.path.startswith(f"{folder}/") for folder in folders)

    @property
    def package(self) -> str:
        """The package or module directly beneath `bursar` that it belongs to; "" outside."""
        parts = PurePosixPath(self.path).parts
        if parts[:2] != ("src", "bursar") or not self.is_python:
            return ""
        return parts[2].removesuffix(".py")


@cache
def repository() -> tuple[Source, ...]:
    """Every text file that is tracked, or would be: what git lists, less what it ignores."""
    return tuple(source for name in file_names() if (source := _read(name)) is not None)


@cache
def file_names() -> tuple[str, ...]:
    """The names of all files, text or not; without git or its history, those that are not made."""
    try:
        listed = subprocess.run(
            ["git", "-c", "safe.directory=*", "ls-files", "-z", "-c", "-o", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        names = set(listed.split("\0")) - {""}
    except (OSError, subprocess.CalledProcessError):
        names = {
            path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if not _is_made(path)
        }
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


def _is_made(path: Path) -> bool:
    top, *inner = path.relative_to(ROOT).parts
    hidden = top.startswith(".") and top not in (".ci", ".editorconfig", ".gitignore")
    return hidden or "__pycache__" in inner or top in ("bursar-data", "build", "dist", "site")


def _read(name: str) -> Source | None:
    """The file; None where it is not text."""
    try:
        return Source(name, (ROOT / name).read_text("utf-8"))
    except UnicodeDecodeError:
        return None


def functions(tree: ast.AST) -> Iterator[tuple[str, Function]]:
    """Every function with its qualified name, outer ones first."""
    for name, node in walk(tree):
        if isinstance(node, Function):
            yield f"{name}.{node.name}".lstrip("."), node


def walk(tree: ast.AST, name: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node in reading order, with the qualified name of the function or class around it."""
    for node in ast.iter_child_nodes(tree):
        yield name, node
        inner = name
        if isinstance(node, Function | ast.ClassDef):
            inner = f"{name}.{node.name}".lstrip(".")
        yield from walk(node, inner)


def called_name(node: ast.Call) -> str:
    """The last part of what is called: `execute` of `tx.connection.execute(…)`; "" if unnamed."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def dotted_name(node: ast.AST) -> str:
    """`a.b.c` of a chain of attributes; "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        left = dotted_name(node.value)
        return f"{left}.{node.attr}" if left else ""
    return ""


def imported_modules(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The line and full name of every absolute import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
