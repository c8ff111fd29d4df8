"""What a house rule is: a check, the reason for it, and examples that prove that it bites."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.tidy.sources import Source


@dataclass(frozen=True, slots=True)
class Finding:
    """A place that breaks a rule. `within` is the qualified name of the function around it."""

    source: Source
    line: int
    message: str
    within: str = ""

    def __str__(self) -> str:
        return f"{self.source.path}:{self.line}: {self.message}"

    @property
    def names(self) -> tuple[str, str]:
        """How an exception may name it: the whole file, or one function in it."""
        return self.source.path, f"{self.source.path}::{self.within}"


Check: TypeAlias = Callable[[Sequence[Source]], Iterable[Finding]]
Tree: TypeAlias = tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the house. `bad` and `good` are small trees that it must refuse and accept."""

    name: str
    why: str
    check: Check
    bad: tuple[Tree, ...]
    good: tuple[Tree, ...]

    def __str__(self) -> str:
        return self.name


def each(check: Callable[[Source], Iterator[Finding]]) -> Check:
    """A check of whole trees from one that looks at a single file."""

    def check_all(tree: Sequence[Source]) -> Iterator[Finding]:
        for source in tree:
            yield from check(source)

    return check_all


def file(path: str, text: str) -> Tree:
    """A tree of one file, for an example."""
    return (Source(path, textwrap.dedent(text)),)
