"""`python -m bench`: measure everything in one run, print Markdown, keep JSON in bench/results.

Exit status: 0; 1 where nothing can be measured, or with --check where a figure falls short.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from types import FrameType
from typing import TypeVar

from bench import bursar, memory, settlement, targets
from bench.figures import ACTIVE_KEYS, SPEED_CASES, STREAM_CASES, Results
from bench.lab import Lab, Unavailable, open_lab
from bench.loads import Case, Shape, run_load, run_rounds, wait_until_quiet
from bench.report import render, write_json
from bench.targets import Target
from tests.postgres import PostgresServer

Entered = TypeVar("Entered")
PARTS = ("json", "sse", "memory")
DATABASES = ("sqlite", "postgres")
QUICK_SECONDS = 0.35
QUICK_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure and how long."""

    seconds: float
    rounds: int
    parts: tuple[str, ...]
    databases: tuple[str, ...]
    keys: int
    is_check: bool

    @property
    def cases(self) -> list[Case]:
        """The cases of the parts that were asked for."""
        speed = SPEED_CASES if "json" in self.parts else ()
        return [*speed, *(STREAM_CASES if "sse" in self.parts else ())]


def main() -> int:
    """Run the bench; return the exit status."""
    options = _parse()
    signal.signal(signal.SIGTERM, _end)  # so that everything that was started is stopped
    results = Results(machine={})
    try:
        with open_lab() as lab, ExitStack() as stack:
            results.machine = _describe(lab)
            _measure(lab, stack, options, results)
    except Unavailable as error:
        _tell(f"nothing was measured: {error}")
        return 1
    path = write_json(results)
    print(render(results))
    _tell(f"written to {os.path.relpath(path)}")
    return _check(results) if options.is_check else 0


def _measure(lab: Lab, stack: ExitStack, options: Options, results: Results) -> None:
    postgres = None
    if "postgres" in options.databases:
        postgres = _enter(stack, results, "PostgreSQL", bursar.start_postgres(lab))
    # A Bursar that only waits would still take turns on the core with the memory part's own one.
    with ExitStack() as servers:
        _measure_speed(lab, servers, options, results, postgres)
    if "memory" in options.parts:
        _measure_keys(lab, options, results, postgres)
    if "json" in options.parts and postgres is not None:
        _tell("settlement")
        try:
            results.settlement = settlement.measure(lab, postgres, seconds=options.seconds * 2)
        except Unavailable as error:
            _skip(results, "settlement", error)


def _measure_speed(
    lab: Lab,
    servers: ExitStack,
    options: Options,
    results: Results,
    postgres: PostgresServer | None,
) -> None:
    products = _start_products(lab, servers, options, results, postgres)
    results.products = [target.name for target in products]
    _read_memory(options, results, products, "idle")
    if options.cases:
        everything = [*_start_yardsticks(lab, servers, results), *products]
        results.readings = run_rounds(
            lab,
            everything,
            options.cases,
            rounds=options.rounds,
            seconds=options.seconds,
            tell=_tell,
        )
    else:
        for target in products:
            run_load(lab, target, Shape.JSON, seconds=options.seconds, options=["-c", "64"])
            wait_until_quiet(target)
    _read_memory(options, results, products, "after load")


def _read_memory(options: Options, results: Results, products: list[Target], moment: str) -> None:
    if "memory" in options.parts:
        results.memories += [memory.read(target, moment) for target in products]


def _start_yardsticks(lab: Lab, stack: ExitStack, results: Results) -> list[Target]:
    starters: dict[str, Callable[[Lab], AbstractContextManager[Target]]] = {
        targets.DIRECT: targets.start_direct,
        targets.BARE: targets.start_bare,
        targets.NGINX: targets.start_nginx,
        targets.NGINX_AUTH: targets.start_nginx_auth,
    }
    found = [_enter(stack, results, name, start(lab)) for name, start in starters.items()]
    return [target for target in found if target is not None]


def _start_products(
    lab: Lab,
    stack: ExitStack,
    options: Options,
    results: Results,
    postgres: PostgresServer | None,
) -> list[Target]:
    found = []
    for kind in options.databases:
        if kind == "postgres" and postgres is None:
            continue
        name, server = bursar.TITLES[kind], postgres if kind == "postgres" else None
        _tell(f"starting {name}")
        installation = _enter(stack, results, name, bursar.install(lab, name, postgres=server))
        if installation is not None:
            target = _enter(stack, results, name, bursar.serve(lab, installation))
            found += [target] if target is not None else []
    return found


def _measure_keys(
    lab: Lab, options: Options, results: Results, postgres: PostgresServer | None
) -> None:
    name = bursar.TITLES["sqlite" if postgres is None else "postgres"]
    if name not in results.products:
        return
    try:
        reading = memory.measure_with_keys(
            lab, name, count=options.keys, postgres=postgres, tell=_tell
        )
    except Unavailable as error:
        _skip(results, f"memory with {options.keys} active keys", error)
    else:
        results.memories.append(reading)


def _enter(
    stack: ExitStack, results: Results, name: str, context: AbstractContextManager[Entered]
) -> Entered | None:
    """Enter a target's context; where it is unavailable say so loudly and go on without it."""
    try:
        return stack.enter_context(context)
    except Unavailable as error:
        _skip(results, name, error)
        return None


def _skip(results: Results, name: str, error: Unavailable) -> None:
    reason = " ".join(str(error).split())
    results.skipped[name] = reason
    _tell(f"*** NOT MEASURED: {name}: {reason}")


def _check(results: Results) -> int:
    failures = results.failures()
    if not results.products:
        failures.append("no Bursar was measured")
    for failure in failures:
        print(f"FAILED: {failure}")
    if not failures:
        print("Every figure reaches what it must.")
    return 1 if failures else 0


def _describe(lab: Lab) -> dict[str, str]:
    cores = "one core for target and load" if not lab.cores.are_apart else "two cores"
    return {
        "cores": cores,
        "machine": platform.machine(),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "uvicorn": version("uvicorn"),
        "load average": f"{os.getloadavg()[0]:.1f}",
    }


def _parse() -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Bursar in ratios.")
    parser.add_argument("--quick", action="store_true", help="short rounds, about a minute in all")
    parser.add_argument("--seconds", type=float, help="length of one reading (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="readings of each case (default 3)")
    parser.add_argument("--only", choices=PARTS, help="one part instead of all")
    parser.add_argument("--databases", default=",".join(DATABASES), help="sqlite,postgres")
    parser.add_argument("--keys", type=int, help=f"keys in use for memory (default {ACTIVE_KEYS})")
    parser.add_argument("--check", action="store_true", help="exit 1 where a figure falls short")
    given = parser.parse_args()
    databases = tuple(given.databases.split(","))
    if not set(databases) <= set(DATABASES):
        parser.error(f"--databases takes {', '.join(DATABASES)}")
    return Options(
        seconds=given.seconds or (QUICK_SECONDS if given.quick else 2.0),
        rounds=given.rounds,
        parts=(given.only,) if given.only else PARTS,
        databases=databases,
        keys=given.keys or (QUICK_KEYS if given.quick else ACTIVE_KEYS),
        is_check=given.check,
    )


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
