"""Runs of the load client: what is sent, one reading of one target, and interleaved rounds.

Owns the cases and the order of measuring. Must not know what is compared with what.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bench import processes
from bench.lab import (
    BURST_CHUNKS,
    LAST_EVENTS,
    PACED_CHUNKS,
    PACED_GAP_US,
    Lab,
    Unavailable,
    pinned,
)
from bench.targets import MODEL, PATH, Target, chat_body, chat_headers

QUIET_S = 0.1
QUIET_LIMIT_S = 5.0
FIXED_RATE = 1000
WARM_UP_S = 0.3
PACED_MIN_S = 0.6  # a paced stream alone takes a third of it
LOAD_MARGIN_S = 30.0


class Shape(Enum):
    """What kind of call a case makes."""

    JSON = "json"
    FIXED = "fixed"  # JSON with a time-table of `FIXED_RATE` requests a second
    BURST = "burst"  # a stream whose chunks come as fast as they can
    PACED = "paced"  # a stream with a gap before each chunk


@dataclass(frozen=True, slots=True)
class Case:
    """One way to load a target."""

    shape: Shape
    concurrency: int

    @property
    def name(self) -> str:
        """A name for people and for the JSON file."""
        return f"{self.shape.value} c={self.concurrency}"


JSON_CASES = tuple(Case(Shape.JSON, concurrency) for concurrency in (1, 16, 64))
FIXED_CASE = Case(Shape.FIXED, 16)
BURST_CASE = Case(Shape.BURST, 16)
PACED_CASE = Case(Shape.PACED, 16)


@dataclass(frozen=True, slots=True)
class Reading:
    """One run of one case against one target."""

    case: Case
    target: str
    round: int
    per_s: float  # answers, or whole streams, within the time
    events_per_s: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float  # to the first event, or to the whole answer where there are no events
    first_p99_ms: float
    cpu_us: float | None  # an answer; late settlement included
    database_cpu_us: float | None
    others_share: float  # of the target's core, taken by programs that are not the target
    errors: int
    first_bad_status: int


def write_request(path: Path, *, target: Target, shape: Shape) -> None:
    """Write the whole HTTP request that the load client repeats."""
    is_stream = shape in (Shape.BURST, Shape.PACED)
    model = f"{MODEL}-paced" if shape is Shape.PACED else MODEL
    body = chat_body(model=model, is_stream=is_stream)
    fields = {"Host": f"127.0.0.1:{target.port}", **chat_headers(target.key)}
    head = f"POST {PATH} HTTP/1.1\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    path.write_bytes(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def run_load(
    lab: Lab, target: Target, shape: Shape, *, seconds: float, options: Sequence[str]
) -> dict[str, float]:
    """Load a target once; raise `Unavailable` where the load client itself fails."""
    request = lab.workdir / "request"
    write_request(request, target=target, shape=shape)
    command = [str(lab.load_program), "-p", str(target.port), "-r", str(request)]
    command += ["-s", str(seconds), *options]
    with pinned(lab.cores.load):
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds + LOAD_MARGIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"the load on {target.name} did not end in time") from error
    if done.returncode:
        raise Unavailable(f"the load on {target.name} failed: {done.stderr.strip()}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def measure(lab: Lab, target: Target, case: Case, *, number: int, seconds: float) -> Reading:
    """Take one reading, and wait until the target has finished what the load left it with."""
    if case.shape is Shape.PACED:
        seconds = max(seconds, PACED_MIN_S)
    for root in target.database_roots:
        # Anew each time: a database has a process for each connection, and each its own session.
        processes.yield_to_others(root)
    if case in (FIXED_CASE, PACED_CASE):
        # How long an answer takes is asked of a target at work: what an idle one has given back,
        # connections and credit, it fetches anew for whoever comes first.
        _warm_up(lab, target)
    (core,) = lab.cores.target
    busy_before, since = processes.core_busy_us(core), time.monotonic()
    cpu_before = processes.cpu_us(target.roots)
    database_before = processes.cpu_us(target.database_roots)
    figures = run_load(lab, target, case.shape, seconds=seconds, options=_options(case))
    if target.settles_late:
        wait_until_quiet(target)
    answered = max(1.0, figures["answered"])
    cpu = processes.cpu_us(target.roots) - cpu_before
    database_cpu = processes.cpu_us(target.database_roots) - database_before
    others = processes.core_busy_us(core) - busy_before - cpu
    elapsed_us = (time.monotonic() - since) * 1e6
    return Reading(
        case=case,
        target=target.name,
        round=number,
        per_s=figures["counted"] / figures["seconds"],
        events_per_s=figures["events"] / figures["seconds"],
        p50_ms=figures["p50_ms"],
        p99_ms=figures["p99_ms"],
        first_p50_ms=figures["first_p50_ms"],
        first_p99_ms=figures["first_p99_ms"],
        cpu_us=cpu / answered if target.roots else None,
        database_cpu_us=database_cpu / answered if target.database_roots else None,
        others_share=max(0.0, others / elapsed_us) if lab.cores.are_apart else 0.0,
        errors=int(figures["errors"]),
        first_bad_status=int(figures["first_bad_status"]),
    )


def _warm_up(lab: Lab, target: Target) -> None:
    run_load(lab, target, Shape.JSON, seconds=WARM_UP_S, options=["-c", "16"])
    if target.settles_late:
        wait_until_quiet(target)


def _options(case: Case) -> list[str]:
    options = ["-c", str(case.concurrency)]
    if case.shape is Shape.FIXED:
        options += ["-R", str(FIXED_RATE)]
    if case.shape is Shape.BURST:
        options += ["-e", str(BURST_CHUNKS + LAST_EVENTS)]
    if case.shape is Shape.PACED:
        # Streams that start together would have their chunks together, for ever.
        stagger_us = PACED_GAP_US // case.concurrency
        options += ["-e", str(PACED_CHUNKS + LAST_EVENTS), "-g", str(stagger_us)]
    return options


def wait_until_quiet(target: Target) -> None:
    """Wait until the target and its database have used no more than one tick for a while."""
    roots = (*target.roots, *target.database_roots)
    end = time.monotonic() + QUIET_LIMIT_S
    before = processes.cpu_us(roots)
    while time.monotonic() < end:
        time.sleep(QUIET_S)
        now = processes.cpu_us(roots)
        if now - before <= processes.TICK_US:
            return
        before = now


def run_rounds(
    lab: Lab,
    targets: Sequence[Target],
    cases: Sequence[Case],
    *,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> list[Reading]:
    """Measure every case on every target, `rounds` times.

    Within a round the targets take turns on one case, so that a ratio compares neighbours in time;
    each round begins with another target, so that none is always first.
    """
    for target in targets:
        _warm_up(lab, target)
    readings: list[Reading] = []
    for number in range(rounds):
        shift = number % max(1, len(targets))
        order = [*targets[shift:], *targets[:shift]]
        for case in cases:
            tell(f"round {number + 1} of {rounds}: {case.name}")
            readings += [
                measure(lab, target, case, number=number, seconds=seconds) for target in order
            ]
    return readings
