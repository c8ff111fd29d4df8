"""Which seeds are run, and those that once found a mistake.

Owns where the template of the database is made, and how one seed is run in a folder of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.simulation.world import World

EVERY_TIME: Final = range(200)

# A seed that has failed is entered here, with what it found, once that is mended. Most changes give
# every seed another course, so a mistake that matters is kept among the mutants too, which look for
# an occasion by themselves.
REGRESSIONS: Final = {
    1: "a worker that others had closed returned its leases a second time when it woke",
    28: "a question about leases failed, and was never put again: requests waited for ever",
}


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one: nothing here is about disks."""
    memory = Path("/dev/shm")  # noqa: S108
    path = Path(tempfile.mkdtemp(prefix="bursar-", dir=memory if memory.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def run(seed: int, template: Path, **options: Any) -> World:
    """Run one seed to its end; raises Broken, or Stuck, with the end of its trace."""
    with folder() as directory:
        world = World(seed, directory, template, **options)
        world.run()
    return world
