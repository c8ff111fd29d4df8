"""`make simulate`: run seeds, as many as one likes, and show what happened in those that fail."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

from bursar.store.database import sqlite_url
from tests.databases import migrate
from tests.simulation import seeds
from tests.simulation.world import World


def main() -> int:
    """Run what the command line names; the number of seeds that failed, at most 1."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("seeds", nargs="?", default="0-199", help="one, or a first and a last")
    parser.add_argument("--trace", action="store_true", help="show the whole trace of each")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    wanted = range(int(first), int(last or first) + 1)
    began_s = time.monotonic()
    with seeds.folder() as directory:
        template = directory / "template.db"
        migrate(sqlite_url(template))
        work = [(seed, template, options.trace) for seed in wanted]
        failed = 0
        with multiprocessing.Pool() as pool:
            for seed, problem, trace in pool.imap_unordered(_run, work):
                if options.trace or problem:
                    print(f"── seed {seed}: {problem or 'well'}", trace, sep="\n", flush=True)
                failed += bool(problem)
    seconds = time.monotonic() - began_s
    print(f"{len(wanted)} seeds in {seconds:.0f} s, {failed} failed")
    return min(1, failed)


def _run(work: tuple[int, Path, bool]) -> tuple[int, str, str]:
    seed, template, is_wanted = work
    with seeds.folder() as directory:
        world = World(seed, directory, template)
        try:
            world.run()
        except AssertionError as broken:
            trace = world.loop.trace if is_wanted else broken.__notes__
            return seed, str(broken), "\n".join(trace)
    return seed, "", "\n".join(world.loop.trace) if is_wanted else ""


if __name__ == "__main__":
    sys.exit(main())
