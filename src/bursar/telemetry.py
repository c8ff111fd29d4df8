"""Logs and metrics: what operators see of a running server.

Owns the name of every metric and the redaction of every log line. Must not know what is counted.
Counting is on the path of each request, so it is plain arithmetic on plain numbers; the exposition
format is made when somebody asks for it.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import suppress
from typing import Any, Final, TextIO

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECRET: Final = re.compile(r"\b(b[spo]k_)[0-9A-Za-z]{6,}")
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+\S+")

# name, kind, help, label
COUNTERS: Final = (
    ("bursar_requests", "Requests to model endpoints by status.", ("endpoint", "status")),
    ("bursar_refusals", "Requests refused before an upstream was called.", ("reason",)),
    ("bursar_upstream_failures", "Calls that an upstream failed or refused.", ("kind",)),
    ("bursar_charges_settled", "Charges settled in the ledger.", ()),
    ("bursar_charges_quarantined", "Charges that the ledger refused.", ()),
    ("bursar_lease_refills", "Transactions that took leases.", ()),
    ("bursar_overrun_nanos", "Nano-USD of usage that no account could be charged for.", ()),
)
GAUGES: Final = (
    ("bursar_holds_open", "Requests in flight that hold credit."),
    ("bursar_keys_known", "Verified keys in memory."),
    ("bursar_settlement_backlog", "Charges that are not settled yet."),
    ("bursar_settlement_lag_seconds", "Age of the oldest charge that is not settled."),
    ("bursar_journal_bytes", "Bytes of charges on local disk that are not settled."),
    ("bursar_ledger_silent_seconds", "Seconds since the database was last heard."),
)


class Metrics:
    """This process's counters, counted by whoever does the work."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.refusals: dict[str, int] = {}
        self.upstream_failures: dict[str, int] = {}
        self.settled = 0
        self.quarantined = 0
        self.lease_refills = 0
        self.overrun_nanos = 0
        self.holds_open = 0
        self.gauges: Callable[[], dict[str, float]] = dict
        self._registry = CollectorRegistry()
        self._registry.register(_Exposition(self))

    def count(self, endpoint: str, status: int) -> None:
        """Count an answered request."""
        key = (endpoint, status)
        self.requests[key] = self.requests.get(key, 0) + 1

    def refuse(self, reason: str) -> None:
        """Count a refusal."""
        self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def upstream_failed(self, kind: str) -> None:
        """Count a call that an upstream failed, by status or kind of failure."""
        self.upstream_failures[kind] = self.upstream_failures.get(kind, 0) + 1

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def counters(self) -> dict[str, dict[tuple[str, ...], float]]:
        """The counters' values by name and label values."""
        return {
            "bursar_requests": {(e, str(s)): n for (e, s), n in self.requests.items()},
            "bursar_refusals": {(reason,): n for reason, n in self.refusals.items()},
            "bursar_upstream_failures": {(k,): n for k, n in self.upstream_failures.items()},
            "bursar_charges_settled": {(): self.settled},
            "bursar_charges_quarantined": {(): self.quarantined},
            "bursar_lease_refills": {(): self.lease_refills},
            "bursar_overrun_nanos": {(): self.overrun_nanos},
        }


class _Exposition(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        values = self._metrics.counters()
        for name, text, labels in COUNTERS:
            counter = CounterMetricFamily(name, text, labels=labels)
            for label_values, count in values[name].items():
                counter.add_metric(label_values, count)
            yield counter
        gauges = {"bursar_holds_open": self._metrics.holds_open, **self._metrics.gauges()}
        for name, text in GAUGES:
            if name in gauges:
                yield GaugeMetricFamily(name, text, value=gauges[name])


def set_up_logs(*, log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Send every log line of this process to standard error, as JSON or for people."""
    out = _Steadfast(stream or sys.stderr)
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Take everything that looks like a secret out of a log line."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = without_secrets(value)
    return event


def without_secrets(text: str) -> str:
    """The text with API keys and Authorization values cut short."""
    return _BEARER.sub(r"\1 [redacted]", _SECRET.sub(r"\1[redacted]", text))


class _Steadfast:
    """A stream that loses lines rather than the server when nobody reads them any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()
