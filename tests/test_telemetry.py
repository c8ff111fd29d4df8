"""Logs that never wait, never die and never tell; metrics under their names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bursar import telemetry
from bursar.core import secrets
from bursar.core.secrets import KeyKind

SECRET = secrets.mint(KeyKind.INFERENCE, random_bytes=bytes(range(32)))
SOURCE = Path(__file__).parent.parent / "src"

LOG = """
import logging, structlog
from bursar import telemetry
metrics = telemetry.Metrics()
telemetry.set_up_logs(log_format={format!r}, level="info", metrics=metrics)
log = structlog.get_logger("test")
{body}
"""


def run(body: str, *, log_format: str = "json", **options: object) -> subprocess.CompletedProcess:
    """Run a program that logs, in a process of its own."""
    program = LOG.format(format=log_format, body=body)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, timeout=30, check=True, **options)  # type: ignore[call-overload]


def log_of(body: str, *, log_format: str = "json") -> str:
    """What the program wrote to standard error."""
    done = run(body, log_format=log_format, capture_output=True)
    assert done.stdout == b""
    return done.stderr.decode()


def test_line_is_json_with_event_level_and_moment() -> None:
    line = json.loads(log_of("log.info('settled', charges=3, name='å\\n')"))
    assert line["event"] == "settled"
    assert line["level"] == "info"
    assert line["charges"] == 3
    assert line["name"] == "å\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])


def test_lines_of_libraries_look_the_same() -> None:
    lines = log_of("logging.getLogger('uvicorn').warning('started %s', 8080)").splitlines()
    line = json.loads(lines[0])
    assert (line["event"], line["level"], line["logger"]) == ("started 8080", "warning", "uvicorn")


def test_level_is_kept() -> None:
    assert log_of("log.debug('not this'); logging.getLogger('x').info('nor this')") == ""


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "body",
    [
        "log.info('key {}')",
        "log.info('x', header='Authorization: Bearer {}')",
        "log.info('x', headers={{'Authorization': '{}'}})",
        "log.info('x', headers=[{{'x-api-key': '{}'}}])",
        "log.info('x', password='{}')",
        "log.info('x', url='postgresql+asyncpg://bursar:{}@db/bursar')",
        "log.info('x', note='sk-{}')",
        "logging.getLogger('x').warning('Bearer %s', '{}')",
        "logging.getLogger('x').warning('too few %s %s %s', 'bsk_{}')",
        "try: raise ValueError('{}')\nexcept ValueError: log.exception('x')",
        "secret = '{}'\ntry: raise ValueError('x')\nexcept ValueError: log.exception('x')",
    ],
)
def test_secrets_are_never_logged(body: str, log_format: str) -> None:
    said = log_of(body.format(SECRET), log_format=log_format)
    assert said
    assert SECRET not in said
    assert SECRET[4:20] not in said


@pytest.mark.parametrize(
    "token",
    ["brt_" + "0a" * 32, "bft_" + "0a" * 32, "eyJhbGciOiJFZDI1NTE5In0.eyJzdWIiOiIxIn0.c2lnbmVk"],
)
def test_tokens_of_people_are_never_logged(token: str) -> None:
    said = telemetry.without_secrets(f"renewed {token} for user 3")
    assert said.endswith("[hidden] for user 3")
    assert token[4:20] not in said


def test_ordinary_words_are_left_alone() -> None:
    text = "key 12 of https://example.com:8080/v1 is basic; settled=3 password_reset@x"
    assert telemetry.without_secrets(text) == text


def test_closed_standard_error_neither_kills_nor_writes_into_another_file(tmp_path: Path) -> None:
    target = tmp_path / "books.db"
    body = f"""
book = open({str(target)!r}, "wb", buffering=0)
assert book.fileno() != 2
for _ in range(100): log.error("nobody reads this")
print("alive")
"""
    program = LOG.format(format="json", body=body)
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )
    assert done.stdout == b"alive\n"
    assert target.read_bytes() == b""


def test_reader_that_went_away_kills_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(
            "for _ in range(100): log.error('nobody reads this')\nprint('alive')",
            stdout=subprocess.PIPE,
            stderr=writer,
        )
    finally:
        os.close(writer)
    assert done.stdout == b"alive\n"


def test_reader_that_stopped_reading_makes_nobody_wait_and_the_loss_is_counted() -> None:
    reader, writer = os.pipe()
    try:
        done = run(
            "for _ in range(30_000): log.error('x' * 100)\nprint(metrics.render().decode())",
            stdout=subprocess.PIPE,
            stderr=writer,
        )
    finally:
        os.close(reader)
        os.close(writer)
    lost = re.search(rb"^bursar_log_lines_lost_total (\S+)$", done.stdout, re.M)
    assert lost is not None
    assert float(lost[1]) > 10_000


def test_metrics_are_shown_under_their_names() -> None:
    metrics = telemetry.Metrics()
    metrics.count("chat", 200)
    metrics.count("chat", 200)
    metrics.count("embeddings", 402)
    metrics.refuse("rate")
    metrics.upstream_failed("connect")
    metrics.holds_open += 2
    metrics.overrun_nanos += 5
    metrics.gauges = lambda: {"bursar_journal_bytes": 7.0}
    shown = metrics.render().decode().splitlines()
    for line in (
        'bursar_requests_total{endpoint="chat",status="200"} 2.0',
        'bursar_requests_total{endpoint="embeddings",status="402"} 1.0',
        'bursar_refusals_total{reason="rate"} 1.0',
        'bursar_upstream_failures_total{kind="connect"} 1.0',
        "bursar_overrun_nanos_total 5.0",
        "bursar_holds_open 2.0",
        "bursar_journal_bytes 7.0",
    ):
        assert line in shown


def test_labels_that_somebody_could_invent_are_bounded() -> None:
    metrics = telemetry.Metrics()
    for number in range(1_000):
        metrics.refuse(f"reason {number}")
    assert len(metrics.refusals) <= 201
    assert sum(metrics.refusals.values()) == 1_000
    assert metrics.refusals["other"] > 0
