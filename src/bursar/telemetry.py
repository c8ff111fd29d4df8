"""Logs and metrics: what operators see of a running server.

Owns the name of every metric, what a log line looks like, and what must never be in one. Must not
know what is counted or logged.

Counting is on the path of each request, so it is plain arithmetic on plain numbers; the exposition
format is made when somebody asks for it. Logging never waits for whoever reads standard error, and
outlives them: lines go through a bounded queue, and those that find no room are counted instead.
"""

import asyncio
import atexit
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# ── Metrics ─────────────────────────────────────────────────────────────────────────────────────

# Name, sentence, labels.
COUNTERS: Final = (
    ("bursar_requests", "Requests to model endpoints by status.", ("endpoint", "status")),
    ("bursar_refusals", "Requests refused, by what stood in the way.", ("reason",)),
    ("bursar_refusals_unlogged", "Refusals by limits that found no room in the limit log.", ()),
    ("bursar_callers_gone", "Callers of the control API who left in mid-request.", ()),
    ("bursar_upstream_failures", "Calls that an upstream failed or refused.", ("kind",)),
    ("bursar_charges_settled", "Charges settled in the ledger.", ()),
    ("bursar_charges_quarantined", "Charges that the ledger refused.", ()),
    ("bursar_charges_lost", "Charges that the ledger had acknowledged and has lost.", ()),
    ("bursar_lease_refills", "Transactions that took leases.", ()),
    ("bursar_overrun_nanos", "Nano-USD of usage that no account could be charged for.", ()),
    ("bursar_log_lines_lost", "Log lines that were dropped because nobody read them.", ()),
)
GAUGES: Final = (
    ("bursar_holds_open", "Requests in flight that hold credit."),
    ("bursar_upstreams_aside", "Upstreams that are left alone because they refuse their API key."),
    ("bursar_keys_known", "Verified keys in memory."),
    ("bursar_settlement_backlog", "Charges that are not settled yet."),
    ("bursar_settlement_lag_seconds", "Age of the oldest charge that is not settled."),
    ("bursar_journal_bytes", "Bytes of charges on local disk that are not settled."),
    ("bursar_ledger_silent_seconds", "Seconds since the database was last heard."),
    ("bursar_loop_lag_seconds", "The longest that every request had to wait, in the last minute."),
)

_MOST_LABELS: Final = 200
_LAG_EVERY_S: Final = 0.05
_LAG_KEPT_S: Final = 30.0


class Metrics:
    """This process's counters, counted by whoever does the work."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.refusals: dict[str, int] = {}
        self.refusals_unlogged = 0
        self.callers_gone = 0
        self.upstream_failures: dict[str, int] = {}
        self.settled = 0
        self.quarantined = 0
        self.lost = 0
        self.lease_refills = 0
        self.overrun_nanos = 0
        self.holds_open = 0
        self.log_lines_lost = 0
        self.gauges: Callable[[], dict[str, float]] = dict
        self._registry = CollectorRegistry()
        self._registry.register(_Exposition(self))

    def count(self, endpoint: str, status: int) -> None:
        """Count an answered request."""
        key = (endpoint, status)
        self.requests[key] = self.requests.get(key, 0) + 1

    def refuse(self, reason: str) -> None:
        """Count a refusal by its reason."""
        _count(self.refusals, reason)

    def count_gone(self) -> None:
        """Count a caller of the control API who left before the request was complete."""
        self.callers_gone += 1

    def upstream_failed(self, kind: str) -> None:
        """Count a call that an upstream failed, by status or kind of failure."""
        _count(self.upstream_failures, kind)

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def counters(self) -> dict[str, dict[tuple[str, ...], float]]:
        """The counters' values by name and label values."""
        return {
            "bursar_requests": {(e, str(s)): n for (e, s), n in self.requests.items()},
            "bursar_refusals": {(reason,): n for reason, n in self.refusals.items()},
            "bursar_refusals_unlogged": {(): self.refusals_unlogged},
            "bursar_callers_gone": {(): self.callers_gone},
            "bursar_upstream_failures": {(k,): n for k, n in self.upstream_failures.items()},
            "bursar_charges_settled": {(): self.settled},
            "bursar_charges_quarantined": {(): self.quarantined},
            "bursar_charges_lost": {(): self.lost},
            "bursar_lease_refills": {(): self.lease_refills},
            "bursar_overrun_nanos": {(): self.overrun_nanos},
            "bursar_log_lines_lost": {(): self.log_lines_lost},
        }


