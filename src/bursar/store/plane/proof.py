"""The proof of the books: every figure that is kept, folded again from the rows that it stands for.

Owns the statements that compare. They are set-based and run in one snapshot, so that they scale to
millions of rows beside a running server, and they return only what differs. Must not know how a
difference is shown, or what to do about one.

A charge in a journal that is not settled yet is in neither side, so it is no difference.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import TextClause, bindparam, text

from bursar.store.database import POSTGRESQL, SQLITE, ReadTx

LIFETIME: Final = "lifetime"
_FOREVER_MS: Final = 2**63 - 1
# By then every worker has heard of a new allowance, and no call that it knew nothing of is counted.
_SETTLING_MS: Final = 10_000
_ROLLUP_COLUMNS: Final = (
    "requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_nanos",
    "overrun_nanos",
    "last_ms",
)


class Finding(NamedTuple):
    """One figure that is not what its rows say; None where a row is missing."""

    check: str
    account_id: int | None
    subject: str
    expected: int | None
    found: int | None


class Span(NamedTuple):
    """A window in force: its name, its bounds in ms, and the time zones in which it has them."""

    window: str
    start_ms: int
    end_ms: int
    zones: tuple[str, ...]


# Each of these returns account, subject, expected, found.
_CREDIT: Final = """
    WITH folded AS (
        SELECT account_id,
               sum(CASE WHEN target = 'wallet' THEN amount_nanos ELSE -amount_nanos END) AS credit
          FROM transfers WHERE source = 'wallet' OR target = 'wallet' GROUP BY account_id
    ), everybody AS (
        SELECT id AS account_id FROM accounts
        UNION SELECT account_id FROM folded
        UNION SELECT account_id FROM allowances WHERE scope = 'wallet'
    )
    SELECT e.account_id, 'wallet/cost/lifetime limit', coalesce(f.credit, 0), w.limit_amount
      FROM everybody e
      LEFT JOIN folded f ON f.account_id = e.account_id
      LEFT JOIN allowances w
             ON w.account_id = e.account_id AND w.scope = 'wallet' AND w.resource = 'cost'
            AND w.window_name = 'lifetime' AND w.model = ''
     WHERE w.limit_amount IS NULL OR w.limit_amount <> coalesce(f.credit, 0)
"""
_OWNERS: Final = """
    SELECT w.account_id, 'account', 1, 0
      FROM allowances w LEFT JOIN accounts a ON a.id = w.account_id
     WHERE w.scope = 'wallet' AND a.id IS NULL
"""
_COVER: Final = """
    SELECT account_id, scope || '/' || resource || '/' || window_name || ' used and leased',
           limit_amount, used + leased
      FROM allowances
     WHERE scope = 'wallet' AND (limit_amount IS NULL OR used + leased > limit_amount)
"""
_LEASED: Final = """
    WITH held AS (
        SELECT account_id, scope, resource, window_name, model, window_start_ms,
               sum(amount) AS amount
          FROM leases
         GROUP BY account_id, scope, resource, window_name, model, window_start_ms
    )
    SELECT a.account_id,
           a.scope || '/' || a.resource || '/' || a.window_name
               || CASE a.model WHEN '' THEN '' ELSE '/' || a.model END || ' leased',
           coalesce(h.amount, 0), a.leased
      FROM allowances a
      LEFT JOIN held h
             ON h.account_id = a.account_id AND h.scope = a.scope AND h.resource = a.resource
            AND h.window_name = a.window_name AND h.model = a.model
            AND h.window_start_ms = a.window_start_ms
     WHERE a.leased <> coalesce(h.amount, 0) OR a.leased < 0
"""
# A lease of a window that has ended is nobody's: the row that it was taken from has moved on.
_LOST_LEASES: Final = """
    SELECT l.account_id,
           l.scope || '/' || l.resource || '/' || l.window_name || ' lease of worker '
               || l.worker_id,
           CASE WHEN a.account_id IS NULL THEN NULL ELSE a.window_start_ms END, l.window_start_ms
      FROM leases l
      LEFT JOIN allowances a
             ON a.account_id = l.account_id AND a.scope = l.scope AND a.resource = l.resource
            AND a.window_name = l.window_name AND a.model = l.model
     WHERE l.amount <> 0 AND (a.account_id IS NULL OR l.window_start_ms > a.window_start_ms)
