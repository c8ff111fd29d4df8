"""The SDK's types, as a type checker sees them from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import bursar
from tests.tidy.sources import ROOT

# Both checkers read everything that the SDK is made of, which takes a while the first time.
pytestmark = pytest.mark.timeout(180)

PROGRAM = Path(__file__).with_name("typed_program.py")
SOURCE = Path(bursar.__file__).parents[1]


def test_a_typed_program_passes_and_its_mistakes_do_not() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(PROGRAM)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_other_checker_is_content_with_the_program_and_with_all_of_the_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(bursar.__file__).with_name("py.typed").exists()
