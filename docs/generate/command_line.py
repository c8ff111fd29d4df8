"""The reference of the command line: its help texts, as it prints them."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from typer.testing import CliRunner

from bursar.cli import application

_WIDTH = 100


def commands() -> Iterator[str]:
    """Every command with its help, as the program prints it."""
    app = application.make()
    for path in _paths(app):
        title = " ".join(("bursar", *path))
        yield f"{'###' if len(path) > 1 else '##'} `{title}`"
        yield ""
        yield "```text"
        yield _help(app, path)
        yield "```"
        yield ""


def _paths(app: typer.Typer) -> Iterator[tuple[str, ...]]:
    yield ()
    for command in app.registered_commands:
        yield (str(command.name),)
    for group in app.registered_groups:
        yield (str(group.name),)
        for inner in group.typer_instance.registered_commands if group.typer_instance else ():
            yield (str(group.name), str(inner.name))


def _help(app: typer.Typer, path: tuple[str, ...]) -> str:
    environment = {"COLUMNS": str(_WIDTH), "TERMINAL_WIDTH": str(_WIDTH), "NO_COLOR": "1"}
    printed = CliRunner().invoke(app, [*path, "--help"], prog_name="bursar", env=environment)
    return "\n".join(line.rstrip() for line in printed.output.strip().splitlines())
