"""The statements of leases and settlement: each a pair, PostgreSQL first, then SQLite.

PostgreSQL takes columns as arrays, many rows in one statement; SQLite, which has no network to
cross, runs the same thing once a row. Constants only: nothing here is ever assembled.
"""

from typing import Final

# --- workers -------------------------------------------------------------------------------------

# What makes a batch apply once: it commits with the batch. Its heartbeat is as in `workers`.
ADVANCE_WORKER: Final = (
    """
    UPDATE workers
       SET settled_seq = $3,
           heartbeat_ms = greatest(
               heartbeat_ms + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
     WHERE id = $1 AND settled_seq = $2
    """,
    """
    UPDATE workers SET settled_seq = ?3, heartbeat_ms = max(heartbeat_ms + 1, ?4)
     WHERE id = ?1 AND settled_seq = ?2
    """,
)

# --- allowances and leases -----------------------------------------------------------------------

# FOR UPDATE takes its locks in the order of the sort, so two workers cannot wait for each other.
LOCK_ALLOWANCES: Final = (
    """
    SELECT a.account_id, a.scope, a.resource, a.window_name, a.model,
           a.limit_amount, a.used, a.leased, a.window_start_ms, a.soft_amount, a.origin
      FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[])
           AS w(account_id, scope, resource, window_name, model)
      JOIN allowances a USING (account_id, scope, resource, window_name, model)
     ORDER BY a.account_id, a.scope, a.resource, a.window_name, a.model
       FOR UPDATE OF a
    """,
    """
    SELECT account_id, scope, resource, window_name, model,
           limit_amount, used, leased, window_start_ms, soft_amount, origin
      FROM allowances
     WHERE account_id = ? AND scope = ? AND resource = ? AND window_name = ? AND model = ?
    """,
)

# Whose plan decides about an allowance that is made now: it must not change before the commit.
HOLD_PLANS: Final = """
    SELECT a.id FROM accounts a JOIN plans p ON p.id = a.plan_id
     WHERE a.id = ANY($1::bigint[]) ORDER BY a.id FOR SHARE
"""

# A plan's default gets a row when it is first leased from, with the amount of that moment. Where
# the plan has none any more, it is a limit of nobody, and has a row for what is counted.
MAKE_ALLOWANCES: Final = (
    """
    INSERT INTO allowances (account_id, scope, resource, window_name, model, limit_amount, used,
                            leased, window_start_ms, origin, created_ms)
    SELECT w.account_id, w.scope, w.resource, w.window_name, w.model,
           coalesce(l.default_amount, l.most_amount), 0, 0, 0,
           CASE WHEN l.plan_id IS NULL THEN 'own' ELSE 'plan' END, w.now_ms
      FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
           AS w(account_id, scope, resource, window_name, model, now_ms)
      JOIN accounts a ON a.id = w.account_id
      LEFT JOIN plan_limits l
             ON l.plan_id = a.plan_id AND l.scope_kind = split_part(w.scope, ':', 1)
            AND l.resource = w.resource AND l.window_name = w.window_name AND l.model = w.model
     ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO allowances (account_id, scope, resource, window_name, model, limit_amount, used,
                            leased, window_start_ms, origin, created_ms)
    SELECT a.id, ?2, ?3, ?4, ?5, coalesce(l.default_amount, l.most_amount), 0, 0, 0,
           CASE WHEN l.plan_id IS NULL THEN 'own' ELSE 'plan' END, ?6
      FROM accounts a
      LEFT JOIN plan_limits l
             ON l.plan_id = a.plan_id
            AND l.scope_kind = substr(?2, 1, instr(?2 || ':', ':') - 1)
            AND l.resource = ?3 AND l.window_name = ?4 AND l.model = ?5
     WHERE a.id = ?1
    ON CONFLICT DO NOTHING
    """,
)

