"""The second wall between accounts: PostgreSQL's row-level security, beneath our own conditions.

Owns the role as which an account's requests are carried out, what it may see, and what it may do.
Whoever a transaction is for is `Database.bound`'s to say. SQLite has no such thing.

The role is one of its own instead of a policy on everybody, for two reasons: it binds the request
even where the server signs in as the tables' owner, or as a superuser; and it costs leasing and
settlement nothing, whose conditions on many accounts' rows no policy would let near an index.
"""

from typing import Any, Final

from sqlalchemy.exc import DBAPIError

from bursar.store.database import POSTGRESQL, TENANT_ROLE, Database, ReadTx, WriteTx

_FIND: Final = """
    SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS is_there,
           coalesce((SELECT pg_has_role(current_user, oid, CASE
                              WHEN current_setting('server_version_num')::int < 160000
                              THEN 'MEMBER' ELSE 'SET' END)
                       FROM pg_roles WHERE rolname = $1), false) AS is_ours
"""
_MAKE_ROLE: Final = "CREATE ROLE bursar_tenant NOLOGIN"
_JOIN_ROLE: Final = "GRANT bursar_tenant TO CURRENT_USER"
# Tables that the role may see and has no policy for, because they are nobody's, or has no right to.
_OPEN_TABLES: Final = """
    SELECT c.relname
      FROM pg_class c
     WHERE c.relnamespace = current_schema()::regnamespace
       AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version'
       AND NOT has_table_privilege('bursar_tenant', c.oid, 'SELECT')
"""
# One statement, because its parts must be made of names that only the catalogue knows. Whatever
# table has an account or a person in it gets a wall, so that none can be forgotten.
_BUILD: Final = """
DO $$
DECLARE
    account CONSTANT text := $p$nullif(current_setting('bursar.account', true), '')::bigint$p$;
    person CONSTANT text := $p$nullif(current_setting('bursar.user', true), '')::bigint$p$;
    one record;
    mine text;
    seen text;
    rights text;
BEGIN
    IF NOT has_schema_privilege('bursar_tenant', current_schema(), 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO bursar_tenant', current_schema());
    END IF;
    FOR one IN
        SELECT c.relname AS name, bool_or(a.attname = 'account_id') AS has_account,
               bool_or(a.attname = 'user_id') AS has_user
          FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = current_schema()::regnamespace
           AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alembic_version'
           AND NOT has_table_privilege('bursar_tenant', c.oid, 'SELECT')
         GROUP BY c.oid, c.relname
         ORDER BY c.relname
    LOOP
        -- What may be read and changed; and, for a few, what may be read besides.
        mine := CASE
            WHEN one.name = 'accounts' THEN format('id = %s', account)
            WHEN one.name = 'users' THEN format('id = %s', person)
            WHEN one.name = 'sessions'
                THEN format('account_id = %s OR user_id = %s', account, person)
            WHEN one.has_account THEN format('account_id = %s', account)
            WHEN one.has_user THEN format('user_id = %s', person)
        END;
        seen := CASE one.name
            WHEN 'users' THEN format(
                'EXISTS (SELECT FROM members m WHERE m.user_id = users.id AND m.account_id = %s)',
                account)
            WHEN 'members' THEN format('user_id = %s', person)
        END;
        IF mine IS NOT NULL THEN
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', one.name);
            EXECUTE format(
                'CREATE POLICY own ON %I TO bursar_tenant USING (%s)', one.name, mine);
        END IF;
        IF seen IS NOT NULL THEN
            EXECUTE format(
                'CREATE POLICY seen ON %I FOR SELECT TO bursar_tenant USING (%s)', one.name, seen);
        END IF;
        rights := CASE
            WHEN one.name IN ('prices', 'plan_limits', 'signing_keys') THEN 'SELECT'
            -- To keep a plan as it is until the commit takes a right to change something of it.
            WHEN one.name = 'plans' THEN 'SELECT, UPDATE (id)'
            WHEN one.name IN ('audit', 'transfers', 'usage_events') THEN 'SELECT, INSERT'
            -- One's own sessions in other accounts may be ended from here, and not taken there.
            WHEN one.name = 'sessions' THEN 'SELECT, INSERT, UPDATE (ended_ms, sealed_next)'
            ELSE 'SELECT, INSERT, UPDATE, DELETE'
        END;
        EXECUTE format('GRANT %s ON %I TO bursar_tenant', rights, one.name);
    END LOOP;
END $$
"""
_REMOVE: Final = """
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT policyname, tablename FROM pg_policies WHERE schemaname = current_schema()
    LOOP
        EXECUTE format('DROP POLICY %I ON %I', one.policyname, one.tablename);
    END LOOP;
END $$
"""


async def ensure(tx: WriteTx) -> None:
    """Build what is missing of the wall, where this server's role may; `find_gap` tells.

    Safe to call at every start, and from several servers at once: a migration's lock is held.
    """
    if tx.dialect != POSTGRESQL or not await _has_role(tx):
        return
    if list(await tx.driver(_OPEN_TABLES)):
        await tx.driver(_BUILD)


async def remove(tx: WriteTx) -> None:
    """Take the wall away with its tables: policies speak of others, which are to be dropped too."""
    if tx.dialect == POSTGRESQL:
        await tx.driver(_REMOVE)


async def find_gap(database: Database) -> str | None:
    """What is missing of the wall, on PostgreSQL; None where it stands."""
    async with database.read() as tx:
        is_there, is_ours = await _look(tx)
        if not is_there:
            return f"there is no role {TENANT_ROLE}"
        if not is_ours:
            return f"the role {TENANT_ROLE} is not granted to this server's role"
        is_open = [row[0] for row in await tx.driver(_OPEN_TABLES)]
        return f"not walled yet: {', '.join(is_open)}" if is_open else None


async def _has_role(tx: WriteTx) -> bool:
    """Whether the role is there for us to act as; makes it where that is allowed."""
    is_there, is_ours = await _look(tx)
    if is_there and is_ours:
        return True
    try:
        # A refusal must not undo the migration around it.
        async with tx.connection.begin_nested():
            if not is_there:
                await tx.driver(_MAKE_ROLE)
            if not (await _look(tx))[1]:
                await tx.driver(_JOIN_ROLE)
    except DBAPIError:
        # We may not; or another server of the same cluster was quicker, for another database.
        return all(await _look(tx))
    return True


async def _look(tx: ReadTx) -> tuple[bool, bool]:
    row: Any = (await tx.driver(_FIND, (TENANT_ROLE,))).one()
    return row.is_there, row.is_ours
