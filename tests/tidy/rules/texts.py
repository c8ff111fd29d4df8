"""What no tracked file may say, whatever it is written in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from posixpath import normpath

from tests.tidy.rule import Finding, Rule, each, file
from tests.tidy.sources import Source

# Put together from halves here, so that this file keeps its own rules.
_REMINDERS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME")) + r")\b")
_MACHINE = re.compile(
    r"(?<![\w.:/~-])/(?:root|work|home/\w+|Users/\w+|opt/\w*(?:wheels|pypi)\w*)(?=[/\s\"'`,;)]|$)"
)
_REGISTRY = re.compile(
    r"\b[\w.-]*(?:pypi|pythonhosted|npmjs|crates|rubygems|anaconda)\.(?:org|com|io|net)\b", re.I
)
_INDEX = re.compile(r"(?:https?|file)://|^\s*--(?:extra-)?(?:index-url|find-links|trusted-host)\b")
_NAMED_PATH = re.compile(r"`((?:src|tests|docs|bench|scripts|requirements)/[\w./-]*)`")
_LINK = re.compile(r"\]\((?!\w+:)([\w./-]+)(?:#[\w-]*)?\)")


def _reminders(source: Source) -> Iterator[Finding]:
    yield from _matches(source, _REMINDERS, "a reminder")


def _machine_paths(source: Source) -> Iterator[Finding]:
    yield from _matches(source, _MACHINE, "a path of one machine")


def _registries(source: Source) -> Iterator[Finding]:
    yield from _matches(source, _REGISTRY, "the address of a package registry")
    if source.is_under("requirements"):
        yield from _matches(source, _INDEX, "where packages come from")


def _documented_paths(tree: Sequence[Source]) -> Iterator[Finding]:
    """A path in backticks, or the target of a link within the documentation, must be there."""
    files = {source.path for source in tree}
    known = files | {str(folder) for name in files for folder in PurePosixPath(name).parents}
    for source in tree:
        if not source.path.endswith(".md"):
            continue
        for number, line in enumerate(source.lines, 1):
            named = [found[1].rstrip("/") for found in _NAMED_PATH.finditer(line)]
            linked = [normpath(f"{source.folder}/{found[1]}") for found in _LINK.finditer(line)]
            for path in (*named, *linked):
                if path not in known:
                    yield Finding(source, number, f"there is no {path}")


def _matches(source: Source, pattern: re.Pattern[str], what: str) -> Iterator[Finding]:
    for number, line in enumerate(source.lines, 1):
        if found := pattern.search(line):
            yield Finding(source, number, f"{what}: {found[0].strip()}")


_SOMEBODY = "/ho" + "me/ann"
_INDEX_HOST = "py" + "pi.org"

RULES = (
    Rule(
        "reminders",
        "A reminder in a file is a debt that nobody is asked to pay. Do it, or write it where work"
        " is planned.",
        each(_reminders),
        bad=(
            file("src/bursar/a.py", "# TO" + "DO: later"),
            file("docs/a.md", "FIX" + "ME"),
        ),
        good=(file("docs/a.md", "a method to do it"),),
    ),
    Rule(
        "machine_paths",
        "A path of the machine on which a file was written is wrong on every other.",
        each(_machine_paths),
        bad=(
            file("docs/a.md", f"cd {_SOMEBODY}/bursar"),
            file("Makefile", "PY := /ro" + "ot/bin/python"),
            file("a.toml", 'path = "/wo' + 'rk"'),
        ),
        good=(
            file("docs/a.md", "see docs/work/a and https://a.example/root/b, or ./work/x"),
            file("docs/a.md", "/etc/bursar/bursar.toml, ~/bursar"),
        ),
    ),
    Rule(
        "registry_addresses",
        "Where packages come from is the installer's setting: many mirror it, some have no other"
        " way. A lock names versions and hashes.",
        each(_registries),
        bad=(
            file("README.md", f"[badge](https://{_INDEX_HOST}/project/bursar)"),
            file("requirements/server.txt", "--index-url x"),
            file("requirements/server.txt", "a @ https://a.example/a.whl"),
        ),
        good=(
            file("requirements/server.txt", "a==1 --hash=sha256:00"),
            file("README.md", "pip install bursar"),
        ),
    ),
    Rule(
        "documented_paths",
        "Whoever follows the documentation must arrive: a file that moves takes its name along.",
        _documented_paths,
        bad=(
            file("docs/a.md", "see `src/bursar/lost.py`"),
            file("docs/a.md", "see [there](lost.md)"),
            (Source("docs/a/b.md", "[up](../c.md#part)"), Source("docs/a/c.md", "")),
        ),
        good=(
            (Source("docs/a.md", "`src/b/c.py`, `src/b/`"), Source("src/b/c.py", "")),
            (Source("docs/a/b.md", "[up](../c.md#part)"), Source("docs/c.md", "")),
            file("docs/a.md", "`src/bursar/<noun>.py`, [web](https://a.example/b)"),
        ),
    ),
)