# Rolls the window over and takes the slice in one guarded statement; 2^63 - 1 is MAX_NANOS.
GRANT_ALLOWANCES: Final = (
    """
    UPDATE allowances a
       SET used = CASE WHEN a.window_start_ms < w.start_ms THEN 0 ELSE a.used END,
           leased = CASE WHEN a.window_start_ms < w.start_ms THEN 0 ELSE a.leased END + w.amount,
           window_start_ms = w.start_ms
      FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                  $7::bigint[])
           AS w(account_id, scope, resource, window_name, model, start_ms, amount)
     WHERE a.account_id = w.account_id AND a.scope = w.scope AND a.resource = w.resource
       AND a.window_name = w.window_name AND a.model = w.model
       AND a.window_start_ms <= w.start_ms
       AND (w.amount = 0
            OR CASE WHEN a.window_start_ms < w.start_ms THEN 0 ELSE a.used + a.leased END
               + w.amount <= coalesce(a.limit_amount, 9223372036854775807))
    """,
    """
    UPDATE allowances
       SET used = CASE WHEN window_start_ms < ?6 THEN 0 ELSE used END,
           leased = CASE WHEN window_start_ms < ?6 THEN 0 ELSE leased END + ?7,
           window_start_ms = ?6
     WHERE account_id = ?1 AND scope = ?2 AND resource = ?3 AND window_name = ?4 AND model = ?5
       AND window_start_ms <= ?6
       AND (?7 = 0
            OR CASE WHEN window_start_ms < ?6 THEN 0 ELSE used + leased END + ?7
               <= coalesce(limit_amount, 9223372036854775807))
    """,
)

GRANT_LEASES: Final = (
    """
    INSERT INTO leases AS l (worker_id, account_id, scope, resource, window_name, model,
                             window_start_ms, amount)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[],
                         $6::text[], $7::bigint[], $8::bigint[])
    ON CONFLICT (account_id, scope, resource, window_name, model, worker_id, window_start_ms)
    DO UPDATE SET amount = l.amount + excluded.amount
    """,
    """
    INSERT INTO leases (worker_id, account_id, scope, resource, window_name, model,
                        window_start_ms, amount)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (account_id, scope, resource, window_name, model, worker_id, window_start_ms)
    DO UPDATE SET amount = amount + excluded.amount
    """,
)

# A window that has ended took its leases with it: only the lease row is left to shrink.
RETURN_ALLOWANCES: Final = (
    """
    UPDATE allowances a SET leased = a.leased - w.amount
      FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                  $7::bigint[])
           AS w(account_id, scope, resource, window_name, model, start_ms, amount)
     WHERE a.account_id = w.account_id AND a.scope = w.scope AND a.resource = w.resource
       AND a.window_name = w.window_name AND a.model = w.model AND a.window_start_ms = w.start_ms
    """,
    """
    UPDATE allowances SET leased = leased - ?7
     WHERE account_id = ?1 AND scope = ?2 AND resource = ?3 AND window_name = ?4 AND model = ?5
       AND window_start_ms = ?6
    """,
)

RETURN_LEASES: Final = (
    """
    UPDATE leases l SET amount = l.amount - w.amount
      FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[],
                  $7::bigint[], $8::bigint[])
           AS w(worker_id, account_id, scope, resource, window_name, model, start_ms, amount)
     WHERE l.account_id = w.account_id AND l.scope = w.scope AND l.resource = w.resource
       AND l.window_name = w.window_name AND l.model = w.model AND l.worker_id = w.worker_id
       AND l.window_start_ms = w.start_ms
    """,
    """
    UPDATE leases SET amount = amount - ?8
     WHERE worker_id = ?1 AND account_id = ?2 AND scope = ?3 AND resource = ?4
       AND window_name = ?5 AND model = ?6 AND window_start_ms = ?7
    """,
)

WORKER_LEASES: Final = (
    """
    SELECT account_id, scope, resource, window_name, model, window_start_ms, amount
      FROM leases WHERE worker_id = $1
     ORDER BY account_id, scope, resource, window_name, model FOR UPDATE
    """,
    """
    SELECT account_id, scope, resource, window_name, model, window_start_ms, amount
      FROM leases WHERE worker_id = ?
     ORDER BY account_id, scope, resource, window_name, model
    """,
)

