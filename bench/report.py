"""The report of one run: Markdown for people, JSON for programs.

Owns wording and layout. Must not know how anything was measured.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from bench.figures import SPEED_CASES, STREAM_CASES, Results
from bench.loads import BURST_CASE, FIXED_CASE, FIXED_RATE, JSON_CASES, PACED_CASE, Case
from bench.targets import BARE, DIRECT, NGINX, NGINX_AUTH

RESULTS = Path(__file__).parent / "results"
ABSENT = "-"
MUCH = 0.03  # others' share of the core from which a reader should be warned


def write_json(results: Results) -> Path:
    """Write everything to a new file in bench/results and return its path."""
    RESULTS.mkdir(exist_ok=True)
    moment = datetime.now(UTC)
    path = RESULTS / f"{moment:%Y%m%dT%H%M%SZ}.json"
    content = {
        "at": moment.isoformat(timespec="seconds"),
        "ratios": _ratios(results),
        **dataclasses.asdict(results),
        "failures": results.failures(),
    }
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n")
    return path


def render(results: Results) -> str:
    """Return the whole report as Markdown."""
    parts = ["# Bench", ", ".join(f"{name} {value}" for name, value in results.machine.items())]
    if results.readings:
        parts.append(_quality(results))
    if results.targets(SPEED_CASES):
        parts += _json_parts(results)
    if results.targets(STREAM_CASES):
        parts += _stream_parts(results)
    if results.memories:
        parts += ["## Memory of Bursar", _memory_table(results)]
    if results.settlement:
        parts += ["## Settlement on PostgreSQL", _settlement_line(results)]
    if errors := results.errors():
        parts += [
            "## Errors: these figures do not count",
            "\n".join(f"- {each}" for each in errors),
        ]
    if results.skipped:
        lines = [f"- **{name}**: {reason}" for name, reason in results.skipped.items()]
        parts += ["## Not measured", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"no JSON for {type(value).__name__}")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def _number(value: float | None, form: str = ",.0f") -> str:
    return ABSENT if value is None else f"{value:{form}}"


def _ratio(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}"


def _quality(results: Results) -> str:
    rounds = 1 + max(each.round for each in results.readings)
    shares = [each.others_share for each in results.readings]
    text = f"Medians of {rounds} interleaved rounds; a ratio is the median of each round's ratio."
    if statistics.median(shares) > MUCH:
        text += (
            f" **The machine was not quiet**: programs that are no part of this took"
            f" {statistics.median(shares):.0%} of the targets' core (median), up to"
            f" {max(shares):.0%}; CPU time and ratios hold better than requests a second."
        )
    return text


def _json_parts(results: Results) -> list[str]:
    head = ["target", *(f"c={case.concurrency}" for case in JSON_CASES)]
    head += [f"p50 / p99 ms at {FIXED_RATE:,} a second", "added over bare"]
    rows = []
    for target in results.targets(SPEED_CASES):
        cells = [_speed(results, case, target) for case in JSON_CASES]
        pair = [results.median(FIXED_CASE, target, name) for name in ("p50_ms", "p99_ms")]
        added = [results.added(FIXED_CASE, target, BARE, name) for name in ("p50_ms", "p99_ms")]
        is_added = target not in (DIRECT, BARE)
        rows.append([target, *cells, _pair(pair), _pair(added) if is_added else ABSENT])
    parts = ["## JSON: requests a second (CPU µs a request)", _table(head, rows)]
    if any("database" in cell for row in rows for cell in row):
        parts.append("After the plus: CPU of the database's processes.")
    parts += _comparison(results, "JSON, of requests a second", JSON_CASES, "per_s")
    return parts + _comparison(
        results, "JSON, of CPU a request; less is better", JSON_CASES, "cpu_us"
    )


def _speed(results: Results, case: Case, target: str) -> str:
    text = _number(results.median(case, target, "per_s"))
    cpu = results.median(case, target, "cpu_us")
    if cpu is None:
        return text
    database = results.median(case, target, "database_cpu_us")
    beside = "" if database is None else f" + database {database:.0f}"
    return f"{text} ({cpu:.0f}{beside})"


def _pair(values: Sequence[float | None]) -> str:
    return " / ".join(_number(value, ".2f") for value in values)


def _comparison(results: Results, title: str, cases: Sequence[Case], name: str) -> list[str]:
    rows = [
        [f"{product} / {yardstick}", *(_ratio(value) for value in values)]
        for product, yardstick, values in _compare(results, cases, name)
    ]
    if not rows:
        return []
    return [
        f"### Ratios: {title}",
        _table(["", *(f"c={case.concurrency}" for case in cases)], rows),
    ]


def _compare(
    results: Results, cases: Sequence[Case], name: str
) -> Iterable[tuple[str, str, list[float | None]]]:
    """Bursar by each yardstick, then the bare proxy by nginx, which says what the stack costs."""
    pairs = [(product, by) for product in results.products for by in (BARE, NGINX, NGINX_AUTH)]
    for ours, yardstick in [*pairs, (BARE, NGINX), (BARE, NGINX_AUTH)]:
        values = [results.ratio(case, ours, yardstick, name) for case in cases]
        if any(value is not None for value in values):
            yield ours, yardstick, values


def _stream_parts(results: Results) -> list[str]:
    head = ["target", "streams/s", "events/s", "CPU µs a stream", "first event p50 / p99 ms"]
    head += ["paced: first p50 / p99 ms", "added over direct p50 / p99 ms"]
    firsts = ("first_p50_ms", "first_p99_ms")
    rows = []
    for target in results.targets(STREAM_CASES):
        added = [results.added(PACED_CASE, target, DIRECT, name) for name in firsts]
        rows.append(
            [
                target,
                _number(results.median(BURST_CASE, target, "per_s")),
                _number(results.median(BURST_CASE, target, "events_per_s")),
                _number(results.median(BURST_CASE, target, "cpu_us")),
                _pair([results.median(BURST_CASE, target, name) for name in firsts]),
                _pair([results.median(PACED_CASE, target, name) for name in firsts]),
                _pair(added) if target != DIRECT else ABSENT,
            ]
        )
    title = f"## SSE: 50 chunks in a burst, and one each 10 ms; c={BURST_CASE.concurrency}"
    ratios = _comparison(results, "SSE burst, of events a second", (BURST_CASE,), "events_per_s")
    return [title, _table(head, rows), *ratios]


def _memory_table(results: Results) -> str:
    rows = [
        [
            each.target,
            each.moment,
            f"{each.memory.rss_kb / 1000:,.0f}",
            f"{each.memory.pss_kb / 1000:,.0f}",
        ]
        for each in results.memories
    ]
    return _table(["", "when", "RSS, MB", "PSS, MB"], rows)


def _settlement_line(results: Results) -> str:
    found = results.settlement
    if found is None:
        return ""
    return (
        f"{found.settled_per_s:,.0f} charges a second in batches of {found.batch}, one connection;"
        f" pgbench TPC-B with 8 clients: {found.tpcb_per_s:,.0f} transactions a second;"
        f" ratio {found.settled_per_s / found.tpcb_per_s:.1f}."
    )


def _ratios(results: Results) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for cases, name in (
        (JSON_CASES, "per_s"),
        (JSON_CASES, "cpu_us"),
        ((BURST_CASE,), "events_per_s"),
    ):
        for ours, yardstick, values in _compare(results, cases, name):
            for case, value in zip(cases, values, strict=True):
                entry = {"of": ours, "by": yardstick, "case": case.name, "figure": name}
                found.append({**entry, "ratio": value})
    return found