"""
_DEAD_LEASES: Final = """
    SELECT l.account_id,
           l.scope || '/' || l.resource || '/' || l.window_name || ' lease of closed worker '
               || l.worker_id,
           0, l.amount
      FROM leases l LEFT JOIN workers w ON w.id = l.worker_id
     WHERE l.amount <> 0 AND (w.id IS NULL OR w.state <> 'live')
"""
_UNCOUNTED: Final = """
    WITH seen AS (
        SELECT account_id, key_id, sum(cost_nanos) AS cost FROM usage_events
         GROUP BY account_id, key_id
    ), owed AS (
        SELECT account_id, 'key:' || key_id AS scope, cost FROM seen WHERE key_id <> 0
        UNION ALL SELECT account_id, 'wallet', sum(cost) FROM seen GROUP BY account_id
    )
    SELECT o.account_id, o.scope || '/cost/lifetime used', o.cost, NULL
      FROM owed o
      LEFT JOIN allowances a
             ON a.account_id = o.account_id AND a.scope = o.scope AND a.resource = 'cost'
            AND a.window_name = 'lifetime' AND a.model = ''
     WHERE a.account_id IS NULL
"""
_OVERRUN: Final = """
    WITH sides AS (
        SELECT account_id, event_id, overrun_nanos AS expected, 0 AS found
          FROM usage_events WHERE overrun_nanos > 0
        UNION ALL
        SELECT account_id, reference, 0, amount_nanos FROM transfers WHERE kind = 'overrun'
    )
    SELECT account_id, 'overrun of ' || event_id, sum(expected), sum(found)
      FROM sides GROUP BY account_id, event_id HAVING sum(expected) <> sum(found)
"""
_SEQUENCE: Final = """
    WITH settled AS (
        SELECT worker_id, min(seq) AS first, max(seq) AS last
          FROM usage_events WHERE worker_id <> 0 GROUP BY worker_id
    )
    SELECT NULL, 'worker ' || s.worker_id || ' settled_seq', s.last, w.settled_seq
      FROM settled s LEFT JOIN workers w ON w.id = s.worker_id
     WHERE w.id IS NULL OR s.last > w.settled_seq OR s.first < 1
"""
_TWICE: Final = """
    SELECT min(account_id), 'charge ' || seq || ' of worker ' || worker_id, 1, count(*)
      FROM usage_events WHERE worker_id <> 0 GROUP BY worker_id, seq HAVING count(*) > 1
"""
# What no worker has settled is numbered by nothing: each id of it is noted, once.
_METERED: Final = """
    WITH sides AS (
        SELECT account_id, event_id, 1 AS expected, 0 AS found FROM metered_events
        UNION ALL SELECT account_id, event_id, 0, 1 FROM usage_events WHERE worker_id = 0
    )
    SELECT account_id, 'metered event ' || event_id, sum(expected), sum(found)
      FROM sides GROUP BY account_id, event_id HAVING sum(expected) <> sum(found)
"""
# Ids of transfers come from a counter without gaps: a row that vanished with its counterpart shows.
_IDS: Final = """
    SELECT NULL, 'number of transfers', (SELECT value FROM counters WHERE name = 'transfers'), n
      FROM (SELECT count(*) AS n FROM transfers) t
     WHERE n <> coalesce((SELECT value FROM counters WHERE name = 'transfers'), -1)