DELETE_LEASES: Final = (
    "DELETE FROM leases WHERE worker_id = $1",
    "DELETE FROM leases WHERE worker_id = ?",
)

FIND_LEASE: Final = (
    """
    SELECT amount FROM leases
     WHERE account_id = $1 AND scope = $2 AND resource = $3 AND window_name = $4 AND model = $5
       AND worker_id = $6 AND window_start_ms = $7
       FOR UPDATE
    """,
    """
    SELECT amount FROM leases
     WHERE account_id = ? AND scope = ? AND resource = ? AND window_name = ? AND model = ?
       AND worker_id = ? AND window_start_ms = ?
    """,
)

# --- settlement ----------------------------------------------------------------------------------

# A whole batch in one statement: rows of usage, both roll-ups, what leaves leases, what is used.
# Rows ($1) and moves ($2: leases to shrink, $3: allowances) come as JSON documents, made and sent
# at a fifth of what arrays cost the worker; the order keeps locks of roll-ups in one order too.
# The answer is how many rows were added and how many leases were shrunk.
SETTLE_BATCH: Final = """
    WITH e AS (
        SELECT (e->>3)::bigint AS account_id, (e->>2)::bigint AS at_ms, (e->>1) AS event_id,
               (e->>4)::bigint AS key_id, (e->>5)::bigint AS user_id,
               (e->>6)::bigint AS project_id, (e->>7) AS product, (e->>8) AS endpoint,
               (e->>9) AS model, (e->>10) AS upstream, (e->>11) AS outcome,
               (e->>12)::bigint AS is_stream, (e->>13)::bigint AS is_estimated,
               (e->>14)::bigint AS input_tokens, (e->>15)::bigint AS cached_input_tokens,
               (e->>16)::bigint AS output_tokens, (e->>17)::bigint AS reasoning_tokens,
               (e->>18) AS quantities, (e->>19)::bigint AS price_id,
               (e->>20)::bigint AS cost_nanos, (e->>21)::bigint AS overrun_nanos,
               (e->>22)::bigint AS duration_ms, (e->>23)::bigint AS first_byte_ms,
               (e->>24) AS labels, $4::bigint AS worker_id, (e->>0)::bigint AS seq
          FROM jsonb_array_elements(convert_from($1::bytea, 'UTF8')::jsonb) AS e
    ), added AS (
        INSERT INTO usage_events (
            account_id, at_ms, event_id, key_id, user_id, project_id, product, endpoint, model,
            upstream, outcome, is_stream, is_estimated, input_tokens, cached_input_tokens,
            output_tokens, reasoning_tokens, quantities, price_id, cost_nanos, overrun_nanos,
            duration_ms, first_byte_ms, labels, worker_id, seq)
        SELECT * FROM e
        ON CONFLICT DO NOTHING
        RETURNING 1
    ), hourly AS (
        INSERT INTO usage_hourly AS h (
            account_id, hour_ms, key_id, project_id, user_id, model, endpoint, outcome, requests,
            input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_nanos,
            overrun_nanos, last_ms)
        SELECT account_id, at_ms - at_ms % 3600000, key_id, coalesce(project_id, 0),
               coalesce(user_id, 0), model, endpoint, outcome, count(*), sum(input_tokens),
               sum(cached_input_tokens), sum(output_tokens), sum(reasoning_tokens),
               sum(cost_nanos), sum(overrun_nanos), max(at_ms)
          FROM e GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
        ON CONFLICT (account_id, hour_ms, key_id, project_id, user_id, model, endpoint, outcome)
        DO UPDATE SET requests = h.requests + excluded.requests,
            input_tokens = h.input_tokens + excluded.input_tokens,
            cached_input_tokens = h.cached_input_tokens + excluded.cached_input_tokens,
            output_tokens = h.output_tokens + excluded.output_tokens,
            reasoning_tokens = h.reasoning_tokens + excluded.reasoning_tokens,
            cost_nanos = h.cost_nanos + excluded.cost_nanos,
            overrun_nanos = h.overrun_nanos + excluded.overrun_nanos,
            last_ms = greatest(h.last_ms, excluded.last_ms)
    ), daily AS (
        INSERT INTO usage_daily AS d (
            account_id, day_ms, key_id, project_id, user_id, model, endpoint, outcome, requests,
            input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_nanos,
            overrun_nanos, last_ms)
        SELECT account_id, at_ms - at_ms % 86400000, key_id, coalesce(project_id, 0),
               coalesce(user_id, 0), model, endpoint, outcome, count(*), sum(input_tokens),
               sum(cached_input_tokens), sum(output_tokens), sum(reasoning_tokens),
               sum(cost_nanos), sum(overrun_nanos), max(at_ms)
          FROM e GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
        ON CONFLICT (account_id, day_ms, key_id, project_id, user_id, model, endpoint, outcome)
        DO UPDATE SET requests = d.requests + excluded.requests,
            input_tokens = d.input_tokens + excluded.input_tokens,
            cached_input_tokens = d.cached_input_tokens + excluded.cached_input_tokens,
            output_tokens = d.output_tokens + excluded.output_tokens,
            reasoning_tokens = d.reasoning_tokens + excluded.reasoning_tokens,
            cost_nanos = d.cost_nanos + excluded.cost_nanos,
            overrun_nanos = d.overrun_nanos + excluded.overrun_nanos,
            last_ms = greatest(d.last_ms, excluded.last_ms)
    ), shrunk AS (
        UPDATE leases l SET amount = l.amount - (w->>7)::bigint
          FROM jsonb_array_elements(convert_from($2::bytea, 'UTF8')::jsonb) AS w
         WHERE l.worker_id = (w->>0)::bigint AND l.account_id = (w->>1)::bigint
           AND l.scope = w->>2 AND l.resource = w->>3 AND l.window_name = w->>4
           AND l.model = w->>5 AND l.window_start_ms = (w->>6)::bigint
           AND l.amount >= (w->>7)::bigint
        RETURNING 1
    ), used AS (
        UPDATE allowances a
           SET leased = a.leased - (w->>6)::bigint, used = a.used + (w->>7)::bigint
          FROM jsonb_array_elements(convert_from($3::bytea, 'UTF8')::jsonb) AS w
         WHERE a.account_id = (w->>0)::bigint AND a.scope = w->>1 AND a.resource = w->>2
           AND a.window_name = w->>3 AND a.model = w->>4 AND a.window_start_ms = (w->>5)::bigint
           AND (SELECT count(*) FROM shrunk)
               = jsonb_array_length(convert_from($2::bytea, 'UTF8')::jsonb)
    )
    SELECT (SELECT count(*) FROM added), (SELECT count(*) FROM shrunk)
"""

