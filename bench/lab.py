"""The laboratory: cores, tools, the compiled C programs and the mock upstream.

Owns what every target shares. Must not know any target.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import processes

SOURCES = Path(__file__).parent
BURST_CHUNKS = 50
PACED_CHUNKS = 20
PACED_GAP_US = 10_000
LAST_EVENTS = 3  # the finish reason, the usage and [DONE] follow the chunks
DEBIAN_PACKAGES = {"cc": "gcc libc6-dev", "nginx": "nginx"}


class Unavailable(Exception):
    """A part of the bench cannot run on this machine; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Where processes run: targets on one core; mock, load and database on another."""

    target: frozenset[int]
    load: frozenset[int]

    @property
    def are_apart(self) -> bool:
        """Whether load and target do not compete for one core."""
        return not self.target & self.load


@dataclass(frozen=True, slots=True)
class Lab:
    """What a target needs in order to be started and loaded."""

    cores: Cores
    workdir: Path
    mock_program: Path
    load_program: Path
    upstream_port: int


def find_cores() -> Cores:
    """Return the first two cores that this process may use, or the only one twice."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(usable[:1]), frozenset(usable[1:2] or usable[:1]))


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Run the block, and every process that it starts, on `cores` alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def find_tool(name: str) -> str:
    """Return the path of a program; raise `Unavailable` with the package that has it."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        package = DEBIAN_PACKAGES.get(name, name)
        raise Unavailable(f"{name} is not installed; on Debian: apt-get install {package}")
    return path


def compile_program(name: str, into: Path) -> Path:
    """Compile `name`.c with the system's compiler; raise `Unavailable` where there is none."""
    program = into / name
    source = SOURCES / f"{name}.c"
    command = [find_tool("cc"), "-O2", "-std=gnu11", "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Unavailable(f"cc could not compile {source.name}: {done.stderr[:400]}")
    return program


@contextmanager
def start_mock(program: Path, *, cores: frozenset[int]) -> Iterator[tuple[int, int]]:
    """Run a mock upstream for the length of the block; yield its port and its process id."""
    sizes = [str(BURST_CHUNKS), str(PACED_CHUNKS), str(PACED_GAP_US)]
    with pinned(cores):
        mock = subprocess.Popen([str(program), *sizes], stdout=subprocess.PIPE, text=True)
    try:
        port = mock.stdout.readline() if mock.stdout else ""
        if not port.strip():
            raise Unavailable("the mock upstream did not start")
        yield int(port), mock.pid
    finally:
        processes.stop(mock)


@contextmanager
def open_lab() -> Iterator[Lab]:
    """Compile the programs, start the upstream, and clear everything away at the end."""
    cores = find_cores()
    with tempfile.TemporaryDirectory(prefix="bursar-bench-") as name:
        workdir = Path(name)
        mock_program = compile_program("mock_upstream", workdir)
        load_program = compile_program("load", workdir)
        with start_mock(mock_program, cores=cores.load) as (port, _):
            yield Lab(cores, workdir, mock_program, load_program, port)
