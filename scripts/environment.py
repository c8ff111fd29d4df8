"""Makes the project's `.venv` and installs into it, with whatever this machine has.

Owns the ways to get a virtual environment and an installer. It runs on the bare system Python, so
it uses the standard library only, and it must know nothing of Bursar but where its files lie.

Systems differ in what they leave out of Python: Debian ships `venv` without `ensurepip`, containers
ship neither pip nor uv, and so on. Creating the environment without pip works nearly everywhere;
then any one installer will do, and the next is tried when one fails.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

OLDEST_PYTHON = (3, 11)

NO_ENVIRONMENT = """
Could not make a virtual environment with {python}.
Install one of these and run the same command again:
  - Debian, Ubuntu:  apt install python3-venv
  - Fedora, RHEL:    dnf install python3-pip
  - Alpine:          apk add py3-pip
  - anywhere:        uv, or virtualenv
"""

NO_INSTALLER = """
Could not install the packages{tried}.
If the messages above speak of a missing pip or ensurepip, install one of these and run the same
command again; if they speak of the network or of a hash, that is what wants mending:
  - Debian, Ubuntu:  apt install python3-venv   (or python3-pip)
  - Fedora, RHEL:    dnf install python3-pip
  - Alpine:          apk add py3-pip
  - anywhere:        uv
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", type=Path, help="where the environment is or shall be")
    parser.add_argument("--create", action="store_true", help="make the environment anew")
    parser.add_argument("--lock", type=Path, action="append", default=[], help="a hashed lock")
    parser.add_argument("--editable", type=Path, help="a project to install without dependencies")
    arguments = parser.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        return _fail(f"Bursar needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer.")
    if arguments.create and not _create(arguments.venv):
        return _fail(NO_ENVIRONMENT.format(python=sys.executable))
    python = arguments.venv / "bin" / "python"
    for options in _installations(arguments):
        tried = _install(python, options)
        if tried is not None:
            return _fail(NO_INSTALLER.format(tried=f" (tried {', '.join(tried)})" if tried else ""))
    return 0


def _installations(arguments: argparse.Namespace) -> Iterator[list[str]]:
    if arguments.lock:
        yield ["--require-hashes", *(part for lock in arguments.lock for part in ("-r", str(lock)))]
    if arguments.editable:
        # The build backend comes from the lock too: an isolated build would fetch it unpinned.
        yield ["--no-deps", "--no-build-isolation", "--editable", str(arguments.editable)]


def _create(venv: Path) -> bool:
    """Make `venv`, leaving nothing behind where no way works."""
    ways = [
        [sys.executable, "-m", "venv", "--without-pip", str(venv)],
        ["uv", "venv", "--quiet", "--python", sys.executable, str(venv)],
        ["virtualenv", "--quiet", "--python", sys.executable, str(venv)],
    ]
    for way in ways:
        shutil.rmtree(venv, ignore_errors=True)
        if shutil.which(way[0]) and _run(way):
            return True
    shutil.rmtree(venv, ignore_errors=True)
    return False


def _install(python: Path, options: list[str]) -> list[str] | None:
    """Install with the first installer that can. None when done, else the names of those tried."""
    tried = []
    for name, command in _installers(python):
        if tried:
            print(f"{tried[-1]} did not manage; trying {name}.", file=sys.stderr)
        if _run([*command, *options]):
            return None
        tried.append(name)
    return tried


def _installers(python: Path) -> Iterator[tuple[str, list[str]]]:
    """Every installer that this machine has, quickest first, looked for only when needed."""
    if uv := shutil.which("uv"):
        yield "uv", [uv, "pip", "install", "--quiet", "--python", str(python)]
    own_pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
    if _works([str(python), "-m", "pip", "--version"]) or _works([str(python), "-m", "ensurepip"]):
        yield "the environment's pip", own_pip
    outside = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if _works([*outside, "--python", str(python), "--version"]):
        yield "the system's pip", [*outside, "--python", str(python), "install", "-qq"]


def _run(command: list[str]) -> bool:
    """Run `command` with its output shown."""
    return subprocess.run(command, check=False).returncode == 0


def _works(command: list[str]) -> bool:
    """Run `command` for its exit code alone."""
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _fail(message: str) -> int:
    print(message.strip(), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