class LoopLag:
    """How late the event loop runs what is due: the longest delay of the last minute, at most.

    Whatever computes or blocks for so long makes every request of the process wait for it.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self._before_s = 0.0

    @property
    def longest_s(self) -> float:
        """The longest delay of this half minute and the one before it, in seconds."""
        return max(self._now_s, self._before_s)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            end_s = time.monotonic() + _LAG_KEPT_S
            while (before_s := time.monotonic()) < end_s:
                await asyncio.sleep(_LAG_EVERY_S)
                self._now_s = max(self._now_s, time.monotonic() - before_s - _LAG_EVERY_S)
            self._before_s, self._now_s = self._now_s, 0.0


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


def _count(counts: dict[str, int], label: str) -> None:
    # A label that somebody outside could choose would grow memory and Prometheus without end.
    if label not in counts and len(counts) >= _MOST_LABELS:
        label = "other"
    counts[label] = counts.get(label, 0) + 1


# ── Logs ────────────────────────────────────────────────────────────────────────────────────────

_MOST_LINES: Final = 10_000
_FLUSH_S: Final = 1.0
_STDERR: Final = 2
_HIDDEN: Final = "[hidden]"

_SECRET_FIELD: Final = re.compile(
    r"authorization|api[-_]?key|password|passwd|secret|cookie|access_token|refresh_token", re.I
)
_SECRETS: Final = re.compile(
    r"""
    (?P<bursar> b[spo]k_) [0-9A-Za-z]{8,}
  | (?P<session> \bb[rf]t_) [0-9a-f]{8,}
  | (?P<jwt> \beyJ) [\w-]{8,} \. [\w-]+ \. [\w-]+
  | (?P<scheme> \b(?:bearer|basic)\s+) [^\s"',;]{4,}
  | (?P<provider> \bsk-) [0-9A-Za-z_-]{8,}
  | (?P<argon> \$argon2id?\$) [^\s"']+
  | (?P<login> ://[^\s:/@"']*:) [^\s/@"']+ (?=@)
    """,
    re.I | re.X,
)


def set_up_logs(*, log_format: str, level: str, metrics: Metrics | None = None) -> None:
    """Send every log line of this process to standard error: `json`, or `console` for people.

    `auto` is `console` on a terminal. Libraries are heard from `warning` on.
    No line makes its writer wait, and none contains what looks like a secret. `metrics` counts the
    lines that are lost.
    """
    _reserve_stderr()
    sink = _Sink(metrics or Metrics())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        redact,
    ]
    render: list[structlog.typing.Processor]
    if log_format == "console" or (log_format == "auto" and os.isatty(_STDERR)):
        # The default traceback shows local variables, and those hold secrets.
        plain = structlog.dev.plain_traceback
        colours = _may_colour()
        render = [structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]
    else:
        render = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    structlog.configure(
        processors=[*shared, *render, _hide_in_line],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _LineLogger(sink.write),
        cache_logger_on_first_use=False,
    )
    handler = _LineHandler(sink.write)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # What libraries say of their daily work is nobody's news.
    own = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(logging.INFO if own == logging.DEBUG else max(own, logging.WARNING))
    logging.raiseExceptions = False


def without_secrets(text: str) -> str:
    """The text with everything that looks like a secret replaced; what kind it was stays."""
    return _SECRETS.sub(lambda match: match[match.lastgroup or 0] + _HIDDEN, text)


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Hide the values of fields that are secret by their name, however deep they lie."""
    return {key: _hide_value(key, value) for key, value in event.items()}


def _hide_value(key: str, value: Any) -> Any:
    if _SECRET_FIELD.search(key):
        return _HIDDEN
    if isinstance(value, Mapping):
        return {name: _hide_value(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_hide_value("", inner) for inner in value]
    return value


def _hide_in_line(_logger: object, _method: str, line: Any) -> str:
    return without_secrets(str(line))


def _may_colour() -> bool:
    return "NO_COLOR" not in os.environ and os.isatty(_STDERR)


def _reserve_stderr() -> None:
    """Make sure that descriptor 2 is not free: the next file to be opened would get the log."""
    try:
        os.fstat(_STDERR)
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        if null != _STDERR:
            os.dup2(null, _STDERR)
            os.close(null)


class _Sink:
    """A bounded queue of lines and the thread that writes them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._lines: queue.Queue[bytes] = queue.Queue(_MOST_LINES)
        self._pid = 0

    def write(self, line: str) -> None:
        """Have a line written soon; count it as lost if there is no room."""
        if self._pid != os.getpid():
            self._start()
        try:
            self._lines.put_nowait(line.encode("utf-8", "backslashreplace") + b"\n")
        except queue.Full:
            self._metrics.log_lines_lost += 1

    def flush(self) -> None:
        """Wait a moment for what is queued, at the end of the process."""
        done = threading.Thread(target=self._lines.join, daemon=True)
        done.start()
        done.join(_FLUSH_S)

    def _start(self) -> None:
        # Threads do not survive a fork, and a queue may have been forked while it was locked.
        self._pid = os.getpid()
        self._lines = queue.Queue(_MOST_LINES)
        threading.Thread(target=self._run, args=(self._lines,), daemon=True).start()
        atexit.register(self.flush)

    def _run(self, lines: "queue.Queue[bytes]") -> None:
        while True:
            line = lines.get()
            try:
                while line:
                    line = line[os.write(_STDERR, line) :]
            except OSError:
                self._metrics.log_lines_lost += 1
            lines.task_done()


class _LineLogger:
    """What structlog hands finished lines to; every level is the same to it."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = write
        self.msg = self.fatal = self.exception = self.log = self.warn = write


class _LineHandler(logging.Handler):
    """Takes the standard library's records to the same place."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        try:
            line = self.format(record)
        except (TypeError, ValueError):
            # A call with the wrong number of arguments, in a library: its text is still worth it.
            line = str(record.msg)
        self._write(without_secrets(line))