"""
_COUNTERS: Final = """
    WITH highest AS (
        SELECT 'accounts' AS name, max(id) AS id FROM accounts
        UNION ALL SELECT 'users', max(id) FROM users
        UNION ALL SELECT 'keys', max(id) FROM keys
        UNION ALL SELECT 'transfers', max(id) FROM transfers
        UNION ALL SELECT 'prices', max(id) FROM prices
        UNION ALL SELECT 'workers', max(id) FROM workers
        UNION ALL SELECT 'changes', max(id) FROM changes
        UNION ALL SELECT 'projects', max(id) FROM projects
        UNION ALL SELECT 'plans', max(id) FROM plans
        UNION ALL SELECT 'alerts', max(id) FROM alerts
    )
    SELECT NULL, 'counter ' || h.name, coalesce(h.id, 0), c.value
      FROM highest h LEFT JOIN counters c ON c.name = h.name
     WHERE c.value IS NULL OR c.value < coalesce(h.id, 0)
"""
_WINDOW_STARTS: Final = """
    SELECT account_id, scope || '/' || resource || '/' || window_name || ' window_start_ms',
           0, window_start_ms
      FROM allowances
     WHERE window_start_ms < 0 OR (window_name = 'lifetime' AND window_start_ms <> 0)
"""

# Whether a pattern means a model. Patterns have no brackets: so GLOB knows * and ? alone, as we do.
_MATCHES_ON_SQLITE: Final = "s.model GLOB p.pattern"
_MATCHES_ON_POSTGRESQL: Final = """
    s.model LIKE replace(replace(replace(replace(p.pattern, '_', '\\_'), '%', '\\%'), '*', '%'),
                         '?', '_')
"""
# What one window's usage rows make of every allowance. A row that has not entered the window yet
# counts as one of which nothing is used, because that is what the next lease will find. What was
# made in the window, or just before it, counts from then on: it can only have less. Wallets and
# credit limits are there before any use.
_USED_BEGIN: Final = """
    WITH cells AS (
        SELECT account_id, key_id, user_id, project_id, model, sum(cost_nanos) AS cost,
               count(*) AS requests, sum(input_tokens + output_tokens) AS tokens
          FROM usage_events WHERE at_ms >= :start_ms AND at_ms < :end_ms
         GROUP BY account_id, key_id, user_id, project_id, model
    ), scoped AS (
        SELECT account_id, 'wallet' AS scope, model, cost, requests, tokens FROM cells
        UNION ALL SELECT account_id, 'account', model, cost, requests, tokens FROM cells
        UNION ALL SELECT account_id, 'key:' || key_id, model, cost, requests, tokens FROM cells
        UNION ALL SELECT account_id, 'user:' || user_id, model, cost, requests, tokens
                    FROM cells WHERE user_id IS NOT NULL
        UNION ALL SELECT account_id, 'project:' || project_id, model, cost, requests, tokens
                    FROM cells WHERE project_id IS NOT NULL
    ), sums AS (
        SELECT account_id, scope, '' AS model, sum(cost) AS cost, sum(requests) AS requests,
               sum(tokens) AS tokens
          FROM scoped GROUP BY account_id, scope
        UNION ALL
        SELECT account_id, scope, model, sum(cost), sum(requests), sum(tokens)
          FROM scoped WHERE model <> '' AND model NOT LIKE '%*%' AND model NOT LIKE '%?%'
         GROUP BY account_id, scope, model
        UNION ALL
        SELECT s.account_id, s.scope, p.pattern, sum(s.cost), sum(s.requests), sum(s.tokens)
          FROM scoped s
          JOIN (SELECT DISTINCT account_id, scope, model AS pattern FROM allowances
                 WHERE window_name = :window AND (model LIKE '%*%' OR model LIKE '%?%')) p
            ON p.account_id = s.account_id AND p.scope = s.scope
           AND
"""
_USED_END: Final = """
         GROUP BY s.account_id, s.scope, p.pattern
    ), compared AS (
        SELECT a.account_id,
               a.scope || '/' || a.resource || '/' || a.window_name
                   || CASE a.model WHEN '' THEN '' ELSE '/' || a.model END || ' used' AS subject,
               coalesce(CASE a.resource WHEN 'cost' THEN s.cost WHEN 'requests' THEN s.requests
                                        WHEN 'tokens' THEN s.tokens END, 0) AS expected,
               CASE WHEN a.window_start_ms < :start_ms THEN 0 ELSE a.used END AS found,
               a.created_ms = 0 OR a.created_ms <= :start_ms - :settling_ms OR a.scope = 'wallet'
                   OR (a.scope LIKE 'key:%' AND a.resource = 'cost' AND a.model = ''
                       AND :window = 'lifetime') AS is_whole
          FROM allowances a
          LEFT JOIN accounts o ON o.id = a.account_id
          LEFT JOIN sums s
                 ON s.account_id = a.account_id AND s.scope = a.scope AND s.model = a.model
         WHERE a.window_name = :window AND a.window_start_ms <= :start_ms
           AND (:window = 'lifetime' OR coalesce(o.time_zone, 'UTC') IN :zones)
    )
    SELECT account_id, subject, expected, found FROM compared
     WHERE found > expected OR (is_whole AND found < expected)
