"""A command on a terminal of its own, and the tree of all commands."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import typer

from bursar.cli import application
from tests.live import SOURCE


def commands() -> dict[str, Any]:
    """Every command by what is typed: `keys create`."""
    return dict(_within(typer.main.get_command(application.make()), ()))


def _within(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(words), command
        return
    for name, each in inner.items():
        yield from _within(each, (*words, name))


def options(command: Any) -> set[str]:
    """The options of a command."""
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)}


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._side, other = pty.openpty()
        kept = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from bursar.cli import main; main()", *arguments],
            env={**kept, "PYTHONPATH": str(SOURCE), "TERM": "xterm-256color", **environment},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - a terminal has to be the process's own
        )
        os.close(other)
        self.printed = ""

    def wait_for(self, words: str) -> None:
        """Return once the command has printed this."""
        deadline = time.monotonic() + 50
        while words not in self.printed:
            assert time.monotonic() < deadline, self.printed
            assert self._read() or self._process.poll() is None, self.printed

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._side, text.encode())

    def wait(self) -> int:
        """The exit code, once the command has ended."""
        while self._process.poll() is None:
            self._read()
        while self._read():
            pass
        return self._process.wait()

    def _read(self) -> bool:
        if not select.select([self._side], [], [], 0.1)[0]:
            return False
        try:
            part = os.read(self._side, 65_536)
        except OSError:
            return False
        self.printed += part.decode("utf-8", "replace")
        return bool(part)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._side)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Whoever runs the tests may have them ignore it; a person's shell has not.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
