"""The import contracts of pyproject.toml refuse what they are there to refuse.

Each edge is tried on a copy of the house made of empty packages, so that a contract that was
written wrong, or has gone, cannot pass for one that is kept.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tidy.sources import ROOT

PACKAGES = (
    *("__main__", "cli", "bootstrap", "sdk", "compat"),
    *("api", "dialects", "dashboard", "gateway", "jobs", "config", "edge"),
    *("service", "worker", "store", "adapters", "telemetry", "core"),
)

# Importer and imported, and the contract that must refuse it.
FORBIDDEN = [
    ("core", "store", "layers"),
    ("core", "telemetry", "layers"),
    ("store", "service", "layers"),
    ("store", "worker", "layers"),
    ("service", "api", "layers"),
    ("worker", "gateway", "layers"),
    ("service", "worker", "layers"),
    ("worker", "service", "layers"),
    ("api", "dialects", "layers"),
    ("dialects", "api", "layers"),
    ("edge", "api", "layers"),
    ("service", "edge", "layers"),
    ("dashboard", "api", "layers"),
    ("api", "gateway", "layers"),
    ("api", "bootstrap", "layers"),
    ("api", "config", "layers"),
    ("worker", "config", "layers"),
    ("bootstrap", "cli", "layers"),
    ("service", "sdk", "layers"),
    ("bootstrap", "sdk", "layers"),
    ("api", "worker", "control-plane"),
    ("dialects", "worker", "control-plane"),
    ("dashboard", "worker", "control-plane"),
    ("jobs", "worker", "control-plane"),
    ("edge", "worker", "control-plane"),
    ("gateway", "edge", "data-plane"),
    ("gateway", "service", "data-plane"),
    ("sdk", "core", "sdk"),
    ("sdk", "store", "sdk"),
    ("sdk", "cli", "sdk"),
    ("sdk", "compat", "sdk"),
    ("compat", "store", "sdk"),
    ("compat", "bootstrap", "sdk"),
]

ALLOWED = [
    ("__main__", "cli"),
    ("cli", "bootstrap"),
    ("cli", "config"),
    ("cli", "sdk"),
    ("compat", "sdk"),
    *(("bootstrap", package) for package in PACKAGES[5:]),
    ("api", "edge"),
    ("api", "service"),
    ("dialects", "edge"),
    ("dialects", "service"),
    ("edge", "service"),
    ("dashboard", "service"),
    ("jobs", "service"),
    ("gateway", "worker"),
    ("service", "store"),
    ("service", "adapters"),
    ("worker", "store"),
    ("worker", "telemetry"),
    ("store", "telemetry"),
    ("store", "core"),
]


def check(folder: Path, edges: list[tuple[str, str]], packages: tuple[str, ...]) -> tuple[int, str]:
    """Build a house with `edges`, one module each, and run the real contracts over it."""
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    house = folder / "bursar"
    for package in packages:
        (house / package).mkdir(parents=True)
        (house / package / "__init__.py").touch()
    (house / "__init__.py").touch()
    for importer, imported in edges:
        (house / importer / f"to_{imported}.py").write_text(f"import bursar.{imported}\n")
    program = "from importlinter.cli import lint_imports_command as c; c(['--no-cache'])"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


def sections(said: str) -> dict[str, str]:
    """What was said of each broken contract, by its id."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = config["tool"]["importlinter"]["contracts"]
    ids = {contract["name"]: contract["id"] for contract in contracts}
    title = re.compile(rf"^({'|'.join(map(re.escape, ids))})\n-+$", re.MULTILINE)
    _, *parts = title.split(said)
    return {ids[name]: text for name, text in zip(parts[::2], parts[1::2], strict=True)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the contracts say of a house with every forbidden edge."""
    edges = [(importer, imported) for importer, imported, _ in FORBIDDEN]
    code, said = check(tmp_path_factory.mktemp("forbidden"), edges, PACKAGES)
    assert code == 1, said
    return sections(said)


@pytest.mark.parametrize(("importer", "imported", "contract"), FORBIDDEN)
def test_the_arrow_is_refused(
    report: dict[str, str], importer: str, imported: str, contract: str
) -> None:
    assert f"bursar.{importer}.to_{imported} -> bursar.{imported} (" in report[contract]


def test_the_arrows_that_the_house_is_built_of_are_accepted(tmp_path: Path) -> None:
    code, said = check(tmp_path, ALLOWED, PACKAGES)
    assert code == 0, said


def test_packages_that_do_not_exist_yet_do_no_harm(tmp_path: Path) -> None:
    code, said = check(tmp_path, [("store", "core")], ("store", "core"))
    assert code == 0, said


def test_a_new_package_must_be_given_its_place(tmp_path: Path) -> None:
    code, said = check(tmp_path, [], (*PACKAGES, "annex"))
    assert code == 1, said
    assert "bursar.annex" in said


def test_the_contracts_make_no_exceptions() -> None:
    assert "ignore_imports" not in (ROOT / "pyproject.toml").read_text()
