"""Under every seed the books are right after each commit, and everything comes to rest."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import mutants, oracle, seeds
from tests.simulation.mutants import Mutant
from tests.simulation.oracle import Broken

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(240)]
ROOT = Path(__file__).parents[2]
PARTS = 20


def _digest(trace: list[str]) -> str:
    return hashlib.sha256("\n".join(trace).encode()).hexdigest()


@pytest.mark.parametrize("part", range(PARTS))
def test_the_books_are_right_whatever_goes_wrong(part: int, migrated_sqlite: Path) -> None:
    for seed in seeds.EVERY_TIME[part::PARTS]:
        seeds.run(seed, migrated_sqlite)


@pytest.mark.parametrize("seed", sorted(seeds.REGRESSIONS))
def test_what_once_went_wrong_goes_well(seed: int, migrated_sqlite: Path) -> None:
    assert seeds.REGRESSIONS[seed]
    seeds.run(seed, migrated_sqlite)


def test_the_seeds_let_everything_happen_that_can_go_wrong(migrated_sqlite: Path) -> None:
    unseen = {
        "killed",
        "power cut",
        "stopped",
        "clock is",
        "cut off",
        "COMMIT lost",
        "COMMIT unheard",
        "COMMIT takes place late",
        "deadlock detected",
        "worker_fenced",
        "journal_replayed",
        "overrun",
        "control: corrected",
        "refused: overloaded",
        "feed_silent",
        "plan gives",
        " now",
        "calls at once are left",
        "tokens are left",
        "requests are left",
    }
    for seed in seeds.EVERY_TIME[:100]:
        told = "\n".join(seeds.run(seed, migrated_sqlite).loop.trace)
        unseen = {event for event in unseen if event not in told}
        if not unseen:
            break
    assert not unseen


@pytest.mark.parametrize("seed", [3, 11])
def test_the_same_seed_takes_the_same_course(seed: int, migrated_sqlite: Path) -> None:
    first, second = (seeds.run(seed, migrated_sqlite) for _ in range(2))
    assert first.loop.trace == second.loop.trace
    assert first.loop.steps == second.loop.steps
    other = seeds.run(seed + 1, migrated_sqlite)
    assert other.loop.trace != first.loop.trace


def test_a_seed_takes_the_same_course_in_another_process(migrated_sqlite: Path) -> None:
    seed = 5
    program = (
        "import sys; from pathlib import Path; from tests.simulation import seeds;"
        "from tests.simulation.test_simulation import _digest;"
        f"print(_digest(seeds.run({seed}, Path(sys.argv[1])).loop.trace))"
    )
    found = {_digest(seeds.run(seed, migrated_sqlite).loop.trace)}
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(migrated_sqlite)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"src{os.pathsep}.", "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_a_run_that_fails_tells_its_seed_and_its_end(migrated_sqlite: Path) -> None:
    mutant = next(each for each in mutants.MUTANTS if oracle.ONCE in each.caught_by)
    with pytest.raises(Broken) as broken:
        _until_caught(mutant, migrated_sqlite)
    (note,) = broken.value.__notes__
    assert note.startswith("make simulate SEEDS=")
    assert len(note.splitlines()) > 20


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda each: each.mistake.__name__)
def test_a_mistake_is_caught_by_the_check_that_is_meant_for_it(
    mutant: Mutant, migrated_sqlite: Path
) -> None:
    with pytest.raises(Broken) as broken:
        _until_caught(mutant, migrated_sqlite)
    assert broken.value.name in mutant.caught_by


def _until_caught(mutant: Mutant, template: Path) -> None:
    """Some seeds: not each gives each mistake its occasion. Without it, each of them goes well."""
    for seed in range(40):
        options = {"troubles": mutant.troubles, "calm": mutant.calm}
        seeds.run(seed, template, **options)
        with mutant.mistake():
            seeds.run(seed, template, **options)
