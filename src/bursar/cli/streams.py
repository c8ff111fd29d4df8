"""The streams that a program is started with: stdin, stdout and stderr.

Owns that no character can make printing fail, and what stands in for a stream that is closed. Must
not know what is printed.
"""

import io
import os
import sys
from typing import Final

from bursar.core.errors import Unavailable

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_INEXPRESSIBLE: Final = "backslashreplace"


def be_ready() -> None:
    """Be ready to read and to print; raises Unavailable (`stdout_closed`) before anything is done.

    A closed stdin has no lines, and nobody reads a closed stderr. Data has to go somewhere: a
    secret is shown once.
    """
    closed = [(name, mode) for name, mode in _STREAMS if getattr(sys, name) is None]
    for name, mode in closed:
        # Each takes the lowest number that is free, its own: a database that is opened later does
        # not, and is not printed into by whoever takes number 1 for stdout.
        null = os.open(os.devnull, os.O_RDWR)
        stand_in = io.FileIO(null, mode, closefd=False)
        setattr(sys, name, io.TextIOWrapper(stand_in, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_INEXPRESSIBLE)
    if ("stdout", "w") in closed:
        raise Unavailable("stdout_closed", "Standard output is closed; nothing was done.")


def is_unicode() -> bool:
    """Whether stdout takes every character as it is."""
    return _encoding().lower().startswith("utf")


def as_printed(text: str) -> str:
    """Return text as stdout will have it, with the escapes of what its encoding does not have."""
    encoding = _encoding()
    return text.encode(encoding, _INEXPRESSIBLE).decode(encoding)


def _encoding() -> str:
    # While a live view owns stdout, what stands in for it has no encoding.
    for stream in (sys.stdout, sys.__stdout__):
        encoding = getattr(stream, "encoding", None)
        if encoding:
            return str(encoding)
    return "ascii"
