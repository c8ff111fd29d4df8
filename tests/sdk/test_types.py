"""The SDK's types, as a type checker sees them from outside."""

from __future__ import annotations

import json
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


def test_every_public_name_of_the_sdk_has_a_type_that_all_checkers_agree_on() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable),
            *("--verifytypes", "bursar", "--ignoreexternal", "--outputjson"),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    ours = [
        each
        for each in symbols
        if each["isExported"]
        and (each["name"].startswith(("bursar.sdk.", "bursar.compat.")) or is_top(each["name"]))
    ]
    assert len(ours) > 1_500
    vague = [
        f"{each['name']}: {said['message']}"
        for each in ours
        if not each["isTypeKnown"]
        for said in each["diagnostics"] or [{"message": "made of what has no known type"}]
    ]
    assert not vague, "\n".join(vague)


def is_top(name: str) -> bool:
    """Whether it is a name of `bursar` itself."""
    return name.count(".") == 1


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(bursar.__file__).with_name("py.typed").exists()