"""
_USED: Final[Mapping[str, TextClause]] = {
    SQLITE: text(_USED_BEGIN + _MATCHES_ON_SQLITE + _USED_END),
    POSTGRESQL: text(_USED_BEGIN + _MATCHES_ON_POSTGRESQL + _USED_END),
}

# Roll-ups of former versions did not note their last use: an older one than the rows' is right.
_ROLLUP: Final = """
    WITH kept AS (
        SELECT hour_ms AS moment, account_id, key_id, project_id, user_id, model, endpoint,
               outcome, requests, input_tokens, cached_input_tokens, output_tokens,
               reasoning_tokens, cost_nanos, overrun_nanos, last_ms
          FROM usage_hourly WHERE :span_ms = 3600000
        UNION ALL
        SELECT day_ms, account_id, key_id, project_id, user_id, model, endpoint,
               outcome, requests, input_tokens, cached_input_tokens, output_tokens,
               reasoning_tokens, cost_nanos, overrun_nanos, last_ms
          FROM usage_daily WHERE :span_ms = 86400000
    ), sides AS (
        SELECT account_id, at_ms - at_ms % :span_ms AS moment, key_id,
               coalesce(project_id, 0) AS project_id, coalesce(user_id, 0) AS user_id, model,
               endpoint, outcome, 1 AS requests, input_tokens, cached_input_tokens,
               output_tokens, reasoning_tokens, cost_nanos, overrun_nanos, at_ms,
               0 AS f1, 0 AS f2, 0 AS f3, 0 AS f4, 0 AS f5, 0 AS f6, 0 AS f7, 0 AS last_ms,
               0 AS rows_kept
          FROM usage_events
        UNION ALL
        SELECT account_id, moment, key_id, project_id, user_id, model, endpoint, outcome,
               0, 0, 0, 0, 0, 0, 0, 0, requests, input_tokens, cached_input_tokens,
               output_tokens, reasoning_tokens, cost_nanos, overrun_nanos, last_ms, 1
          FROM kept
    )
    SELECT account_id, moment, key_id, project_id, user_id, model, endpoint, outcome,
           sum(requests), sum(input_tokens), sum(cached_input_tokens), sum(output_tokens),
           sum(reasoning_tokens), sum(cost_nanos), sum(overrun_nanos),
           CASE WHEN max(last_ms) > max(at_ms) THEN max(at_ms) ELSE max(last_ms) END,
           sum(f1), sum(f2), sum(f3), sum(f4), sum(f5), sum(f6), sum(f7), max(last_ms),
           sum(rows_kept)
      FROM sides
     GROUP BY account_id, moment, key_id, project_id, user_id, model, endpoint, outcome
    HAVING sum(requests) <> sum(f1) OR sum(input_tokens) <> sum(f2)
        OR sum(cached_input_tokens) <> sum(f3) OR sum(output_tokens) <> sum(f4)
        OR sum(reasoning_tokens) <> sum(f5) OR sum(cost_nanos) <> sum(f6)
        OR sum(overrun_nanos) <> sum(f7) OR max(last_ms) > max(at_ms) OR sum(requests) = 0