_INSERT_USAGE: Final = """
    INSERT INTO usage_events (
        worker_id, account_id, at_ms, event_id, key_id, user_id, project_id, product, endpoint,
        model, upstream, outcome, is_stream, is_estimated, input_tokens, cached_input_tokens,
        output_tokens, reasoning_tokens, quantities, price_id, cost_nanos, overrun_nanos,
        duration_ms, first_byte_ms, labels, seq)
    SELECT ?, * FROM (VALUES {rows}) WHERE column1 IS NOT NULL
    ON CONFLICT DO NOTHING
"""
_USAGE_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Many rows in one step: between two steps the interpreter changes threads, which costs each request
# that is being served more than its row. By how many rows there are; what is left over is NULL.
INSERT_USAGE: Final = {
    size: _INSERT_USAGE.format(rows=", ".join((_USAGE_ROW,) * size)) for size in (16, 64, 256)
}
USAGE_COLUMNS: Final = _USAGE_ROW.count("?")

# The roll-ups of the rows that were inserted last, by how many those were: rows are never deleted.
ADD_HOURLY: Final = """
    INSERT INTO usage_hourly (
        account_id, hour_ms, key_id, project_id, user_id, model, endpoint, outcome, requests,
        input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_nanos,
        overrun_nanos, last_ms)
    SELECT account_id, at_ms - at_ms % 3600000, key_id, coalesce(project_id, 0),
           coalesce(user_id, 0), model, endpoint, outcome, count(*), sum(input_tokens),
           sum(cached_input_tokens), sum(output_tokens), sum(reasoning_tokens),
           sum(cost_nanos), sum(overrun_nanos), max(at_ms)
      FROM usage_events WHERE rowid > (SELECT max(rowid) FROM usage_events) - ?
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ON CONFLICT (account_id, hour_ms, key_id, project_id, user_id, model, endpoint, outcome)
    DO UPDATE SET requests = requests + excluded.requests,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_input_tokens = cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        cost_nanos = cost_nanos + excluded.cost_nanos,
        overrun_nanos = overrun_nanos + excluded.overrun_nanos,
        last_ms = max(last_ms, excluded.last_ms)
"""

ADD_DAILY: Final = """
    INSERT INTO usage_daily (
        account_id, day_ms, key_id, project_id, user_id, model, endpoint, outcome, requests,
        input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, cost_nanos,
        overrun_nanos, last_ms)
    SELECT account_id, at_ms - at_ms % 86400000, key_id, coalesce(project_id, 0),
           coalesce(user_id, 0), model, endpoint, outcome, count(*), sum(input_tokens),
           sum(cached_input_tokens), sum(output_tokens), sum(reasoning_tokens),
           sum(cost_nanos), sum(overrun_nanos), max(at_ms)
      FROM usage_events WHERE rowid > (SELECT max(rowid) FROM usage_events) - ?
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8
    ON CONFLICT (account_id, day_ms, key_id, project_id, user_id, model, endpoint, outcome)
    DO UPDATE SET requests = requests + excluded.requests,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_input_tokens = cached_input_tokens + excluded.cached_input_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        cost_nanos = cost_nanos + excluded.cost_nanos,
        overrun_nanos = overrun_nanos + excluded.overrun_nanos,
        last_ms = max(last_ms, excluded.last_ms)
"""

SETTLE_ALLOWANCES: Final = (
    """
    UPDATE allowances a SET leased = a.leased - w.from_lease, used = a.used + w.used
      FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                  $7::bigint[], $8::bigint[])
           AS w(account_id, scope, resource, window_name, model, start_ms, from_lease, used)
     WHERE a.account_id = w.account_id AND a.scope = w.scope AND a.resource = w.resource
       AND a.window_name = w.window_name AND a.model = w.model AND a.window_start_ms = w.start_ms
    """,
    """
    UPDATE allowances SET leased = leased - ?7, used = used + ?8
     WHERE account_id = ?1 AND scope = ?2 AND resource = ?3 AND window_name = ?4 AND model = ?5
       AND window_start_ms = ?6
    """,
)

# Shrinks a lease only as far as it goes: fewer rows than asked for means a lease was lost.
SETTLE_LEASES: Final = (
    """
    UPDATE leases l SET amount = l.amount - w.amount
      FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[],
                  $7::bigint[], $8::bigint[])
           AS w(worker_id, account_id, scope, resource, window_name, model, start_ms, amount)
     WHERE l.account_id = w.account_id AND l.scope = w.scope AND l.resource = w.resource
       AND l.window_name = w.window_name AND l.model = w.model AND l.worker_id = w.worker_id
       AND l.window_start_ms = w.start_ms AND l.amount >= w.amount
    """,
    """
    UPDATE leases SET amount = amount - ?8
     WHERE worker_id = ?1 AND account_id = ?2 AND scope = ?3 AND resource = ?4
       AND window_name = ?5 AND model = ?6 AND window_start_ms = ?7 AND amount >= ?8
    """,
)