"""
_SPANS: Final = {"usage_hourly": 3_600_000, "usage_daily": 86_400_000}

_SIMPLE: Final[Mapping[str, TextClause]] = {
    "credit": text(_CREDIT),
    "owners": text(_OWNERS),
    "cover": text(_COVER),
    "uncounted": text(_UNCOUNTED),
    "windows": text(_WINDOW_STARTS),
    "leased": text(_LEASED),
    "lost leases": text(_LOST_LEASES),
    "dead leases": text(_DEAD_LEASES),
    "overrun": text(_OVERRUN),
    "sequence": text(_SEQUENCE),
    "charged twice": text(_TWICE),
    "metered": text(_METERED),
    "transfers": text(_IDS),
    "counters": text(_COUNTERS),
}
_COUNTS: Final = """
    SELECT 'accounts', count(*) FROM accounts
    UNION ALL SELECT 'allowances', count(*) FROM allowances
    UNION ALL SELECT 'leases', count(*) FROM leases
    UNION ALL SELECT 'transfers', count(*) FROM transfers
    UNION ALL SELECT 'usage_events', count(*) FROM usage_events
    UNION ALL SELECT 'usage_hourly', count(*) FROM usage_hourly
    UNION ALL SELECT 'usage_daily', count(*) FROM usage_daily
    UNION ALL SELECT 'workers', count(*) FROM workers
"""


async def count_rows(tx: ReadTx) -> dict[str, int]:
    """How many rows of each kind there are to prove."""
    rows: Any = await tx.execute(text(_COUNTS))
    return {name: int(count) for name, count in rows}


async def list_zones(tx: ReadTx) -> list[str]:
    """The time zones that accounts live in; UTC is always among them."""
    rows = await tx.execute(text("SELECT time_zone FROM accounts UNION SELECT 'UTC'"))
    return sorted(row[0] for row in rows)


async def find_differences(tx: ReadTx, *, spans: Sequence[Span]) -> AsyncIterator[Finding]:
    """Yield every figure that is not what its rows say; `spans` are the windows in force now."""
    for check, statement in _SIMPLE.items():
        async for row in _stream(tx, statement):
            yield _finding(check, row)
    used = _USED[tx.dialect].bindparams(bindparam("zones", expanding=True))
    for span in (Span(LIFETIME, 0, _FOREVER_MS, ("UTC",)), *spans):
        values = {**span._asdict(), "settling_ms": _SETTLING_MS}
        async for row in _stream(tx, used.bindparams(**values)):
            yield _finding("used", row)
    for check, span_ms in _SPANS.items():
        async for row in _stream(tx, text(_ROLLUP).bindparams(span_ms=span_ms)):
            for finding in _cell(check, row):
                yield finding


async def _stream(tx: ReadTx, statement: TextClause) -> AsyncIterator[Sequence[Any]]:
    async with tx.connection.stream(statement) as rows:
        async for row in rows:
            yield row


def _finding(check: str, row: Sequence[Any]) -> Finding:
    account_id, subject, expected, found = row
    return Finding(check, _int(account_id), subject, _int(expected), _int(found))


def _cell(check: str, row: Sequence[Any]) -> list[Finding]:
    account_id, moment, key_id, project_id, user_id, model, endpoint, outcome = row[:8]
    expected, found, rows_kept = row[8:16], row[16:24], row[24]
    cell = f"{moment} key {key_id} project {project_id} user {user_id} {model} {endpoint} {outcome}"
    if not rows_kept or not expected[0]:
        # A row too many or too few says more than seven figures that are not there.
        return [Finding(check, account_id, f"row of {cell}", int(expected[0]), int(found[0]))]
    return [
        Finding(check, account_id, f"{column} of {cell}", int(wanted), int(there))
        for column, wanted, there in zip(_ROLLUP_COLUMNS, expected, found, strict=True)
        if wanted != there
    ]


def _int(figure: Any) -> int | None:
    return None if figure is None else int(figure)
